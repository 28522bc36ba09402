"""Every built-in passes the published contract check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from nern import (
    Preprocessing,
    testing,
)
from nern.errors import NernError
from nern.registry.discovery import create_registry
from nern.registry.registry import KINDS, Entry
from nern.testing import fixtures

BUILTINS = create_registry(entry_points=False)

#: Options of components that need some, or that are large or slow with their defaults.
OPTIONS: dict[str, dict[str, Any]] = {
    "cifar-resnet": {"depth": 8, "width": 4, "size": 16},
    "imagenet-resnet": {"size": 32},
    "squeezenet": {"size": 32},
    "timm": {"model": "test_resnet.r160_in1k"},
    "module": {"build": "torchvision.models:squeezenet1_1", "size": [3, 32, 32]},
    "torchvision": {"model": "squeezenet1_1", "size": 32},
    "wandb": {"mode": "offline"},
    "clearml": {"offline": True},
    "submitit": {"cluster": "local", "minutes": 5},
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/ and test/ with 100 classes, one image of noise in each."""
    root = tmp_path_factory.mktemp("images")
    noise = np.random.default_rng(0)
    for split in ("train", "test", "val"):
        for index in range(100):
            folder = root / split / f"{index:03}"
            folder.mkdir(parents=True)
            Image.fromarray(noise.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / "0.png")
    return root


def component(entry: Entry, **options: Any) -> Any:
    return entry.cls(**OPTIONS.get(entry.name, {}), **options)


def of(kind: str) -> list[Any]:
    return [pytest.param(entry, id=entry.name) for entry in BUILTINS.entries(kind)]


@pytest.mark.parametrize("kind", KINDS)
def test_there_is_a_check_for_every_extension_point(kind):
    assert f"check_{kind}" in testing.__all__
    assert BUILTINS.entries(kind)


@pytest.mark.parametrize("entry", of("architecture"))
def test_builtin_architecture(entry):
    testing.check_architecture(component(entry))


@pytest.mark.parametrize("kind", ["embedding", "predictor", "base", "sampler", "smoother", "loss", "metric", "optimizer"])
def test_builtin_components(kind):
    for entry in BUILTINS.entries(kind):
        getattr(testing, f"check_{kind}")(component(entry))


def choices(kind: str) -> list[Any]:
    """Every alternative of every option that is a choice between words or a switch, the rest at their defaults."""
    parameters = []
    for entry in BUILTINS.entries(kind):
        for info in attrs.fields(attrs.resolve_types(entry.cls)):
            values = getattr(info.type, "__args__", ()) if "Literal" in str(info.type) else (True, False) if info.type is bool else ()
            parameters += [pytest.param(entry, {info.name: value}, id=f"{entry.name}-{info.name}-{value}") for value in values]
    return parameters


@pytest.mark.parametrize(
    ("entry", "options"), [*choices("embedding"), *choices("predictor"), *choices("base"), *choices("sampler"), *choices("loss")]
)
def test_builtin_choices(entry, options):
    try:
        built = component(entry, **options)
    except ValueError:
        pytest.skip("this choice needs another option")
    getattr(testing, f"check_{entry.kind}")(built)


@pytest.mark.parametrize("entry", of("task"))
def test_builtin_task(entry, images, monkeypatch):
    root = {"root": str(images)} if any(field.name == "root" for field in attrs.fields(entry.cls)) else {}
    if entry.name == "cifar10":
        root = {"root": str(_fewer_classes(images, 10))}
    if "imagenet" in entry.name:
        pytest.skip("its thousand classes are tested on the real sample")
    if entry.name == "given":
        root = {"root": str(images / "examples.safetensors")}
        save_file({"all.inputs": torch.randn(40, 3, 32, 32), "all.targets": torch.randint(9, (40,))}, root["root"])
    size = (1, 8, 8) if entry.name == "digits" else (3, 32, 32)
    statistics = {"mean": (0.3,), "std": (0.4,)} if entry.name == "digits" else {}
    testing.check_task(component(entry, **root), Preprocessing(size=size, **statistics))


def _fewer_classes(images: Path, classes: int) -> Path:
    root = images.parent / f"images-{classes}"
    for split in ("train", "test"):
        (root / split).mkdir(parents=True, exist_ok=True)
        for index in range(classes):
            link = root / split / f"{index:03}"
            if not link.exists():
                link.symlink_to(images / split / f"{index:03}")
    return root


@pytest.mark.parametrize("entry", of("observer"))
def test_builtin_observer(entry, monkeypatch, tmp_path):
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "CLEARML_CACHE_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("CLEARML_OFFLINE_MODE", "1")
    try:
        testing.check_observer(component(entry))
    except NernError as error:
        pytest.skip(f"an optional package is missing: {error}")


@pytest.mark.slow
@pytest.mark.parametrize("entry", of("launcher"))
def test_builtin_launcher(entry):
    if entry.name != "local":
        pytest.importorskip(entry.name, reason=f'needs {entry.name}: pip install "nern[{entry.name}]"')
    testing.check_launcher(component(entry))


def test_checked_run_calls_every_observer_hook():
    from nern.registry.hook_errors import OBSERVER_HOOKS

    assert {hook for hook, _ in fixtures.run(Path(), None)} == set(OBSERVER_HOOKS)
