"""The number formats of a representation's file: floats of some type, or integers with one step for each row.

A number is an integer times the step of its row, where an integer of b bits lies between −(2^(b−1) − 1) and 2^(b−1) − 1. The step
is the smallest number with 16 significant bits for which the row's largest entry stays in this range. Rounding a second time
therefore changes nothing, and the file holds exactly the numbers that were measured. In these formats, vectors such as biases are
stored as float16.

The numbers of the format `entropy` (`nern.representation.entropy`) are rounded whenever they are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import attrs
import torch
from torch import Tensor

from nern.errors import TrainingError

Name = Literal["float32", "float16", "bfloat16", "int8", "int7", "int6", "int5", "int4", "int3", "entropy"]
NAMES: tuple[str, ...] = get_args(Name)


@attrs.frozen
class NumberFormat:
    """A number format, by its name."""

    name: str = "float32"

    @property
    def bits(self) -> int | None:
        """Bits of an integer; None where numbers are stored as floats."""
        return int(self.name[3:]) if self.name.startswith("int") else None

    @property
    def is_coded(self) -> bool:
        """Whether this is the format `entropy`: integers times trained steps, written by an entropy coder."""
        return self.name == "entropy"

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of numbers that are stored as floats."""
        if self.is_coded:
            return torch.float32
        dtype: torch.dtype = torch.float16 if self.bits else getattr(torch, self.name)
        return dtype

    def has_steps(self, value: Tensor) -> bool:
        """Whether a parameter is stored as integers with steps: those with two or more dimensions are, in an integer format."""
        return self.bits is not None and value.dim() >= 2 and value.numel() > 0

    def rounded(self, value: Tensor) -> Tensor:
        """The nearest values that the format can store, in the type of `value`."""
        if not self.has_steps(value):
            return value.to(self.dtype).to(value.dtype)
        steps = row_steps(value, self.bits or 0)
        return (counts(value, steps, self.bits or 0) * steps).reshape(value.shape).to(value.dtype)

    @torch.no_grad()
    def round(self, parameters: Iterable[tuple[str, Tensor]]) -> None:
        """Round parameters in place.

        Raises:
            TrainingError: one is too large for the type.
        """
        for name, value in parameters:
            value.copy_(self.rounded(value))
            if not bool(value.isfinite().all()):
                raise TrainingError(
                    f"'{name}' is too large for {str(self.dtype).removeprefix('torch.')}; resume with storage=bfloat16 or float32"
                )

    @contextmanager
    def rounded_while(self, parameters: Iterable[Tensor]) -> Iterator[None]:
        """While a block runs, parameters have the rounded values that a file of integers holds; afterwards they have their own again.

        A gradient computed inside is thus the gradient at the file's values, and the optimiser applies it to the unrounded ones
        (straight-through estimator; Bengio et al. 2013, Courbariaux et al. 2015). Where floats are stored, parameters stay as they
        are, because such rounding is too small to matter in training.
        """
        chosen = list(parameters) if self.bits else []
        before = [value.detach().clone() for value in chosen]
        try:
            with torch.no_grad():
                for value in chosen:
                    value.copy_(self.rounded(value))
            yield
        finally:
            with torch.no_grad():
                for value, old in zip(chosen, before, strict=True):
                    value.copy_(old)


def row_steps(value: Tensor, bits: int) -> Tensor:
    """The steps of a parameter [n, ...] for integers of `bits` bits: [n, 1] float32; 0 for a row of zeros."""
    largest = value.detach().float().flatten(1).abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    whole = largest.contiguous().view(torch.int32)  # positive floats are ordered like the integers that their bits are
    steps: Tensor = ((whole + 0xFF) & ~0xFF).view(torch.float32)
    return steps


def counts(value: Tensor, steps: Tensor, bits: int) -> Tensor:
    """The nearest integers for a parameter [n, ...] and its steps: [n, entries of a row] float32."""
    most = 2 ** (bits - 1) - 1
    return (value.detach().float().flatten(1) / steps.where(steps > 0, 1)).round().clamp(-most, most)


def rounded_copy(value: Tensor, form: str) -> Tensor:
    """A copied floating-point tensor with the values that a file holds: exact, float16, or int8 with one step for the whole tensor."""
    if form == "exact" or value.numel() == 0:
        return value
    if form == "float16":
        return value.to(torch.float16).to(value.dtype)
    flat = value.reshape(1, -1)
    steps = row_steps(flat, 8)
    return (counts(flat, steps, 8) * steps + 0.0).reshape(value.shape).to(value.dtype)  # integers have no −0
