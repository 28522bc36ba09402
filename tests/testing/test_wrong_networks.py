"""Checks of what makes kernels and networks can fail."""

from __future__ import annotations

import attrs
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nern import (
    Architecture,
    Embedding,
    LayerMapping,
    Predictor,
    option,
    testing,
)
from nern.builtin.architectures.cifar_resnet import CifarResNet
from nern.builtin.predictors.mlp import MLP
from nern.builtin.samplers.uniform import Uniform
from nern.representation.lookup import AxisTables
from tests.testing.failing import fails

SEEDS: list[int] = []


@attrs.frozen
class NoHelp(MLP):
    """An option without help."""

    hidden: int = 8


@attrs.frozen
class NoDocstring(MLP):
    hidden: int = option(8, help="hidden size")


@attrs.frozen
class LosesOption(MLP):
    """An option that YAML changes."""

    hidden: int = option(8, help="hidden size")
    scale: tuple[float, ...] = option((1.0, 2.0), help="some scales")

    def __eq__(self, other: object) -> bool:
        return self is other


def test_options_are_checked():
    fails("predictor", NoHelp(), "option 'hidden' of NoHelp has no help")
    fails("predictor", NoDocstring(), "NoDocstring needs a docstring")
    fails("predictor", LosesOption(), "after a round through YAML")
    fails("predictor", Uniform(), "Uniform is not derived from nern.Predictor")


