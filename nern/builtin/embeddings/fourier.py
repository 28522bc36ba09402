"""Random Fourier features (Tancik et al. 2020), alone or beside features of single coordinates as in eq. 1 of the paper."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import attrs
import torch
from torch import Tensor, nn

from nern import Embedding, KernelGrid, OptionError, at_least, at_most, hookimpl, option


class RandomFourier(nn.Module):
    """[sin(2πBv), cos(2πBv)] with a fixed matrix B [features, 3]; it has more columns where coordinates have more.

    Args:
        scales: standard deviations of B's normally distributed rows, one for each coordinate.
        alone: frequencies of further rows that see one coordinate alone, in waves from one value of it to the next; a tensor [any
            number] for each coordinate.
    """

    def __init__(self, features: int, scales: Sequence[float], alone: Sequence[Tensor] = ()) -> None:
        super().__init__()
        rows = [torch.randn(features - sum(map(len, alone)), len(scales)) * torch.tensor(scales)]
        for coordinate, frequencies in enumerate(alone):
            rows.append(torch.zeros(len(frequencies), len(scales)).index_copy_(1, torch.tensor([coordinate]), frequencies.unsqueeze(1)))
        self.dim = 2 * features
        self.register_buffer("matrix", torch.cat(rows))

    def forward(self, coordinates: Tensor) -> Tensor:
        angles = 2 * math.pi * (coordinates.double() @ self.get_buffer("matrix").double().T)
        return torch.cat([angles.sin().float(), angles.cos().float()], dim=1)  # half the memory of joining them in double precision


@attrs.frozen
class Fourier(Embedding):
    """Random Fourier features with one Gaussian scale per coordinate (Tancik et al. 2020)."""

    features: int = option(120, help="rows of the random matrix; the embedding has twice as many numbers", check=at_least(1))
    scales: list[float] = option(factory=lambda: [1.0, 0.1, 0.1], help="standard deviations for layer, filter, channel")
    alone: float = option(
        0.0,
        help="part of the features that see a single coordinate, as the paper's do, with frequencies from half a wave over all of its "
        "values to half a wave from one value to the next",
        check=[at_least(0), at_most(1)],
    )

    def __attrs_post_init__(self) -> None:
        if len(self.scales) < 3 or min(self.scales) <= 0:
            raise OptionError("scales", f"must be three numbers above 0, got {self.scales}")

    def build(self, grid: KernelGrid) -> nn.Module:
        columns = grid.layers[0].coordinates().shape[1]
        if len(self.scales) != columns:
            raise OptionError("scales", f"must be one number for each of the {columns} coordinates, got {self.scales}")
        return RandomFourier(self.features, self.scales, self._alone(grid))

    def _alone(self, grid: KernelGrid) -> list[Tensor]:
        """The frequencies of the features that see a single coordinate, in waves from one value to the next."""
        largest = torch.stack([layer.coordinates().amax(0) for layer in grid.layers]).amax(0).clamp_min(1).tolist()
        counts = [len(part) for part in torch.arange(round(self.features * self.alone)).tensor_split(len(largest))]
        if self.alone and min(counts) == 0:
            problem = f"gives {sum(counts)} of {self.features} features, fewer than the {len(counts)} coordinates"
            raise OptionError("alone", f"{problem}; set it to 0, or more features")
        return [torch.logspace(-math.log2(2 * most), -1, count, base=2) for most, count in zip(largest, counts, strict=True)]


@hookimpl
def nern_embeddings() -> Mapping[str, type[Embedding]]:
    return {"fourier": Fourier}
