"""Embedding vectors that are trained together with the predictor and stored with it."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import torch
from torch import Tensor, nn

from nern import AxisTables, Embedding, KernelGrid, above, at_least, hookimpl, option


class Axes(nn.Module):
    """A trained vector for every value of each coordinate, concatenated."""

    def __init__(self, sizes: list[int], features: int, spread: float) -> None:
        super().__init__()
        self.dim, self.features = len(sizes) * features, features
        self.axes = nn.ParameterList(nn.Parameter(spread * torch.randn(size, features)) for size in sizes)

    def tables(self) -> AxisTables:
        """The tables by which a predictor can replace its first matrix product by look-ups."""
        return AxisTables(tuple(self.axes), tuple(range(0, self.dim, self.features)), self.dim)

    def forward(self, coordinates: Tensor) -> Tensor:
        """[n, 3] int64 → [n, 3 · features]; fractional coordinates are interpolated between two vectors."""
        if not coordinates.is_floating_point():
            return self.tables().dense(coordinates)
        below = coordinates.floor().long()
        above = torch.stack([(below[:, axis] + 1).clamp_max(len(table) - 1) for axis, table in enumerate(self.axes)], dim=1)
        parts = (coordinates - below).to(self.axes[0].dtype).repeat_interleave(self.features, dim=1)
        return self.tables().dense(below) * (1 - parts) + self.tables().dense(above) * parts


@attrs.frozen
class Learned(Embedding):
    """One trained vector for every layer, filter and channel. The file holds these vectors; they count as the embedding's bytes."""

    features: int = option(32, help="numbers per vector", check=at_least(1))
    spread: float = option(0.7, help="standard deviation at the start", check=above(0))

    def build(self, grid: KernelGrid) -> nn.Module:
        return Axes((grid.coordinates().amax(0) + 1).tolist(), self.features, self.spread)


@hookimpl
def nern_embeddings() -> Mapping[str, type[Embedding]]:
    return {"learned": Learned}
