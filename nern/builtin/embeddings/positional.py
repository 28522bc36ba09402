"""Sines and cosines of rising wave length (Ashkenazi et al. 2023, eq. 1)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import attrs
import torch
from torch import Tensor, nn

from nern import AxisTables, Embedding, KernelGrid, above, at_least, hookimpl, option


def gamma(values: Tensor, base: float, frequencies: int) -> Tensor:
    """γ(v) = [sin(b⁰πv), cos(b⁰πv), …, sin(bᴺ⁻¹πv), cos(bᴺ⁻¹πv)], in float64: [n] → [n, 2N]."""
    powers = base ** torch.arange(frequencies, dtype=torch.float64, device=values.device)
    angles = math.pi * values.double()[:, None] * powers
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)


class PositionalTables(nn.Module):
    """Concatenated or summed γ of coordinates that are divided by a scale of their own."""

    def __init__(self, sizes: list[int], scale: float, base: float, frequencies: int, summed: bool) -> None:
        super().__init__()
        self.scale, self.base, self.frequencies, self.count = scale, base, frequencies, len(sizes)
        width, tables = 2 * frequencies, [gamma(torch.arange(size) / scale, base, frequencies) for size in sizes]
        self.dim = width if summed else self.count * width
        self.offsets = (0,) * self.count if summed else tuple(range(0, self.dim, width))
        for axis, table in enumerate(tables):
            self.register_buffer(f"table{axis}", table.float(), persistent=False)

    def tables(self) -> AxisTables:
        return AxisTables(tuple(self.get_buffer(f"table{axis}") for axis in range(self.count)), self.offsets, self.dim)

    def forward(self, coordinates: Tensor) -> Tensor:
        if not coordinates.is_floating_point():
            return self.tables().dense(coordinates)
        parts = [gamma(coordinates[:, axis] / self.scale, self.base, self.frequencies).float() for axis in range(self.count)]
        return torch.stack(parts).sum(0) if self.dim == parts[0].shape[1] else torch.cat(parts, dim=1)


class PerLayer(nn.Module):
    """Concatenated or summed γ where filters and channels are divided by their number in the layer."""

    def __init__(self, counts: Tensor, base: float, frequencies: int, summed: bool) -> None:
        super().__init__()
        self.base, self.frequencies, self.summed = base, frequencies, summed
        self.dim = 2 * frequencies * (1 if summed else counts.shape[1])
        self.register_buffer("counts", counts, persistent=False)  # [layers, 3] float64

    def forward(self, coordinates: Tensor) -> Tensor:
        scaled = coordinates / self.get_buffer("counts")[coordinates[:, 0].round().long()]
        parts = [gamma(scaled[:, axis], self.base, self.frequencies).float() for axis in range(coordinates.shape[1])]
        return torch.stack(parts).sum(0) if self.summed else torch.cat(parts, dim=1)


@attrs.frozen
class Positional(Embedding):
    """Positional embedding of layer, filter and channel (Ashkenazi et al. 2023, eq. 1; Vaswani et al. 2017)."""

    base: float = option(0.76, help="base frequency b", check=above(0))
    frequencies: int = option(40, help="number N of frequencies per coordinate", check=at_least(1))
    combine: Literal["concat", "sum"] = option("concat", help="concat joins the three γ to 3 · 2N numbers; sum adds them, which gives 2N")
    coordinates: Literal["integer", "per-layer", "global"] = option(
        "integer", help="plain integers, coordinates divided by the number of layers, filters or channels, or all divided by one maximum"
    )

    def build(self, grid: KernelGrid) -> nn.Module:
        sizes = torch.tensor([[int(value) for value in layer.coordinates().amax(0)] for layer in grid.layers]) + 1
        most = sizes.amax(0)
        summed = self.combine == "sum"
        if self.coordinates == "per-layer":
            counts = torch.cat([most[:1].expand(len(sizes), 1), sizes[:, 1:]], dim=1).double()
            by_layer = torch.ones(int(most[0]), len(most), dtype=torch.float64)
            by_layer[torch.tensor([layer.layer for layer in grid.layers])] = counts
            return PerLayer(by_layer, self.base, self.frequencies, summed)
        scale = float(most.max()) if self.coordinates == "global" else 1.0
        return PositionalTables(most.tolist(), scale, self.base, self.frequencies, summed)


@hookimpl
def nern_embeddings() -> Mapping[str, type[Embedding]]:
    return {"positional": Positional}
