"""The orders of a layer's kernels, and how they are packed into bits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from math import ceil, log2
from typing import ClassVar

import attrs
import numpy as np
import torch
from torch import Tensor

from nern.support.bits import from_bits, pack, to_bits


def bits_per_entry(choices: int) -> int:
    """The number of bits that distinguish `choices` possibilities: ⌈log₂ choices⌉."""
    return ceil(log2(choices)) if choices > 1 else 0


@attrs.frozen(eq=False)
class LayerOrder(ABC):
    """Which original kernel is at each coordinate of a layer with `filters` × `channels` kernels."""

    filters: int
    """Number of filters of the layer."""
    channels: int
    """Number of channels of each filter."""
    kind: ClassVar[str]
    """What a file calls such an order."""

    @abstractmethod
    def indices(self) -> Tensor:
        """[filters · channels] int64: at each coordinate in row-major order, the original kernel's index."""

    @abstractmethod
    def fields(self) -> Iterator[tuple[np.ndarray, int]]:
        """The arrays of integers that a file stores, each with the number of bits for an entry."""

    @classmethod
    @abstractmethod
    def from_bits(cls, filters: int, channels: int, reader: BitReader) -> LayerOrder:
        """Read the order of a layer from the integers that `fields` returned."""

    @property
    def bits(self) -> int:
        """Size of the stored order in bits (Ashkenazi et al. 2023, sec. 3.3)."""
        return sum(values.size * width for values, width in self.fields())


@attrs.frozen(eq=False)
class Unordered(LayerOrder):
    """Every kernel at its own coordinate; nothing is stored."""

    kind: ClassVar[str] = "none"
    """What a file calls such an order."""

    def indices(self) -> Tensor:
        return torch.arange(self.filters * self.channels)

    def fields(self) -> Iterator[tuple[np.ndarray, int]]:
        return iter(())

    @classmethod
    def from_bits(cls, filters: int, channels: int, reader: BitReader) -> LayerOrder:
        return cls(filters, channels)


@attrs.frozen(eq=False)
class KernelOrder(LayerOrder):
    """One permutation of all kernels of the layer: F·C·⌈log₂(F·C)⌉ bits (cross-filter)."""

    permutation: Tensor
    """[filters · channels] int64: the original kernel at each position."""
    kind: ClassVar[str] = "kernels"
    """What a file calls such an order."""

    def indices(self) -> Tensor:
        return self.permutation

    def fields(self) -> Iterator[tuple[np.ndarray, int]]:
        yield self.permutation.numpy(), bits_per_entry(self.filters * self.channels)

    @classmethod
    def from_bits(cls, filters: int, channels: int, reader: BitReader) -> LayerOrder:
        return cls(filters, channels, reader.permutations(1, filters * channels)[0])


@attrs.frozen(eq=False)
class FilterOrder(LayerOrder):
    """Kernels permuted inside each filter, then whole filters: F·C·⌈log₂ C⌉ + F·⌈log₂ F⌉ bits (in-filter)."""

    inner: Tensor
    """[filters, channels] int64: row f orders the kernels of original filter f."""
    outer: Tensor
    """[filters] int64: the original filter at each position."""
    kind: ClassVar[str] = "filters"
    """What a file calls such an order."""

    def indices(self) -> Tensor:
        return (self.outer[:, None] * self.channels + self.inner[self.outer]).reshape(-1)

    def fields(self) -> Iterator[tuple[np.ndarray, int]]:
        yield self.inner.reshape(-1).numpy(), bits_per_entry(self.channels)
        yield self.outer.numpy(), bits_per_entry(self.filters)

    @classmethod
    def from_bits(cls, filters: int, channels: int, reader: BitReader) -> LayerOrder:
        inner = reader.permutations(filters, channels)
        return cls(filters, channels, inner, reader.permutations(1, filters)[0])


ORDER_KINDS: dict[str, type[LayerOrder]] = {cls.kind: cls for cls in (Unordered, KernelOrder, FilterOrder)}


def pack_orders(orders: Sequence[LayerOrder]) -> Tensor:
    """Pack orders into uint8 [bytes]: every entry takes ⌈log₂ n⌉ bits, most significant bit first, without gaps."""
    parts = [to_bits(values, width) for order in orders for values, width in order.fields() if width]
    return pack(np.concatenate(parts) if parts else np.zeros(0, np.uint8))


class BitReader:
    """Reads the integers of `pack_orders`, one array after the other."""

    def __init__(self, packed: Tensor) -> None:
        self._bits = np.unpackbits(packed.numpy())
        self._at = 0

    def permutations(self, rows: int, length: int) -> Tensor:
        """The next `rows` permutations of `length` entries: [rows, length] int64.

        Raises:
            ValueError: too few bits are left, or the entries are no permutation.
        """
        width = bits_per_entry(length)
        end = self._at + rows * length * width
        if end > len(self._bits):
            raise ValueError("the stored ordering is too short")
        values = from_bits(self._bits[self._at : end], width).reshape(rows, length) if width else np.zeros((rows, length), np.int64)
        self._at = end
        if not np.array_equal(np.sort(values, axis=1), np.broadcast_to(np.arange(length), (rows, length))):
            raise ValueError("the stored ordering is not a permutation")
        permutations: Tensor = torch.from_numpy(values)
        return permutations

    def finish(self) -> None:
        """Raises ValueError where whole bytes are left over."""
        if len(self._bits) - self._at >= 8:
            raise ValueError("the stored ordering is too long")
