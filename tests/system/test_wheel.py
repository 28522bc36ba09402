"""What a user installs: the wheel, alone, in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY, weights_file

build = pytest.importorskip("build", reason="needs the packages of nern[test]")
pytest.importorskip("hatchling", reason="needs the packages of nern[test]")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(REPOSITORY)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stdout + process.stderr
    (file,) = folder.glob("*.whl")
    return file


def test_the_wheel_holds_the_library_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"nern/py.typed", "nern/cli/main.py", "nern/presets/digits.yaml", "nern/builtin/predictors/mlp.py"} <= names
    here = {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "nern").rglob("*.py")}
    here |= {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "nern" / "presets").glob("*.yaml")}
    assert here <= names
    assert all(name.startswith(("nern/", "nern-")) for name in names)
    assert not [name for name in names if name.endswith(".pyc")]
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_the_installed_wheel_lists_presets_and_trains(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "environment", with_pip=False, symlinks=os.name == "posix")
    python = tmp_path / "environment" / ("Scripts" if os.name == "nt" else "bin") / "python"
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True, text=True, check=True
    ).stdout.strip()
    # torch and the rest come from the environment that runs the tests, by a .pth file; nern comes from the wheel
    borrowed = subprocess.run(
        [sys.executable, "-c", "import torch, pathlib; print(pathlib.Path(torch.__file__).parents[1])"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", "--quiet", str(wheel)]
    process = subprocess.run(install, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    (Path(site) / "borrowed.pth").write_text(f"{borrowed}\n")
    empty = tmp_path / "empty"
    empty.mkdir()
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"NERN_DISABLE_PLUGINS": "1"}
    nern = python.parent / "nern"

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([nern, *arguments], cwd=empty, env=clean, capture_output=True, text=True, timeout=300)

    where = subprocess.run(
        [python, "-c", "import nern; print(nern.__file__)"], cwd=empty, env=clean, capture_output=True, text=True, check=True
    )
    assert Path(where.stdout.strip()).is_relative_to(site)
    listed = run("presets")
    assert listed.returncode == 0, listed.stderr
    assert {"digits", "resnet20-cifar10"} <= {line.split()[0] for line in listed.stdout.splitlines()}
    weights = weights_file(tmp_path / "original.safetensors", depth=8, width=16)
    steps = [f"architecture.weights={weights}", "phases.0.iterations=10", "phases.1.iterations=10"]
    trained = run("train", "digits", *steps, "--json")
    assert trained.returncode == 0, trained.stderr
    assert json.loads(trained.stdout)["iterations"] == 20
    assert (empty / "runs" / "digits" / "model.nern").is_file()
