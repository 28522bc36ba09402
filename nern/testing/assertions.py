"""Assertions that the checks share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nern.representation.component_contracts import problem_with_numbers
from nern.support.contracts import described_value


def expect(holds: bool, message: str) -> None:
    """Raise AssertionError with a message unless something holds."""
    if not holds:
        raise AssertionError(message)


def expect_none(problem: str | None) -> None:
    """Raise AssertionError with what a contract finds wrong, where it finds anything."""
    if problem:
        raise AssertionError(problem)


def check_tensor(value: Any, shape: list[int], what: str) -> None:
    """Check that a value is a finite float32 tensor of a shape."""
    expect_none(problem_with_numbers(value, shape, what))
    expect(value.dtype == torch.float32, f"{what} must give {shape} float32, gave {described_value(value)}")


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Whether two state dicts are equal."""
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def equal(a: Tensor | None, b: Tensor | None) -> bool:
    """Whether two tensors, or two Nones, are equal."""
    return a is b if a is None or b is None else torch.equal(a, b)


def close(a: Tensor, b: Tensor, message: str, tolerance: float = 1e-4) -> None:
    """Check that two tensors are equal up to a difference relative to the largest value."""
    difference = float((a - b).detach().abs().max() / b.detach().abs().max().clamp_min(1e-12))
    expect(a.shape == b.shape and difference <= tolerance, f"{message} (relative difference {difference:.1e})")
