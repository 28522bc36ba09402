"""The coordinate (layer, filter, channel) of every kernel; coordinates are computed when they are needed and never stored.

A represented convolution's weight is a grid of kernels: filters × channels × (kh × kw). The *rows* of the whole grid
are all kernels of all layers in coordinate order; an ordering says which original kernel is in each row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import attrs
import torch
from torch import Tensor, nn

from nern.kernels.orders import LayerOrder, Unordered
from nern.support.showing import Shown


@attrs.frozen
class LayerMapping:
    """How one convolution's weight [f, c, kh, kw] becomes kernels with coordinates, and back.

    Subclass it and override `split`, `join` and `coordinates` for another mapping; `join` inverts `split` and is
    differentiable.
    """

    parameter: str
    """Name of the weight in the network's state dict."""
    shape: tuple[int, ...]
    """Shape of the weight."""
    layer: int
    """The layer coordinate, which all kernels of the layer share; usually the layer's position."""

    @property
    def filters(self) -> int:
        return self.shape[0]

    @property
    def channels(self) -> int:
        return self.shape[1]

    @property
    def kernel(self) -> tuple[int, int]:
        """Height and width of a kernel."""
        return self.shape[2], self.shape[3]

    @property
    def count(self) -> int:
        """Number of kernels."""
        return self.filters * self.channels

    @property
    def area(self) -> int:
        """Number of weights in a kernel."""
        return self.kernel[0] * self.kernel[1]

    def split(self, weight: Tensor) -> Tensor:
        """Cut a weight into kernels [filters · channels, kh, kw]."""
        return weight.reshape(self.count, *self.kernel)

    def join(self, kernels: Tensor) -> Tensor:
        """Join kernels [filters · channels, kh, kw] to a weight; the inverse of `split`."""
        return kernels.reshape(self.shape)

    def coordinates(self) -> Tensor:
        """The coordinates (layer, filter, channel) of every kernel, [filters · channels, 3] int64."""
        index = torch.arange(self.count)
        return torch.stack([torch.full_like(index, self.layer), index // self.channels, index % self.channels], dim=1)


@attrs.frozen
class KernelGroup:
    """Consecutive rows of a grid whose kernels have the same size."""

    kernel: tuple[int, int]
    start: int  # first row
    end: int  # last row + 1
    first: int  # position of its first weight in the vector of all weights

    @property
    def rows(self) -> int:
        """Number of kernels."""
        return self.end - self.start

    @property
    def area(self) -> int:
        """Number of weights in a kernel."""
        return self.kernel[0] * self.kernel[1]

    @property
    def weights(self) -> int:
        """Number of weights in the group."""
        return self.rows * self.area


@attrs.frozen
class KernelGrid(Shown):
    """All represented kernels of a network, layer after layer."""

    layers: tuple[LayerMapping, ...]
    """The represented layers, in the order of their rows."""
    small_kernels: str = "centre"
    """How a kernel smaller than the largest is read from the k × k output: centre, average or max."""

    def __repr__(self) -> str:
        height, width = self.size
        return f"KernelGrid({len(self.layers)} layers, {self.rows:,} kernels of at most {height} × {width}, {self.weights:,} weights)"

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width of the largest kernel; the predictor's output is their product."""
        return max(layer.kernel[0] for layer in self.layers), max(layer.kernel[1] for layer in self.layers)

    @property
    def outputs(self) -> int:
        return self.size[0] * self.size[1]

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """First row of each layer, and the number of rows at the end."""
        starts = [0]
        for layer in self.layers:
            starts.append(starts[-1] + layer.count)
        return tuple(starts)

    @property
    def rows(self) -> int:
        return self.starts[-1]

    @property
    def weights(self) -> int:
        """Number of represented weights."""
        return sum(layer.count * layer.area for layer in self.layers)

    @cached_property
    def groups(self) -> tuple[KernelGroup, ...]:
        """The rows in groups of equal kernel size, in order; neighbouring layers of equal kernel size are one group."""
        groups: list[KernelGroup] = []
        row = weight = 0
        for layer in self.layers:
            last = groups.pop() if groups and groups[-1].kernel == layer.kernel else KernelGroup(layer.kernel, row, row, weight)
            row, weight = row + layer.count, weight + layer.count * layer.area
            groups.append(attrs.evolve(last, end=row))
        return tuple(groups)

    def unpadded(self, outputs: Tensor) -> Tensor:
        """Predictor outputs for all rows [rows, k²] → all weights [weights], kernel after kernel without padding."""
        if len(self.groups) == 1 and self.groups[0].kernel == self.size:
            return outputs.reshape(-1)
        parts = torch.split(outputs, [group.rows for group in self.groups])
        return torch.cat([self.sample_down(part, group.kernel).reshape(-1) for part, group in zip(parts, self.groups, strict=True)])

    def coordinates(self) -> Tensor:
        """The coordinates (layer, filter, channel) of every row, [rows, 3] int64."""
        return torch.cat([layer.coordinates() for layer in self.layers])

    def sample_down(self, outputs: Tensor, kernel: tuple[int, int]) -> Tensor:
        """Predictor outputs [n, k²] → kernels [n, kh, kw] (Ashkenazi et al. 2023, sec. 3.1: sample from the middle)."""
        height, width = self.size
        grid = outputs.reshape(-1, height, width)
        if kernel == self.size:
            return grid
        if self.small_kernels == "centre":
            top, left = (height - kernel[0]) // 2, (width - kernel[1]) // 2
            return grid[:, top : top + kernel[0], left : left + kernel[1]]
        pool = torch.nn.functional.adaptive_avg_pool2d if self.small_kernels == "average" else torch.nn.functional.adaptive_max_pool2d
        return pool(grid.unsqueeze(1), kernel).squeeze(1)

    def pad_up(self, kernels: Tensor) -> Tensor:
        """Kernels [n, kh, kw] → rows [n, k²] with zeros around smaller ones."""
        height, width = self.size
        top, left = (height - kernels.shape[1]) // 2, (width - kernels.shape[2]) // 2
        rows = kernels.new_zeros(len(kernels), height, width)
        rows[:, top : top + kernels.shape[1], left : left + kernels.shape[2]] = kernels
        return rows.flatten(1)

    def flatten(self, parameters: Mapping[str, Tensor], orders: Sequence[LayerOrder] | None = None) -> Tensor:
        """The represented weights of a network in one vector [weights], kernel after kernel in coordinate order."""
        flat, start = torch.empty(self.weights, dtype=parameters[self.layers[0].parameter].dtype), 0
        for index, layer in enumerate(self.layers):
            kernels = layer.split(parameters[layer.parameter]).flatten(1)
            if orders and not isinstance(orders[index], Unordered):
                kernels = kernels[orders[index].indices().to(kernels.device)]
            flat[start : start + kernels.numel()] = kernels.reshape(-1)
            start += kernels.numel()
        return flat


class RowTable(nn.Module):
    """Computes layers and coordinates of rows of a grid from a few numbers for each layer."""

    starts: Tensor
    counts: Tensor
    channels: Tensor
    firsts: Tensor
    stored: Tensor | None

    def __init__(self, grid: KernelGrid) -> None:
        super().__init__()
        self.rows = grid.rows
        self.register_buffer("starts", torch.tensor(grid.starts[:-1]), persistent=False)
        self.register_buffer("counts", torch.tensor([layer.count for layer in grid.layers]), persistent=False)
        self.register_buffer("channels", torch.tensor([layer.channels for layer in grid.layers]), persistent=False)
        self.register_buffer("firsts", torch.tensor([layer.layer for layer in grid.layers]), persistent=False)
        # other mappings may have other coordinates
        plain = all(type(layer).coordinates is LayerMapping.coordinates for layer in grid.layers)
        self.register_buffer("stored", None if plain else grid.coordinates(), persistent=False)

    def layers(self, rows: Tensor | None = None) -> Tensor:
        """The position of the layer of some rows [m] int64, or of all rows: [m] int64."""
        if rows is None:
            return torch.repeat_interleave(self.counts, output_size=self.rows)
        return torch.bucketize(rows, self.starts, right=True) - 1

    def coordinates(self, rows: Tensor | None = None) -> Tensor:
        """The coordinates (layer, filter, channel) of some rows [m] int64, or of all rows: [m, 3] int64."""
        if self.stored is not None:
            return self.stored if rows is None else self.stored[rows]
        layers = self.layers(rows)
        rows = torch.arange(self.rows, device=self.starts.device) if rows is None else rows
        within, channels = rows - self.starts[layers], self.channels[layers]
        return torch.stack([self.firsts[layers], within // channels, within % channels], dim=1)
