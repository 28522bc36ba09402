"""Plugins pass `mypy --strict` against nern: every scaffold, and the packages of this repository."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nern.cli.main import run
from nern.registry.registry import KINDS

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_scaffolds_and_packages_pass_strict_types(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="needs pip install mypy")
    modules = []
    for kind in KINDS:
        assert run(["new-plugin", f"nern-my-{kind}", "--kind", kind, "-o", str(tmp_path)]) == 0
        modules.append(tmp_path / f"nern-my-{kind}" / f"nern_my_{kind}")
    modules += [package / package.name.replace("-", "_") for package in sorted((ROOT / "plugins").iterdir()) if package.is_dir()]
    environment = {**os.environ, "MYPYPATH": os.pathsep.join([str(ROOT), *(str(module.parent) for module in modules)])}
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", str(ROOT / ".mypy_cache" / "plugins")]
    process = subprocess.run([*command, *map(str, modules)], capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=600)
    assert process.returncode == 0, process.stdout + process.stderr
