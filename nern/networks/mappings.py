"""Maps the weights of depthwise, transposed, 1D and 3D convolutions to kernels, and matrices, which are cut into tiles."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor
from torch.nn import functional as F

from nern.kernels.coordinates import LayerMapping


@attrs.frozen
class DepthwiseMapping(LayerMapping):
    """A depthwise convolution, weight [c · multiplier, 1, …]: coordinates (layer, output channel, input channel).

    The plain mapping gives every kernel channel 0; here it has the channel that it reads. One-dimensional kernels are 1 × k.
    """

    multiplier: int = 1
    """How many output channels each input channel has."""

    @property
    def kernel(self) -> tuple[int, int]:
        return (1, self.shape[2]) if len(self.shape) == 3 else (self.shape[2], self.shape[3])

    def coordinates(self) -> Tensor:
        index = torch.arange(self.count)
        return torch.stack([torch.full_like(index, self.layer), index, index // self.multiplier], dim=1)


@attrs.frozen
class LineMapping(LayerMapping):
    """A one-dimensional convolution, weight [f, c, k]: kernels of 1 × k."""

    @property
    def kernel(self) -> tuple[int, int]:
        return 1, self.shape[2]


@attrs.frozen
class VolumeMapping(LayerMapping):
    """A three-dimensional convolution, weight [f, c, d, kh, kw]: slices of kh × kw, d of them for each channel in a row."""

    @property
    def channels(self) -> int:
        return self.shape[1] * self.shape[2]

    @property
    def kernel(self) -> tuple[int, int]:
        return self.shape[3], self.shape[4]


@attrs.frozen
class TransposedMapping(LayerMapping):
    """A transposed convolution, weight [c · groups, f / groups, …]: its filters are its output channels, too.

    One-dimensional kernels are 1 × k, three-dimensional ones slices, as in `LineMapping` and `VolumeMapping`.
    """

    groups: int = 1
    """Number of groups of the convolution."""

    @property
    def filters(self) -> int:
        return self.shape[1] * self.groups

    @property
    def channels(self) -> int:
        return self.shape[0] // self.groups * self._depth

    @property
    def kernel(self) -> tuple[int, int]:
        return (1, self.shape[2]) if len(self.shape) == 3 else (self.shape[-2], self.shape[-1])

    @property
    def _depth(self) -> int:
        return self.shape[2] if len(self.shape) == 5 else 1

    def split(self, weight: Tensor) -> Tensor:
        grouped = weight.reshape(self.groups, self.channels // self._depth, self.shape[1], self._depth, *self.kernel)
        return grouped.transpose(1, 2).reshape(self.count, *self.kernel)

    def join(self, kernels: Tensor) -> Tensor:
        grouped = kernels.reshape(self.groups, self.shape[1], self.channels // self._depth, self._depth, *self.kernel)
        return grouped.transpose(1, 2).reshape(self.shape)


def _pair(value: Sequence[int]) -> tuple[int, int]:
    height, width = value
    return int(height), int(width)


@attrs.frozen
class TileMapping(LayerMapping):
    """A matrix [outputs, inputs], of a linear layer or a table of vectors, cut into tiles: coordinates (layer, row, column).

    The weight of a convolution with 1 × 1 kernels, [outputs, inputs, 1, 1], is such a matrix, too. Filters are rows of tiles,
    channels columns of tiles. Where the tiles do not divide the matrix, those at its right and lower edge are padded with zeros,
    which `join` drops.
    """

    tile: tuple[int, int] = attrs.field(default=(4, 4), converter=_pair)
    """Height (in outputs) and width (in inputs) of a tile."""

    @property
    def filters(self) -> int:
        return -(-self.shape[0] // self.tile[0])

    @property
    def channels(self) -> int:
        return -(-self.shape[1] // self.tile[1])

    @property
    def kernel(self) -> tuple[int, int]:
        return self.tile

    def split(self, weight: Tensor) -> Tensor:
        height, width = self.tile
        below, beside = self.filters * height - self.shape[0], self.channels * width - self.shape[1]
        weight = weight.flatten(1)
        filled = F.pad(weight, (0, beside, 0, below)) if below or beside else weight
        return filled.reshape(self.filters, height, self.channels, width).transpose(1, 2).reshape(self.count, height, width)

    def join(self, kernels: Tensor) -> Tensor:
        height, width = self.tile
        whole = kernels.reshape(self.filters, self.channels, height, width).transpose(1, 2)
        return whole.reshape(self.filters * height, self.channels * width)[: self.shape[0], : self.shape[1]].reshape(self.shape)


def tile_of(shape: tuple[int, ...], most: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the tiles of a matrix: at most `most`; as few tiles as possible, and among equally few the smallest tiles."""
    height, width = (-(-length // -(-length // side)) for length, side in zip(shape[:2], most, strict=True))
    return height, width


#: Mappings that a file can name; with them, a file's weights can be put together without the network.
MAPPINGS: dict[str, type[LayerMapping]] = {
    "plain": LayerMapping, "line": LineMapping, "volume": VolumeMapping, "transposed": TransposedMapping, "tiles": TileMapping,
    "depthwise": DepthwiseMapping,
}  # fmt: skip
