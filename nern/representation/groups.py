"""Groups of kernels that are predicted together: whole filters, or whole layers."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from nern.kernels.coordinates import KernelGrid

Wants = Literal["rows", "filters", "layers"]


class RowGroups:
    """The rows of a grid in consecutive groups.

    Args:
        wants: whether a group is all kernels of one filter, or all kernels of one layer.
    """

    def __init__(self, grid: KernelGrid, wants: Literal["filters", "layers"], device: torch.device) -> None:
        sizes = []
        for layer in grid.layers:
            sizes += [layer.channels] * layer.filters if wants == "filters" else [layer.count]
        self.sizes = torch.tensor(sizes, device=device)
        self.starts = self.sizes.cumsum(0) - self.sizes

    def rows(self, groups: Tensor) -> Tensor:
        """All rows [m] int64 of some groups, one group after the other."""
        sizes, firsts = self.sizes[groups], self.starts[groups]
        before = sizes.cumsum(0) - sizes
        return torch.arange(int(sizes.sum()), device=groups.device) + torch.repeat_interleave(firsts - before, sizes)

    def of(self, rows: Tensor) -> Tensor:
        """The group [m] int64 of each row."""
        return torch.bucketize(rows, self.starts, right=True) - 1

    def norms(self, norms: Tensor) -> Tensor:
        """The norm of each group, from the norms of its kernels."""
        every = self.of(torch.arange(len(norms), device=norms.device))
        return torch.zeros(len(self.sizes), device=norms.device).index_add_(0, every, norms.square()).sqrt()

    def means(self, values: Tensor, groups: Tensor) -> Tensor:
        """For each of some groups, the mean over the values [m] of its rows."""
        sizes = self.sizes[groups]
        place = torch.repeat_interleave(torch.arange(len(groups), device=groups.device), sizes)
        return torch.zeros(len(groups), device=values.device).index_add_(0, place, values) / sizes

    def cuts(self, rows: Tensor, chunk: int) -> list[int]:
        """Positions that cut rows of whole groups into parts of about `chunk` rows, including 0 and the number of rows."""
        groups = self.of(rows)
        ends = [*((groups[1:] != groups[:-1]).nonzero().squeeze(1) + 1).tolist(), len(rows)]
        cuts = [0]
        for end, following in zip(ends, [*ends[1:], None], strict=True):
            if following is None or following - cuts[-1] > chunk:
                cuts.append(end)
        return cuts
