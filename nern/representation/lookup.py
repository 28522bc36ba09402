"""Look-up tables in place of stored embeddings: a predictor's first matrix product becomes a sum of three look-ups."""

from __future__ import annotations

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


@attrs.frozen(eq=False)
class Lookup:
    """Coordinates [n, 3] int64 with the tables that embed them; it takes the place of the embedding [n, dim]."""

    tables: AxisTables
    """The vectors of each coordinate."""
    coordinates: Tensor
    """Coordinates of the rows, [n, 3] int64."""

    def dense(self) -> Tensor:
        """The embedding itself, [n, dim]."""
        return self.tables.dense(self.coordinates)


def linear(layer: nn.Linear, embedded: Tensor | Lookup) -> Tensor:
    """Compute `layer(embedded)`; for a Lookup, the matrix product is computed once for each table row instead of once for each kernel."""
    if isinstance(embedded, Tensor):
        result: Tensor = layer(embedded)
        return result
    tables, coordinates = embedded.tables, embedded.coordinates
    with torch.autocast(coordinates.device.type, enabled=False):  # the tables are small, and their sum needs float32
        total: Tensor | None = layer.bias
        for axis, (table, offset) in enumerate(zip(tables.tables, tables.offsets, strict=True)):
            product = table @ layer.weight[:, offset : offset + table.shape[1]].T
            rows = F.embedding(coordinates[:, axis], product)
            total = rows if total is None else total + rows
    assert total is not None
    return total
