"""Kernels drawn at random, as samplers draw them."""

from __future__ import annotations

import torch
from torch import Tensor

#: Of so many times more kernels than are drawn, few are drawn twice.
SPARSE = 64


def distinct(count: int, among: int, source: torch.Generator) -> Tensor:
    """`count` different numbers below `among` [count] int64, or all of them in some order where there are no more.

    Every set of numbers is equally likely. Where `among` is very large, numbers are drawn one by one, and repeated ones are left
    out, because a permutation of all numbers would take longer than the rest of a step.

    Args:
        source: of random numbers, on the device where they are wanted.
    """
    device = source.device
    if among <= SPARSE * count:
        return torch.randperm(among, generator=source, device=device, dtype=torch.int32 if among < 2**31 else torch.int64)[:count].long()
    drawn = torch.randint(among, (count + count // 8 + 64,), generator=source, device=device)
    ordered, places = drawn.sort(stable=True)
    again = torch.zeros_like(ordered, dtype=torch.bool)
    again[1:] = ordered[1:] == ordered[:-1]
    firsts = torch.where(again, len(drawn), places).sort().values[:count]  # in the order in which they were drawn
    return drawn[
        firsts.clamp_max(len(drawn) - 1)
    ]  # the clamp only matters where more than an eighth of the draws repeat, which is out of the question here
