"""The positions of a kernel's weights in the vector of all represented weights, which holds one kernel after the other."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nern.kernels.coordinates import KernelGrid, RowTable


class WeightPlaces(nn.Module):
    """For rows of a grid, the positions of the weights that fill the k² entries of each row; smaller kernels are centred.

    Weights are in one vector without padding, as `KernelGrid.flatten` gives them: most kernels of a network may be 1 × 1 and
    the largest 7 × 7. It adds nothing to the state dict of the module that holds it.
    """

    areas: Tensor
    """[layers] int64: number of weights in a kernel of each layer."""
    firsts: Tensor
    """[layers] int64: position of the first weight of each layer."""
    size_of_layer: Tensor
    """[layers] int64: index of each layer's kernel size."""
    places: Tensor
    """[sizes, k²] int64: for every kernel size, which of the kernel's weights fills each entry; -1 for padding."""

    def __init__(self, grid: KernelGrid) -> None:
        super().__init__()
        self.grid, self.table = grid, RowTable(grid)
        self.sizes = list(dict.fromkeys(layer.kernel for layer in grid.layers))
        self.mixed = self.sizes != [grid.size]
        weights = torch.tensor([layer.area * layer.count for layer in grid.layers])
        # for every kernel size, which of the kernel's weights fills each of the k² entries; -1 for padding
        places = torch.stack([self._filled(kernel) for kernel in self.sizes])
        self.register_buffer("areas", torch.tensor([layer.area for layer in grid.layers]), persistent=False)
        self.register_buffer("firsts", weights.cumsum(0) - weights, persistent=False)
        self.register_buffer("size_of_layer", torch.tensor([self.sizes.index(layer.kernel) for layer in grid.layers]), persistent=False)
        self.register_buffer("places", places, persistent=False)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """For some rows [m] int64: the position of the weight in each of the k² entries [m, k²] int64, and whether there is one, bool."""
        layers = self.table.layers(rows)
        places = self.places[self.size_of_layer[layers]]
        first = self.firsts[layers] + (rows - self.table.starts[layers]) * self.areas[layers]
        return first.unsqueeze(1) + places.clamp_min(0), places >= 0

    def gather(self, flat: Tensor, rows: Tensor | None = None) -> Tensor:
        """Take kernels [m, k²] of some rows, or of all, from a vector [weights]; smaller kernels are padded with zeros."""
        if not self.mixed:
            kernels = flat.reshape(self.grid.rows, self.grid.outputs)
            return kernels if rows is None else kernels[rows]
        if rows is None:
            parts = zip(self.grid.groups, self.by_group(flat), strict=True)
            return torch.cat([self.grid.pad_up(part.reshape(group.rows, *group.kernel)) for group, part in parts])
        at, there = self(rows)
        values = flat[at]
        return torch.where(there, values, torch.zeros_like(values))

    def by_group(self, flat: Tensor) -> list[Tensor]:
        """Split a vector [weights] into [kernels, weights of a kernel] for each group of the grid."""
        parts = torch.split(flat, [group.weights for group in self.grid.groups])
        return [part.reshape(group.rows, group.area) for part, group in zip(parts, self.grid.groups, strict=True)]

    def _filled(self, kernel: tuple[int, int]) -> Tensor:
        numbers = torch.arange(1, kernel[0] * kernel[1] + 1).reshape(1, *kernel)
        return self.grid.pad_up(numbers).squeeze(0) - 1
