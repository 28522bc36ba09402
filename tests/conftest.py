"""Fixtures that every test may use. Test modules in all folders need names of their own."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, and for the processes that tests start

import pytest
import torch
from hypothesis import settings

from nern.registry.discovery import create_registry
from nern.registry.registry import Registry

settings.register_profile("nern", max_examples=25, deadline=None, derandomize=True, database=None)
settings.load_profile("nern")

#: Real data and weights lie beside the repository, where they are there at all.
SHARED = Path(__file__).resolve().parents[2] / "shared"


def shared(name: str) -> Path:
    """A file below `SHARED`, or a skip that says what is missing."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs the real {path.name}, which is not at ../shared/{name}")
    return path


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The session's own cache, for this process and those that it starts."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NERN_CACHE", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Every test starts with one thread, whatever the one before it left."""
    torch.set_num_threads(1)


@pytest.fixture
def registry() -> Registry:
    """A fresh registry of the built-ins alone."""
    return create_registry(entry_points=False)


@pytest.fixture(scope="session")
def resnet20_weights() -> Path:
    """ResNet20 for CIFAR-10: {"state_dict": {"module.…": …}}."""
    return shared("weights/resnet20-12fca82f.th")


@pytest.fixture(scope="session")
def resnet56_weights() -> Path:
    """ResNet56 for CIFAR-10, in the same form."""
    return shared("weights/resnet56-4bfd9763.th")


@pytest.fixture(scope="session")
def squeezenet_weights() -> Path:
    """A pruned SqueezeNet 1.0 for ImageNet, in torchvision's names."""
    return shared("weights/squeezenet1_0-imagenet.safetensors")


@pytest.fixture(scope="session")
def small_cifar10(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task root with real CIFAR-10 images: train/<class>/ with 40 and test/<class>/ with 20 images of each class."""
    root = tmp_path_factory.mktemp("cifar10")
    unzip_some(shared("data/cifar10-train-0.zip"), root, each=40)
    unzip_some(shared("data/cifar10-test.zip"), root, each=20)
    return root


@pytest.fixture(scope="session")
def small_imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task root with real photographs of all 1,000 classes: val/<wnid>/, one each."""
    root = tmp_path_factory.mktemp("imagenet")
    unzip_some(shared("data/imagenet-sample.zip"), root, each=1)
    return root


def unzip_some(archive: Path, root: Path, each: int) -> None:
    """Unzip the first `each` files of every folder in `archive`."""
    with zipfile.ZipFile(archive) as opened:
        taken: dict[str, int] = {}
        for name in sorted(opened.namelist()):
            folder = name.rpartition("/")[0]
            if not name.endswith("/") and taken.get(folder, 0) < each:
                taken[folder] = taken.get(folder, 0) + 1
                opened.extract(name, root)
