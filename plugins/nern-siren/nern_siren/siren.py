"""Sinusoidal representation networks (Sitzmann et al. 2020)."""

from __future__ import annotations

import itertools
import math

import attrs
import torch
from torch import Tensor, nn

from nern import Predictor, above, at_least, option


class Sines(nn.Module):
    """sin(ω(Wx + b)) layer after layer, and a linear layer at the end."""

    def __init__(self, inputs: int, outputs: int, hidden: int, layers: int, first: float, inner: float) -> None:
        super().__init__()
        sizes = [inputs, *[hidden] * (layers - 1)]
        self.sines = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.last = nn.Linear(hidden, outputs)
        self.omegas = [first, *[inner] * (layers - 2)]

    def forward(self, embedded: Tensor) -> Tensor:
        """[n, inputs] → [n, outputs]."""
        x = embedded
        for layer, omega in zip(self.sines, self.omegas, strict=True):
            x = torch.sin(omega * layer(x))
        outputs: Tensor = self.last(x)
        return outputs


@attrs.frozen
class Siren(Predictor):
    """Multilayer perceptron with sines, initialised as Sitzmann et al. 2020, sec. 3.2; outputs start like the kernels."""

    hidden: int = option(160, help="hidden size", check=at_least(1))
    layers: int = option(5, help="number of linear layers", check=at_least(2))
    first_omega: float = option(1.0, help="frequency ω₀ of the first layer, for embedded coordinates of unit variance", check=above(0))
    omega: float = option(1.0, help="frequency ω₀ of the other layers", check=above(0))

    def build(self, inputs: int, outputs: int) -> nn.Module:
        return Sines(inputs, outputs, self.hidden, self.layers, self.first_omega, self.omega)

    def initialise(self, module: nn.Module, embedded: Tensor, kernels: Tensor) -> None:
        """Inner weights are U(−√(6/n)/ω₀, √(6/n)/ω₀), which gives angles unit variance, since a sine has a mean square of 1/2.

        The first layer reckons with the mean square of the embedding instead, the last with the spread of the kernels.
        """
        assert isinstance(module, Sines)
        with torch.no_grad():
            square = float(embedded.double().square().mean().clamp_min(1e-12))
            for index, layer in enumerate(module.sines):
                assert isinstance(layer, nn.Linear)
                bound = math.sqrt(3 / (layer.in_features * square)) if index == 0 else math.sqrt(6 / layer.in_features) / self.omega
                nn.init.uniform_(layer.weight, -bound, bound)
                omega = module.omegas[index]
                nn.init.uniform_(layer.bias, -math.pi / omega, math.pi / omega)
            bound = float(kernels.std()) * math.sqrt(6 / module.last.in_features)
            nn.init.uniform_(module.last.weight, -bound, bound)
            nn.init.constant_(module.last.bias, float(kernels.mean()))