class Tiny(nn.Module):
    """A network with a represented layer, and mistakes on demand."""

    def __init__(self, mistake: str) -> None:
        super().__init__()
        self.mistake = mistake
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.unused = nn.Conv2d(4, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.linear = nn.Linear(4, 5)
        if mistake == "tensor":
            self.shift = torch.zeros(4, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.conv(x))
        x = F.relu(x)
        if self.mistake == "tensor":
            x = x + self.shift
        if self.mistake == "random":
            x = F.dropout(x, 0.5, training=True)
        x = self.linear(x.mean((2, 3)))
        return x[0] if self.mistake == "shape" else x


class BadJoin(LayerMapping):
    def join(self, kernels):
        return kernels.reshape(self.shape).flip(0)


class Detached(LayerMapping):
    def join(self, kernels):
        rebuilt = kernels.reshape(self.shape)
        return torch.cat([rebuilt[:1].detach(), rebuilt[1:]])


@attrs.frozen
class Wrong(Architecture):
    """An architecture with a mistake."""

    mistake: str = option("none", help="which mistake")

    def build(self):
        if self.mistake == "seed":
            torch.manual_seed(int(torch.randint(1 << 30, (), generator=torch.Generator().manual_seed(id(object()) % 1000 + len(SEEDS)))))
            SEEDS.append(1)
        return Tiny(self.mistake)

    def layers(self, network):
        cls = {"join": BadJoin, "detached": Detached}.get(self.mistake, LayerMapping)
        shape = (4, 3, 3, 3)
        layers = [
            cls("missing.weight" if self.mistake == "name" else "conv.weight", shape if self.mistake != "mapping" else (4, 3, 1, 1), 0)
        ]
        if self.mistake == "twice":
            layers.append(LayerMapping("unused.weight", (4, 4, 3, 3), 0))
        if self.mistake == "unused":
            layers.append(LayerMapping("unused.weight", (4, 4, 3, 3), 1))
        if self.mistake == "changing":
            SEEDS.append(1)
            layers = [LayerMapping("conv.weight", shape, len(SEEDS))]
        return [] if self.mistake == "empty" else layers

    def features(self, network):
        return {"feature": ["nothing"], "order": ["linear", "norm"], "uncalled": ["unused"]}.get(self.mistake, ["norm"])

    def load(self, network):
        dtypes = super().load(network)
        if self.mistake == "load":
            network.conv.weight.data.zero_()
        return {} if self.mistake == "dtypes" else dtypes


@pytest.mark.parametrize(
    ("mistake", "message"),
    {
        "seed": "build() gives other weights under the same seed",
        "empty": "layers() must map at least one weight",
        "changing": "layers() gives other layers, or another order, when it is called again",
        "name": "layers() maps 'missing.weight', which is no parameter of the network",
        "mapping": "layers() maps 'conv.weight' with shape [4, 3, 1, 1], and the network's has [4, 3, 3, 3]",
        "join": "join() of 'conv.weight' must give back what split() was given, and gives another weight",
        "detached": "join() passes gradients for 81 of 108 weights",
        "twice": "coordinates() must differ from kernel to kernel, and two kernels have the same",
        "feature": "features() names what is not there: feature map 'nothing'",
        "order": "features() must be in forward order",
        "uncalled": "features() must be in forward order",
        "random": "the network in eval mode gives other outputs each time",
        "shape": "every output must have one entry for each image",
        "unused": "layer 'unused.weight' does not reach the outputs",
        "load": "load() does not give back the weights",
        "dtypes": "load() must return the dtype of every entry",
        "tensor": "tensor 'shift' of the network is neither parameter nor buffer",
    }.items(),
)
def test_check_architecture_fails(mistake, message):
    fails("architecture", Wrong(mistake=mistake), message)


def test_check_architecture_passes_without_a_mistake():
    testing.check_architecture(Wrong())
    testing.check_architecture(CifarResNet(depth=8, width=2, size=8))


class Vectors(nn.Module):
    """An embedding module with mistakes on demand."""

    def __init__(self, mistake: str) -> None:
        super().__init__()
        self.mistake = mistake
        if mistake != "dim":
            self.dim = 5
        self.table = nn.Parameter(torch.randn(9, 5))
        self.unreached = nn.Parameter(torch.zeros(3)) if mistake == "unreached" else None
        self.seen = torch.randn(5) if mistake == "hidden" else None
        if mistake == "stays":
            self.helper = [torch.ones(5)]

    def forward(self, coordinates):
        vectors = self.table[coordinates].sum(1)
        if self.mistake == "in place":
            coordinates.add_(1)
        if self.seen is not None:
            vectors = vectors + float(self.seen[0])
        return {
            "shape": vectors[:, :3],
            "double": vectors.double(),
            "nan": vectors / 0,
            "constant": vectors * 0 + 1,
            "mixed": vectors - vectors.mean(0),
        }.get(self.mistake, vectors + torch.ones(5) if self.mistake == "cpu" else vectors)


@attrs.frozen
class WrongEmbedding(Embedding):
    """An embedding with a mistake."""

    mistake: str = option("none", help="which mistake")

    def build(self, grid):
        return Vectors(self.mistake)


@pytest.mark.parametrize(
    ("mistake", "message"),
    {
        "dim": "needs an attribute 'dim'",
        "in place": "forward(coordinates) changes the coordinates that it is given",
        "shape": "forward(coordinates) must give [36, 5] float32, gave [36, 3] float32",
        "double": "forward(coordinates) must give [36, 5] float32, gave [36, 5] float64",
        "nan": "forward(coordinates) must give finite numbers, and gives others",
        "constant": "every coordinate gets the same vector",
        "mixed": "a row's vector depends on the other rows",
        "unreached": "no gradient reaches parameter 'unreached'",
        "hidden": "has state that is not in its state dict",
        "stays": "tensor 'helper' of the embedding is neither parameter nor buffer",
        "cpu": "mixes devices after a move",
    }.items(),
)
def test_check_embedding_fails(mistake, message):
    fails("embedding", WrongEmbedding(mistake=mistake), message)


def test_check_embedding_compares_tables():
    class Module(Vectors):
        def tables(self):
            return AxisTables((torch.zeros(9, 5),) * 3, (0, 0, 0), 5)

    @attrs.frozen
    class Tables(Embedding):
        """Tables that say something else."""

        def build(self, grid):
            return Module("none")

    fails("embedding", Tables(), "tables() and forward() give different embeddings")
    testing.check_embedding(WrongEmbedding())


class Kernels(nn.Module):
    """A predictor module with mistakes on demand."""

    def __init__(self, inputs: int, outputs: int, mistake: str) -> None:
        super().__init__()
        self.mistake, self.accepts_lookup = mistake, mistake == "lookup"
        self.linear = nn.Linear(inputs, outputs)
        if mistake == "unused":
            self.spare = nn.Parameter(torch.zeros(3))
        if mistake == "untrained":
            self.linear.requires_grad_(False)

    def forward(self, embedded):
        if not isinstance(embedded, torch.Tensor):
            return self.linear(embedded.dense()) + 1
        return {
            "shape": self.linear(embedded)[:, :4],
            "detached": self.linear(embedded.detach()),
            "mixed": self.linear(embedded - embedded.mean(0)),
        }.get(self.mistake, self.linear(embedded))


@attrs.frozen
class WrongPredictor(Predictor):
    """A predictor with a mistake."""

    mistake: str = option("none", help="which mistake")

    def build(self, inputs, outputs):
        return nn.Identity() if self.mistake == "empty" else Kernels(inputs, outputs, self.mistake)

    def initialise(self, module, embedded, kernels):
        if self.mistake == "seed":
            nn.init.constant_(module.linear.weight, len(SEEDS) + 1)
            SEEDS.append(1)


@pytest.mark.parametrize(
    ("mistake", "message"),
    {
        "seed": "build() and initialise() give other weights under the same seed",
        "empty": "the predictor has no parameters",
        "shape": "forward(embedded) must give [64, 9] float32, gave [64, 4] float32",
        "detached": "no gradient reaches the embedded coordinates",
        "mixed": "in eval mode a kernel depends on other rows than its own",
        "unused": "no gradient reaches parameter 'spare' of the predictor",
        "lookup": "forward() gives other kernels for a Lookup",
    }.items(),
)
def test_check_predictor_fails(mistake, message):
    fails("predictor", WrongPredictor(mistake=mistake), message)


class FromItsEmbedding(nn.Module):
    """A module without parameters, which says so, and lets gradients through or not."""

    trained_by_embedding = True

    def __init__(self, outputs: int, detached: bool) -> None:
        super().__init__()
        self.outputs, self.detached = outputs, detached

    def forward(self, embedded):
        kernels = embedded[:, : self.outputs]
        return kernels.detach() if self.detached else kernels


@attrs.frozen
class WithoutParameters(Predictor):
    """A predictor of which nothing is trained but its embedding."""

    detached: bool = option(False, help="whether gradients end in it")

    def build(self, inputs, outputs):
        return FromItsEmbedding(outputs, self.detached)


def test_check_predictor_lets_a_predictor_without_parameters_pass_only_where_its_embedding_can_be_trained():
    testing.check_predictor(WithoutParameters())
    fails("predictor", WithoutParameters(detached=True), "no gradient reaches the embedded coordinates")


def test_check_predictor_passes_without_a_mistake():
    testing.check_predictor(WrongPredictor())
