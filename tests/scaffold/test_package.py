"""`nern new-plugin`: what it writes installs and passes its own tests, for every extension point."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from nern.cli.main import run
from nern.registry.registry import KINDS
from nern.scaffold.package import _class

#: What pip does for each of them, without a process for each of its steps.
BUILD = """
import os, sys
from hatchling.build import build_wheel
for folder in sys.argv[2:]:
    os.chdir(folder)
    build_wheel(sys.argv[1])
"""
ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_every_kind_installs_and_passes_its_tests(tmp_path):
    pytest.importorskip("hatchling", reason="needs the build backend: pip install hatchling")
    for kind in KINDS:
        assert run(["new-plugin", f"nern-my-{kind}", "--kind", kind, "--output", str(tmp_path)]) == 0
    packages = [tmp_path / f"nern-my-{kind}" for kind in KINDS]
    for package in packages:
        texts = [path.read_text(encoding="utf-8") for path in package.rglob("*") if path.is_file()]
        assert sum(text.count("# FILL IN: ") for text in texts) == 1, package
        assert not [text for text in texts if "$" in text.replace("$ ", "")], package
    site, wheels = tmp_path / "site", tmp_path / "wheels"
    wheels.mkdir()
    subprocess.run([sys.executable, "-c", BUILD, str(wheels), *map(str, packages)], check=True, timeout=300)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*pip, *map(str, wheels.iterdir())], check=True, timeout=300)
    tests = [str(package / "tests") for package in packages]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    pytest_ = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", "--rootdir", str(tmp_path)]
    process = subprocess.run([*pytest_, *tests], capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=300)
    assert process.returncode == 0, process.stdout + process.stderr
    assert f"{2 * len(KINDS)} passed" in process.stdout
    lint = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "E,F,I,B,UP", "--line-length", "140", *map(str, packages)],
        capture_output=True,
        text=True,
    )
    assert lint.returncode == 0 or "No module named ruff" in lint.stderr, lint.stdout


@pytest.mark.slow
def test_readmes_example_runs(tmp_path):
    """The experiment that the README shows is a part of a valid one."""
    assert run(["new-plugin", "nern-steep", "--kind", "loss", "--output", str(tmp_path)]) == 0
    readme = (tmp_path / "nern-steep" / "README.md").read_text(encoding="utf-8")
    values = yaml.safe_load(readme.partition("```yaml\n")[2].partition("```")[0])
    assert values == {"losses": {"steep": {}}}
    (tmp_path / "experiment.yaml").write_text(
        yaml.safe_dump(
            {
                "plugins": [str(tmp_path / "nern-steep" / "nern_steep" / "__init__.py")],
                "architecture": {"name": "cifar-resnet", "depth": 8, "width": 4, "channels": 1, "size": 8, "mean": [0.3], "std": [0.4]},
                "task": "digits",
                "pretrain": {"epochs": 1},
                "smoother": "none",
                "sampler": "all",
                "phases": [{"iterations": 2}],
                "output": str(tmp_path / "run"),
                **values,
            }
        )
    )
    assert run(["train", str(tmp_path / "experiment.yaml"), "--json"]) == 0


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("nern-x", "layer", "--kind layer: there is no such extension point (there are: architecture, embedding"),
        ("Nern X", "loss", "'Nern X' is no package name: use lower-case letters, digits and hyphens"),
        ("-x", "loss", "'-x' is no package name"),
        ("../x", "loss", "'../x' is no package name"),
        ("class", "loss", "'class' is a word or a module of Python's own; name it nern-class"),
        ("json", "loss", "'json' is a word or a module of Python's own"),
        ("torch", "loss", "a module 'torch' is installed already"),
        ("nern", "loss", "a module 'nern' is installed already"),
    ],
)
def test_bad_names_are_refused(name, kind, message, tmp_path, capsys):
    assert run(["new-plugin", "--kind", kind, "--output", str(tmp_path), "--", name]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_existing_folder_is_left_alone(tmp_path, capsys):
    (tmp_path / "nern-x").mkdir()
    (tmp_path / "nern-x" / "mine").write_text("mine")
    assert run(["new-plugin", "nern-x", "--kind", "loss", "--output", str(tmp_path)]) == 2
    assert f"{tmp_path / 'nern-x'} exists already" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "nern-x").iterdir()] == ["mine"]


def test_folder_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run(["new-plugin", "nern-x", "--kind", "loss", "--output", str(tmp_path / "file")]) == 2
    assert "cannot write" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("component", "kind", "name"),
    [
        ("two-step", "sampler", "TwoStepSampler"),
        ("my-loss", "loss", "MyLoss"),
        ("sampler", "sampler", "MySampler"),
        ("3d", "loss", "My3dLoss"),
    ],
)
def test_class_names(component, kind, name):
    assert _class(component, kind) == name


def test_one_package_with_several_kinds(tmp_path, monkeypatch):
    from nern import testing
    from nern.registry.discovery import create_registry

    arguments = ["new-plugin", "nern-many", "--kind", "loss", "--kind", "sampler", "--kind", "metric", "--kind", "loss"]
    assert run([*arguments, "-o", str(tmp_path)]) == 0
    package = tmp_path / "nern-many"
    assert sorted(path.name for path in (package / "tests").iterdir()) == ["test_loss.py", "test_metric.py", "test_sampler.py"]
    monkeypatch.syspath_prepend(str(package))
    registry = create_registry(["nern_many"], entry_points=False)
    assert not registry.failures
    for kind in ("loss", "sampler", "metric"):
        cls = registry.find(kind, "nern_many:many").cls
        getattr(testing, f"check_{kind}")(cls())
        assert f"from nern_many.{kind} import {cls.__name__}" in (package / "tests" / f"test_{kind}.py").read_text()
    readme = (package / "README.md").read_text()
    assert readme.startswith("# nern-many\n\nA loss and a sampler and a metric for [nern]")
    assert yaml.safe_load(readme.partition("```yaml\n")[2].partition("```")[0]).keys() == {"losses", "sampler", "metrics"}
