"""The nearest of a few kernels of each layer, found by k-means (Lloyd 1982)."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor, nn

from nern import Base, ConfigError, KernelGrid, at_least, at_most, option


class PaletteModule(nn.Module):
    """The few kernels of all layers, one behind the other, and which of its layer's each kernel is given."""

    kernels: Tensor
    index: Tensor
    first: Tensor
    starts: Tensor

    def __init__(self, grid: KernelGrid, sizes: list[int]) -> None:
        """`sizes`: how many kernels the palette of each layer has."""
        super().__init__()
        self.grid, self.sizes = grid, sizes
        self.register_buffer("kernels", torch.zeros(sum(sizes), grid.outputs, dtype=torch.float16))
        self.register_buffer("index", torch.zeros(grid.rows, dtype=torch.uint8))
        rows, few = torch.tensor([layer.count for layer in grid.layers]), torch.tensor(sizes)
        self.register_buffer("starts", rows.cumsum(0) - rows, persistent=False)
        self.register_buffer("first", few.cumsum(0) - few, persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        """[n] int64 → [n, k²] float32."""
        layers = torch.bucketize(rows, self.starts, right=True) - 1
        return self.kernels[self.first[layers] + self.index[rows].long()].float()


def nearest(kernels: Tensor, palette: Tensor) -> Tensor:
    """Which of the rows of a palette [p, k²] is nearest to each kernel [n, k²], [n] int64."""
    return torch.cat([torch.cdist(part, palette).argmin(1) for part in torch.split(kernels, 4096)])


def palette_of(kernels: Tensor, size: int, rounds: int) -> Tensor:
    """A palette [size, k²] of kernels [n, k²] float32 by `rounds` of k-means; it begins with kernels of evenly spaced means."""
    order = kernels.mean(1).argsort()
    palette = kernels[order[torch.linspace(0, len(kernels) - 1, size).long()]]
    for _ in range(rounds):
        index = nearest(kernels, palette)
        counts = torch.bincount(index, minlength=size).unsqueeze(1)
        sums = torch.zeros_like(palette).index_add_(0, index, kernels)
        palette = torch.where(counts > 0, sums / counts.clamp_min(1), palette)
    return palette


@attrs.frozen
class Palette(Base):
    """The nearest of a few kernels of each layer: one byte a kernel, and the few kernels in float16."""

    kernels: int = option(64, help="kernels of each layer's palette, at most", check=[at_least(1), at_most(256)])
    rounds: int = option(20, help="rounds of k-means", check=at_least(0))

    def build(self, grid: KernelGrid) -> nn.Module:
        if grid.small_kernels != "centre" and any(layer.kernel != grid.size for layer in grid.layers):
            raise ConfigError(f"base palette: small_kernels must be centre, got {grid.small_kernels}")
        return PaletteModule(grid, [min(self.kernels, max(1, layer.count // 2)) for layer in grid.layers])

    @torch.no_grad()
    def initialise(self, module: nn.Module, kernels: list[Tensor]) -> None:
        """Find the palette of each layer, and the nearest kernel in it for each of its kernels."""
        assert isinstance(module, PaletteModule)
        palettes, index = [], []
        for layer, size in zip(kernels, module.sizes, strict=True):
            rows = module.grid.pad_up(layer.float().cpu())
            palettes.append(palette_of(rows, size, self.rounds).half())
            index.append(nearest(rows, palettes[-1].float()))
        module.kernels.copy_(torch.cat(palettes))
        module.index.copy_(torch.cat(index))
