"""Random Fourier features (Tancik et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import attrs
import torch
from torch import Tensor, nn

from nern import Embedding, KernelGrid, OptionError, at_least, hookimpl, option


class RandomFourier(nn.Module):
    """[sin(2πBv), cos(2πBv)] with a fixed Gaussian matrix B [features, 3]; it has more columns where coordinates have more."""

    def __init__(self, features: int, scales: list[float]) -> None:
        super().__init__()
        self.dim = 2 * features
        self.register_buffer("matrix", torch.randn(features, len(scales)) * torch.tensor(scales))

    def forward(self, coordinates: Tensor) -> Tensor:
        angles = 2 * math.pi * (coordinates.double() @ self.get_buffer("matrix").double().T)
        return torch.cat([angles.sin().float(), angles.cos().float()], dim=1)  # half the memory of joining them in double precision


@attrs.frozen
class Fourier(Embedding):
    """Random Fourier features with one Gaussian scale per coordinate (Tancik et al. 2020)."""

    features: int = option(120, help="rows of the random matrix; the embedding has twice as many numbers", check=at_least(1))
    scales: list[float] = option(factory=lambda: [1.0, 0.1, 0.1], help="standard deviations for layer, filter, channel")

    def __attrs_post_init__(self) -> None:
        if len(self.scales) < 3 or min(self.scales) <= 0:
            raise OptionError("scales", f"must be three numbers above 0, got {self.scales}")

    def build(self, grid: KernelGrid) -> nn.Module:
        columns = grid.layers[0].coordinates().shape[1]
        if len(self.scales) != columns:
            raise OptionError("scales", f"must be one number for each of the {columns} coordinates, got {self.scales}")
        return RandomFourier(self.features, self.scales)


@hookimpl
def nern_embeddings() -> Mapping[str, type[Embedding]]:
    return {"fourier": Fourier}
