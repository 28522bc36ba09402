"""The distribution of entropy-coded integers: a Laplace distribution, integrated over intervals of width 1.

An integer q has the probability that a Laplace variable falls between q − ½ and q + ½: 1 − e^(−k/2) for q = 0, and
e^(−k|q|) · sinh(k/2) otherwise. The mean of |q| is then 1 / (2 sinh(k/2)). A file stores the decay k as a *level*: the logarithm of
this mean, as an integer multiple of `GRID`. Since a level is an integer, every machine computes the same table of frequencies from
it.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

GRID = 0.2  # difference between two levels in the natural logarithm of the mean of |q|
LOWEST, HIGHEST = -40, 25  # range of levels: means of |q| from 0.0003 to 148
LARGEST = 1023  # the largest integer that can be coded; larger ones are clipped
PRECISION = 24  # the frequencies of a table sum to 2^24


@functools.cache
def frequencies(level: int) -> np.ndarray:
    """The expected number of each of −1023, …, 1023 among 2^24 integers of a level, but at least one: int64 [2047]."""
    decay = 2 * math.asinh(0.5 * math.exp(-GRID * min(max(level, LOWEST), HIGHEST)))
    sizes = np.arange(LARGEST + 1)
    one_sided = np.exp(-decay * sizes) * math.sinh(decay / 2)
    one_sided[0] = -math.expm1(-decay / 2)
    expected = np.concatenate([one_sided[:0:-1], one_sided])
    free = (1 << PRECISION) - len(expected)
    whole: np.ndarray = np.floor(expected * free).astype(np.int64) + 1
    whole[LARGEST] += (1 << PRECISION) - int(whole.sum())
    return whole


def level_of(values: Tensor) -> int:
    """The level whose mean is nearest to the mean absolute value of some integers."""
    mean = float(values.abs().double().mean()) if values.numel() else 0.0
    return min(max(round(math.log(mean + 1e-9) / GRID), LOWEST), HIGHEST)


def bits(values: Tensor, logarithm: Tensor) -> Tensor:
    """The bits that numbers take, summed to a scalar. A number between the integers takes the bits of the interval of width 1 around it.

    Args:
        values: numbers in any shape.
        logarithm: natural logarithm of the mean absolute value, in the same shape. The sum is differentiable in both arguments.
    """
    total: Tensor = _Bits.apply(values, logarithm)  # type: ignore[no-untyped-call]
    return total


class _Bits(torch.autograd.Function):
    """−log₂ P with its derivatives written out by hand, so that one pass over the numbers is enough and only the gradients are kept."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, logarithm: Tensor) -> Tensor:
        half = torch.asinh(0.5 * torch.exp(-logarithm.clamp(GRID * LOWEST, GRID * HIGHEST)))  # k / 2
        size = values.abs()
        inside = size < 0.5
        near = size.clamp(max=0.5)
        up, down = torch.exp((2 * near - 1) * half), torch.exp((-2 * near - 1) * half)
        centre = (1 - 0.5 * (up + down)).clamp_min(1e-9)
        nats = torch.where(inside, -centre.log(), 2 * half * size - half - torch.log1p(-torch.exp(-2 * half)) + math.log(2))
        by_value = by_logarithm = None
        if ctx.needs_input_grad[0]:
            slope = torch.where(inside, half * (up - down) / centre, 2 * half)
            by_value = slope * values.sign() / math.log(2)
        if ctx.needs_input_grad[1]:
            # d nats / d(k/2), and d(k/2) / d log(mean) = −tanh(k/2)
            within = 0.5 * ((2 * near - 1) * up - (2 * near + 1) * down) / centre
            beyond = 2 * size - 1 / torch.tanh(half)
            by_logarithm = -torch.where(inside, within, beyond) * torch.tanh(half) / math.log(2)
        ctx.save_for_backward(by_value, by_logarithm)
        return nats.sum() / math.log(2)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        by_value, by_logarithm = ctx.saved_tensors
        return (None if by_value is None else by_value * gradient), (None if by_logarithm is None else by_logarithm * gradient)
