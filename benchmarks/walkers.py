"""The networks that `benchmarks.walks` takes the whole way: each is made, trained where that is cheap, and represented by a command."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path

import attrs
import torch
from torch import nn

from nern.toolkit.references import build_reference

CODE = Path(__file__).parent / "walked"
IMAGES = {"train": 300, "test": 60}  # of CIFAR-10, of each class
#: Options of the benchmark → how the documentation calls what they name.
PLACES = {"cifar": "cifar10", "photographs": "photographs", "efficientnet": "efficientnet-lite0.safetensors", "resnet18": "resnet18.pth"}


@attrs.frozen
class Walker:
    """One network."""

    title: str
    prepare: Callable[[Path, argparse.Namespace], list[str]]
    """Makes what is needed in a folder; returns the arguments for Python that represent the network as the run `run` and `net.nern`."""
    module: str
    """Python that makes a module with the network's names and shapes, called `module`."""
    needs: tuple[str, ...] = ()
    """Options without which there is nothing to represent."""


def represent(weights: str | Path, *words: str) -> list[str]:
    return ["-m", "nern", "represent", str(weights), *words, "--run", "run", "-o", "net.nern"]


def own_class(place: Path, _: argparse.Namespace) -> list[str]:
    from PIL import Image
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    for index, (image, label) in enumerate(zip(images.reshape(-1, 8, 8), labels, strict=True)):
        folder = place / "pictures" / ("test" if index % 5 == 0 else "train") / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15).astype("uint8")).resize((16, 16)).save(folder / f"{index}.png")
    for name in ("net.py", "blocks.py"):
        shutil.copy(CODE / name, place)
    train(build_reference(f"{place}/net.py:Net", {"width": 16}), place, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), epochs=6)
    return represent(
        "net.pth", "--model", "net.py:Net", "--arguments", "width=16", "--images", "pictures", "--size", "16", "--mean", "0.5,0.5,0.5",
        "--std", "0.5,0.5,0.5", "--recipe", "quick", "--steps", "0.3", "--bytes", "60k",
    )  # fmt: skip


def timm_network(place: Path, options: argparse.Namespace) -> list[str]:
    import timm

    link(options.cifar, place)
    train(timm.create_model("test_resnet", num_classes=10), place, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), epochs=6)
    return represent(
        "net.pth", "--model", "timm:test_resnet", "--arguments", "classes=10", "--images", "pictures", "--size", "32",
        "--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25", "--recipe", "quick", "--steps", "0.2",
        "phases.distillation.batch=32", "phases.distillation.iterations=60",
    )  # fmt: skip


def transformer(place: Path, options: argparse.Namespace) -> list[str]:
    import timm

    link(options.cifar, place)
    network = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10)
    train(network, place, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), epochs=2)
    return represent(
        "net.pth", "--model", "timm:vit_tiny_patch16_224", "--arguments", "classes=10", "--images", "pictures", "--size", "32",
        "--layers", "all", "--recipe", "small", "--steps", "0.01", "phases.distillation.batch=32", "curvature_batches=1",
    )  # fmt: skip


def segmentation(place: Path, _: argparse.Namespace) -> list[str]:
    shutil.copy(CODE / "shapes.py", place)
    return ["-c", "import shapes; shapes.main()"]


def regression(place: Path, _: argparse.Namespace) -> list[str]:
    shutil.copy(CODE / "diabetes.py", place)
    return ["-c", "import diabetes; diabetes.main()"]


def efficientnet(_: Path, options: argparse.Namespace) -> list[str]:
    return represent(
        options.efficientnet, "--model", "timm:tf_efficientnet_lite0", "--images", str(options.photographs), "--recipe", "small",
        "--steps", "0.004", "--bytes", "3M", "phases.distillation.batch=8", "curvature_batches=1",
    )  # fmt: skip


def resnet18(_: Path, options: argparse.Namespace) -> list[str]:
    return represent(
        options.resnet18, "--model", "torchvision:resnet18", "--images", str(options.photographs), "--recipe", "small",
        "--steps", "0.004", "phases.distillation.batch=8", "curvature_batches=1",
    )  # fmt: skip


def link(cifar: Path, place: Path) -> None:
    """A folder `pictures` with some of CIFAR-10's images of every class."""
    for split, count in IMAGES.items():
        for folder in sorted((cifar / split).iterdir()):
            here = place / "pictures" / split / folder.name
            here.mkdir(parents=True)
            for file in sorted(folder.iterdir())[:count]:
                (here / file.name).symlink_to(file.absolute())


def train(network: nn.Module, place: Path, mean: tuple[float, ...], std: tuple[float, ...], epochs: int) -> None:
    """Train a classifier on the folder `pictures/train`, and write its weights to `net.pth`."""
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    torch.manual_seed(0)
    prepared = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
    images, labels = map(list, zip(*ImageFolder(str(place / "pictures" / "train"), prepared), strict=True))
    inputs, targets = torch.stack(images), torch.tensor(labels)
    steps = epochs * len(inputs) // 64
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(steps):
        batch = torch.randint(len(inputs), (64,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(inputs[batch]), targets[batch]).backward()
        optimizer.step()
        schedule.step()
    torch.save(network.state_dict(), place / "net.pth")


WALKERS = {
    "own": Walker("own class in a file, with a file beside it", own_class, "import net; module = net.Net(width=16)"),
    "timm": Walker(
        "timm's `test_resnet`, other mean and std",
        timm_network,
        "import timm; module = timm.create_model('test_resnet', num_classes=10)",
        ("cifar",),
    ),
    "vit": Walker(
        "timm's `vit_tiny_patch16_224` for 32 × 32 pixels",
        transformer,
        "import timm; module = timm.create_model('vit_tiny_patch16_224', img_size=32, num_classes=10)",
        ("cifar",),
    ),
    "segmentation": Walker("segmentation of shapes", segmentation, "import shapes; module = shapes.Segmenter()"),
    "regression": Walker("regression by linear layers", regression, "import diabetes; module = diabetes.Regressor()"),
    "efficientnet": Walker(
        "EfficientNet-Lite0",
        efficientnet,
        "import timm; module = timm.create_model('tf_efficientnet_lite0')",
        ("efficientnet", "photographs"),
    ),
    "resnet18": Walker("ResNet18", resnet18, "import torchvision; module = torchvision.models.resnet18()", ("resnet18", "photographs")),
}
