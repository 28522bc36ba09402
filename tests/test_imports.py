"""The order of imports that pyproject.toml states is checked, and the check can fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--config", str(ROOT / "pyproject.toml")]
    return subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package's modules."""
    shutil.copytree(ROOT / "nern", tmp_path / "nern", ignore=shutil.ignore_patterns("__pycache__", "*.yaml", "*.template"))
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("support/files.py", "import nern.networks.pair", "imports go down"),
        ("registry/registry.py", "import nern.builtin.losses.kd", "imports go down"),
        ("builtin/losses/kd.py", "import nern.builtin.losses.fmd", "no built-in imports another"),
    ],
)
def test_an_import_against_the_order_is_found(copy: Path, file: str, line: str, contract: str) -> None:
    path = copy / "nern" / file
    path.write_text(path.read_text(encoding="utf-8") + f"\n{line}\n", encoding="utf-8")
    process = lint(copy)
    assert process.returncode == 1
    assert f"{contract} BROKEN" in " ".join(process.stdout.split())


def test_imports_go_down() -> None:
    process = lint(ROOT)
    assert process.returncode == 0, process.stdout
