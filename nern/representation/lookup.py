"""Look-up tables in place of stored embeddings: a predictor's first matrix product becomes a sum of three look-ups."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional as F


@attrs.frozen(eq=False)
class AxisTables:
    """The tables of an embedding that is a concatenation or sum of one vector per coordinate.

    `tables[a]` [values, d_a] holds the vector of every value of coordinate `a`, which fills the columns
    `offsets[a]` to `offsets[a] + d_a` of the embedding [n, dim]; where columns overlap, vectors are added.
    """

    tables: tuple[Tensor, ...]
    """For each coordinate, its vectors [values, d_a]."""
    offsets: tuple[int, ...]
    """For each table, the first column of the embedding that its vectors fill."""
    dim: int
    """Number of columns of the embedding."""

    def dense(self, coordinates: Tensor) -> Tensor:
        """[n, 3] int64 → [n, dim]."""
        embedded = self.tables[0].new_zeros(len(coordinates), self.dim)
        for axis, (table, offset) in enumerate(zip(self.tables, self.offsets, strict=True)):
            embedded[:, offset : offset + table.shape[1]] += F.embedding(coordinates[:, axis], table)
        return embedded


@attrs.frozen
class Block:
    """Whole filters of one layer, every channel of each: their coordinates need not be written out."""

    layer: int
    """The layer's coordinate."""
    filters: range
    """The filters."""
    channels: int
    """How many channels each of them has."""

    def coordinates(self, device: torch.device) -> Tensor:
        """The coordinates (layer, filter, channel) of every kernel [n, 3] int64."""
        filters = torch.arange(self.filters.start, self.filters.stop, device=device)
        layers, filters, channels = torch.meshgrid(
            torch.full((1,), self.layer, device=device), filters, torch.arange(self.channels, device=device), indexing="ij"
        )
        return torch.stack([layers, filters, channels], dim=3).reshape(-1, 3)


@attrs.frozen(eq=False)
class Lookup:
    """Coordinates [n, 3] int64 with the tables that embed them; it takes the place of the embedding [n, dim]."""

    tables: AxisTables
    """The vectors of each coordinate."""
    _coordinates: Tensor | Callable[[], Tensor]
    block: Block | None = None
    """Where the rows are whole filters of a layer, which; a matrix product then needs no look-up."""

    @property
    def coordinates(self) -> Tensor:
        """Coordinates of the rows, [n, 3] int64."""
        return self._coordinates if isinstance(self._coordinates, Tensor) else self._coordinates()

    def dense(self) -> Tensor:
        """The embedding itself, [n, dim]."""
        return self.tables.dense(self.coordinates)


def linear(layer: nn.Linear, embedded: Tensor | Lookup) -> Tensor:
    """Compute `layer(embedded)`; for a Lookup, the matrix product is computed once for each table row instead of once for each kernel."""
    if isinstance(embedded, Tensor):
        result: Tensor = layer(embedded)
        return result
    tables, block, coordinates = embedded.tables, embedded.block, None if embedded.block else embedded.coordinates
    with torch.autocast(tables.tables[0].device.type, enabled=False):  # the tables are small, and their sum needs float32
        total: Tensor | None = layer.bias
        for axis, (table, offset) in enumerate(zip(tables.tables, tables.offsets, strict=True)):
            part = table if block is None else table[_values(block)[axis]]
            product = part @ layer.weight[:, offset : offset + table.shape[1]].T
            rows = product if coordinates is None else F.embedding(coordinates[:, axis], product)
            if total is not None and block is not None and axis == 2:
                total = total.expand(len(block.filters), -1).unsqueeze(1)
            total = rows if total is None else total + rows
    assert total is not None
    return total if block is None else total.flatten(0, 1)


def _values(block: Block) -> tuple[slice, slice, slice]:
    """The values that each coordinate takes in a block."""
    return slice(block.layer, block.layer + 1), slice(block.filters.start, block.filters.stop), slice(block.channels)
