"""Which parameters of the paper's networks are represented, and their sizes against the paper's tables."""

from __future__ import annotations

import pytest
from torch import nn

from nern.builtin.architectures.cifar_resnet import CifarResNet
from nern.builtin.architectures.imagenet_resnet import ImageNetResNet
from nern.builtin.architectures.squeezenet import SqueezeNet
from nern.builtin.embeddings.positional import Positional
from nern.builtin.predictors.mlp import MLP
from nern.interfaces import Architecture
from nern.kernels.coordinates import KernelGrid
from nern.kernels.orders import Unordered
from nern.representation.assembling import assemble

MB = 4 / 2**20  # of a float32 weight, as the paper counts


def grid_of(architecture: Architecture) -> KernelGrid:
    return KernelGrid(tuple(architecture.layers(architecture.build())))


@pytest.mark.parametrize(
    ("architecture", "megabytes"),
    [  # reference: "Learnable Weights Size" of Tables 1, 2, 3 and 13
        (CifarResNet(depth=20), 1.03),
        (CifarResNet(depth=56), 3.25),
        (ImageNetResNet(), 41.91),
        (SqueezeNet(model="squeezenet1_1"), 2.74),
    ],
)
def test_learnable_weights_have_the_papers_size(architecture: Architecture, megabytes: float) -> None:
    assert grid_of(architecture).weights * MB == pytest.approx(megabytes, rel=0.01)  # the paper's MB are not all rounded alike


@pytest.mark.parametrize(
    ("hidden", "megabytes"),
    [(160, 0.45), (280, 1.17), (340, 1.65), (1024, 12.99), (1140, 15.97), (1256, 19.27), (1372, 22.87)],
)
def test_predictors_have_the_papers_size(hidden: int, megabytes: float) -> None:
    grid = grid_of(CifarResNet())
    orders = [Unordered(layer.filters, layer.channels) for layer in grid.layers]
    representation = assemble(grid, list(orders), Positional(), MLP(hidden=hidden))
    assert abs(sum(value.numel() for value in representation.predictor.parameters()) * MB - megabytes) < 0.011


def test_resnet18_is_its_stages_but_neither_stem_nor_shortcuts() -> None:
    network = ImageNetResNet().build()
    names = [layer.parameter for layer in ImageNetResNet().layers(network)]
    assert names == [f"layer{stage}.{block}.conv{conv}.weight" for stage in range(1, 5) for block in range(2) for conv in (1, 2)]
    everything = [layer.parameter for layer in ImageNetResNet(layers="convolutions").layers(network)]
    assert everything == [f"{name}.weight" for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    assert KernelGrid(tuple(ImageNetResNet(layers="convolutions").layers(network))).size == (7, 7)
    some = ImageNetResNet(layers=["conv1.weight", "layer4.*.downsample.0.weight"]).layers(network)
    assert [layer.parameter for layer in some] == ["conv1.weight", "layer4.0.downsample.0.weight"]


@pytest.mark.parametrize(("depth", "blocks"), [(34, [3, 4, 6, 3]), (50, [3, 4, 6, 3]), (101, [3, 4, 23, 3])])
def test_deeper_resnets_are_their_three_by_three_convolutions(depth: int, blocks: list[int]) -> None:
    convs = (1, 2) if depth == 34 else (2,)
    architecture = ImageNetResNet(depth=depth, size=32)
    layers = architecture.layers(architecture.build())
    assert [layer.parameter for layer in layers] == [
        f"layer{stage}.{block}.conv{conv}.weight" for stage in range(1, 5) for block in range(blocks[stage - 1]) for conv in convs
    ]
    assert {layer.kernel for layer in layers} == {(3, 3)}


@pytest.mark.parametrize(("model", "stem"), [("squeezenet1_0", (7, 7)), ("squeezenet1_1", (3, 3))])
def test_squeezenet_is_all_but_its_classifier(model: str, stem: tuple[int, int]) -> None:
    architecture = SqueezeNet(model=model)  # type: ignore[arg-type]
    network = architecture.build()
    layers = architecture.layers(network)
    convolutions = [f"{name}.weight" for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    assert [layer.parameter for layer in layers] == [name for name in convolutions if not name.startswith("classifier")]
    assert (len(layers), layers[0].kernel) == (25, stem)
    assert [layer.parameter for layer in SqueezeNet(model=model, layers="convolutions").layers(network)] == convolutions  # type: ignore[arg-type]
