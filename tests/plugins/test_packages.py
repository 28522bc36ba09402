"""Whole packages: built as wheels, installed next to nern's own wheel, trained with from YAML."""

from __future__ import annotations

import ast
import importlib
import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import pytest
import yaml

import nern
import nern.testing

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "nern-feedback": ROOT / "plugins" / "nern-feedback",
    "nern-mobilenet": ROOT / "plugins" / "nern-mobilenet",
    "nern-palette": ROOT / "plugins" / "nern-palette",
    "nern-siren": ROOT / "plugins" / "nern-siren",
    "nern-strips": Path(__file__).parent / "independent",
}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment with the wheels of nern and of every package.

    What nern depends on comes from the environment of the tests, by a path file; its own nern is behind the wheel.
    """
    pytest.importorskip("build", reason="needs pip install build")
    pytest.importorskip("hatchling", reason="needs the build backend: pip install hatchling")
    folder = tmp_path_factory.mktemp("packages")
    for source in (ROOT, *PACKAGES.values()):
        build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder / "wheels"), str(source)]
        process = subprocess.run(build, capture_output=True, text=True, timeout=300)
        assert process.returncode == 0, process.stdout + process.stderr
    wheels = sorted(map(str, (folder / "wheels").glob("*.whl")))
    assert len(wheels) == 1 + len(PACKAGES)
    venv.create(folder / "venv", system_site_packages=True, symlinks=True)
    interpreter = folder / "venv" / "bin" / "python"
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    outside = sorted({sysconfig.get_paths()[name] for name in ("purelib", "platlib")})
    (site / "outside.pth").write_text("\n".join(outside) + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(interpreter), "install", "--quiet", "--no-deps", "--no-index", "--ignore-installed"]
    process = subprocess.run([*pip, *wheels], capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stdout + process.stderr
    return interpreter


def call(python: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "NERN_DISABLE_PLUGINS")}
    process = subprocess.run([str(python), *arguments], capture_output=True, text=True, cwd=folder, env=clean, timeout=600)
    assert process.returncode == 0, process.stdout + process.stderr
    return process


def test_environment_has_the_wheels(python, tmp_path):
    site = call(python, tmp_path, "-c", "import nern, nern_siren; print(nern.__file__); print(nern_siren.__file__)").stdout.splitlines()
    assert all(str(python.parents[1]) in place for place in site)
    listed = json.loads(call(python, tmp_path, "-m", "nern", "plugins", "--json").stdout)
    assert listed["failures"] == [] and listed["conflicts"] == []
    outside = {(c["kind"], c["name"], c["package"], c["version"]) for c in listed["components"] if c["package"] in PACKAGES}
    assert outside == {
        ("architecture", "mobilenet", "nern-mobilenet", "0.1.0"),
        ("sampler", "feedback", "nern-feedback", "0.1.0"),
        ("base", "palette", "nern-palette", "0.1.0"),
        ("predictor", "siren", "nern-siren", "0.1.0"),
        ("embedding", "hash-grid", "nern-siren", "0.1.0"),
        ("architecture", "strips", "nern-strips", "0.4.2"),
        ("loss", "angle", "nern-strips", "0.4.2"),
        ("sampler", "windows", "nern-strips", "0.4.2"),
    }


def train(python: Path, folder: Path, **sections: Any) -> dict[str, Any]:
    experiment = {
        "task": "digits",
        "pretrain": {"epochs": 1, "batch": 64},
        "predictor": {"name": "mlp", "hidden": 16},
        "smoother": "cross-filter",
        "phases": [{"iterations": 4, "batch": 8}],
        "output": "run",
        **sections,
    }
    (folder / "experiment.yaml").write_text(yaml.safe_dump(experiment), encoding="utf-8")
    result: dict[str, Any] = json.loads(call(python, folder, "-m", "nern", "train", "experiment.yaml", "--json").stdout)
    return result


def test_plugins_train_from_yaml(python, tmp_path):
    small = {"width": 0.25, "classes": 10, "channels": 1, "size": 8, "stem_stride": 1, "mean": [0.3], "std": [0.37]}
    result = train(
        python,
        tmp_path,
        architecture={"name": "mobilenet", **small},
        embedding="hash-grid",
        predictor={"name": "siren", "hidden": 16},
        sampler="all",
        optimizer={"name": "adamw"},
    )
    assert result["iterations"] == 4
    assert result["bytes"]["embedding"] > 0
    call(python, tmp_path, "-m", "nern", "reconstruct", result["artifact"], "-o", "weights.safetensors")
    rebuild = (
        "import torch, safetensors.torch as s, nern_mobilenet as m; n = m.MobileNet(**{}).build(); n.load_state_dict(s.load_file({!r}))"
    )
    call(python, tmp_path, "-c", rebuild.format(small, "weights.safetensors"))


def test_independent_package_trains_from_yaml(python, tmp_path):
    result = train(
        python,
        tmp_path,
        architecture={"name": "strips", "width": 4},
        losses={"angle": {"distance": 2.0}, "kd": {"weight": 0.1}, "fmd": {"weight": 0.1}, "reconstruction": None},
        sampler={"name": "windows", "length": 32},
        optimizer={"name": "adamw", "lr": 0.01},
        phases=[{"iterations": 60, "batch": 16}],
        log_every=1,
    )
    losses = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    angles = [line["losses"]["angle"] for line in losses if "angle" in line.get("losses", {})]
    assert sum(angles[-10:]) < 0.8 * sum(angles[:10])
    call(python, tmp_path, "-m", "nern", "reconstruct", result["artifact"], "-o", "weights.safetensors")
    shapes = (
        "import safetensors.torch as s; print({n: list(v.shape) for n, v in s.load_file('weights.safetensors').items() if v.dim() == 4})"
    )
    assert ast.literal_eval(call(python, tmp_path, "-c", shapes).stdout) == {
        "square.0.weight": [4, 1, 5, 5],
        "flat.0.weight": [4, 4, 1, 7],
        "square2.0.weight": [8, 4, 5, 5],
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_own_tests(package, python, tmp_path):
    arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(PACKAGES[package] / "tests")]
    assert " passed" in call(python, tmp_path, *arguments).stdout


def toolkit_names(module: str) -> set[str]:
    """The public names of a module of nern.toolkit."""
    return {name for name in vars(importlib.import_module(module)) if not name.startswith("_")}


def check_public_imports(folder: Path) -> None:
    """Raises AssertionError where a file imports from nern what is not public."""
    public = {*nern.__all__, "testing"}
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module in ("nern", "nern.testing"):
                allowed = public if node.module == "nern" else set(nern.testing.__all__)
                assert {name.name for name in node.names} <= allowed, path
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nern.toolkit."):
                assert {name.name for name in node.names} <= toolkit_names(node.module), path
            elif isinstance(node, ast.ImportFrom):
                assert not (node.module or "").startswith("nern."), f"{path} imports {node.module}"
            elif isinstance(node, ast.Import):
                assert not [name.name for name in node.names if name.name.startswith("nern.")], path
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "nern":
                assert node.attr in public, f"{path} uses nern.{node.attr}"


@pytest.mark.parametrize("folder", [*PACKAGES.values(), ROOT / "nern" / "builtin"], ids=[*PACKAGES, "built-ins"])
def test_plugins_import_public_names_only(folder):
    check_public_imports(folder)


@pytest.mark.parametrize(
    "line",
    ["from nern.kernels.orders import pack_orders", "import nern.engine", "from nern.toolkit.images import _pool", "from nern import step"],
)
def test_a_private_import_is_found(tmp_path, line):
    (tmp_path / "plugin.py").write_text(line + "\n", encoding="utf-8")
    with pytest.raises(AssertionError):
        check_public_imports(tmp_path)
