"""Multilayer perceptrons, plain and with skip connections, initialised to the original weights' mean and variance."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import attrs
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nern import Lookup, Predictor, at_least, hookimpl, option
from nern.toolkit.predictors import linear


class Sine(nn.Module):
    """sin(x)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sin()


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "leaky-relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "hardswish": nn.Hardswish,
    "sine": Sine,
}
Activation = Literal["relu", "gelu", "silu", "leaky-relu", "elu", "hardswish", "sine"]
Normalisation = Literal["none", "layer", "batch"]


def expectation(function: Callable[[Tensor], Tensor]) -> float:
    """E[f(z)] for z ~ N(0, 1), by Gauss–Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(101)
    return float((weights * function(torch.from_numpy(nodes)).numpy()).sum() / math.sqrt(2 * math.pi))


def mean_square(activation: nn.Module) -> float:
    """E[φ(z)²] for z ~ N(0, 1)."""
    return expectation(lambda z: activation(z) ** 2)


class Layers(nn.Module):
    """Linear layers with activations. The embedding is a second input of layer `skip`; `residual` adds layer inputs to outputs."""

    accepts_lookup = True

    def __init__(self, inputs: int, outputs: int, options: MLP, *, skip: int | None = None, residual: bool = False) -> None:
        super().__init__()
        hidden = options.hidden
        self.skip, self.residual = skip, residual
        self.first = nn.Linear(inputs, hidden)
        self.hidden = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(options.layers - 2))
        self.again = nn.Linear(inputs, hidden, bias=False) if skip is not None else None
        self.last = nn.Linear(hidden, outputs)
        norms = {"none": nn.Identity, "layer": nn.LayerNorm, "batch": nn.BatchNorm1d}[options.normalisation]
        self.norms = nn.ModuleList(norms(hidden) for _ in range(options.layers - 1))
        self.activation = ACTIVATIONS[options.activation]()

    def forward(self, embedded: Tensor | Lookup, columns: Tensor | None = None) -> Tensor:
        """[n, inputs] → [n, outputs], or some columns of it."""
        activation: Callable[[Tensor], Tensor] = self.activation
        if isinstance(activation, nn.ReLU) and not torch.is_grad_enabled():
            activation = torch.relu_  # each value it is given is new, and nothing else holds it
        x = activation(self.norms[0](linear(self.first, embedded)))
        for index, layer in enumerate(self.hidden):
            y = layer(x)
            if self.again is not None and index == self.skip:
                y = y + linear(self.again, embedded)
            y = activation(self.norms[index + 1](y))
            x = x + y if self.residual else y
        if columns is None:
            outputs: Tensor = self.last(x)
            return outputs
        return F.linear(x, self.last.weight[columns], self.last.bias[columns])


@attrs.frozen
class MLP(Predictor):
    """Multilayer perceptron (Ashkenazi et al. 2023, sec. 3.1)."""

    hidden: int = option(160, help="hidden size", check=at_least(1))
    layers: int = option(5, help="number of linear layers", check=at_least(2))
    activation: Activation = option("relu", help="activation function")
    normalisation: Normalisation = option("none", help="normalisation before each activation")
    init: Literal["matching", "ordinary"] = option(
        "matching", help="matching: outputs start with the original weights' mean and variance; ordinary: torch's default"
    )

    def build(self, inputs: int, outputs: int) -> nn.Module:
        return Layers(inputs, outputs, self)

    def initialise(self, module: nn.Module, embedded: Tensor, kernels: Tensor) -> None:
        """Keep the variance of activations through the layers and match the mean and variance of the kernels (appendix B)."""
        if self.init == "ordinary":
            return
        assert isinstance(module, Layers)
        mean, kept = expectation(module.activation), mean_square(module.activation)

        def after(layers: int) -> float:  # mean square after this many layers: residual layers add up their outputs
            added = layers if module.residual else 1
            return added * (kept - mean**2) + (added * mean) ** 2

        paths = 1 if module.again is None else 2
        with torch.no_grad():
            source = float(embedded.double().pow(2).mean()) or 1.0  # an embedding that starts at zero has no variance
            square = source
            for done, layer in enumerate([module.first, *module.hidden], start=1):
                assert isinstance(layer, nn.Linear)
                nn.init.normal_(layer.weight, std=1 / math.sqrt(layer.in_features * square))
                nn.init.zeros_(layer.bias)
                square = after(done)
            if isinstance(module.again, nn.Linear) and module.skip is not None:
                # at the skip layer, hidden values and embedding share the variance
                nn.init.normal_(module.again.weight, std=1 / math.sqrt(paths * module.again.in_features * source))
                joined = module.hidden[module.skip]
                assert isinstance(joined, nn.Linear)
                nn.init.normal_(joined.weight, std=1 / math.sqrt(paths * joined.in_features * square))
            nn.init.normal_(module.last.weight, std=float(kernels.std()) / math.sqrt(module.last.in_features * square))
            nn.init.constant_(module.last.bias, float(kernels.mean()))


@attrs.frozen
class SkipMLP(MLP):
    """Multilayer perceptron whose middle layer gets the embedding as a second input (Park et al. 2019)."""

    layers: int = option(5, help="number of linear layers", check=at_least(3))

    def build(self, inputs: int, outputs: int) -> nn.Module:
        return Layers(inputs, outputs, self, skip=(self.layers - 2) // 2)


@attrs.frozen
class ResidualMLP(MLP):
    """Multilayer perceptron in which every hidden layer adds to its input (He et al. 2016)."""

    layers: int = option(5, help="number of linear layers", check=at_least(3))

    def build(self, inputs: int, outputs: int) -> nn.Module:
        return Layers(inputs, outputs, self, residual=True)


@hookimpl
def nern_predictors() -> Mapping[str, type[Predictor]]:
    return {"mlp": MLP, "skip-mlp": SkipMLP, "residual-mlp": ResidualMLP}
