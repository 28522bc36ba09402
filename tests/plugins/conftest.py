"""Packages that look installed, and a run that takes a moment."""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from nern.builtin.architectures.cifar_resnet import CifarResNet
from nern.support.files import write_tensors
from tests.plugins.odd_components import RESNET, REST, OddPackage, registered

Install = Callable[..., None]


@pytest.fixture(scope="module")
def odd(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OddPackage]:
    """The package with every break in the tables of a test file."""
    tables = [request.module.BROKEN, getattr(request.module, "LATE", {})]
    kinds = {kind: None for table in tables for kind in table}
    together = {kind: {what: row for table in tables for what, row in table.get(kind, {}).items()} for kind in kinds}
    yield from registered(together, tmp_path_factory.mktemp("odd"))


@pytest.fixture(autouse=True)
def no_real_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NERN_DISABLE_PLUGINS", raising=False)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a package with an entry point on the path, as pip would."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    before = set(sys.modules)

    def put(package: str, code: str, *, version: str = "1.0", entry: str | None = None, requires: str | None = None) -> None:
        module = package.replace("-", "_")
        (site / f"{module}.py").write_text(textwrap.dedent(code), encoding="utf-8")
        info = site / f"{module}-{version}.dist-info"
        info.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {package}", f"Version: {version}"]
        (info / "METADATA").write_text("\n".join([*lines, *([f"Requires-Dist: {requires}"] if requires else [])]) + "\n")
        (info / "entry_points.txt").write_text(f"[nern]\n{entry or package} = {module}\n")
        importlib.invalidate_caches()

    yield put
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(site) in str(sys.modules[name].__file__):
            del sys.modules[name]


@pytest.fixture
def experiment(tmp_path: Path) -> Callable[..., Path]:
    """Write an experiment of three steps on a tiny network; keyword arguments replace its sections."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        write_tensors(tmp_path / "original.safetensors", CifarResNet(**RESNET).build().state_dict())

    def write(name: str = "tiny", **sections: Any) -> Path:
        values = {
            "architecture": {"name": "cifar-resnet", "weights": str(tmp_path / "original.safetensors"), **RESNET},
            **REST,
            "phases": [{"iterations": 3}],
            "output": str(tmp_path / "runs" / name),
            **sections,
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        return path

    return write
