"""How the numbers of a representation stand in its file: as floats of a type, or as integers with a step for each row.

An integer of b bits counts the steps of its row, from −(2^(b−1) − 1) to 2^(b−1) − 1; the step is the smallest number of 16
significant bits for which the row's largest entry needs no more of them. Rounding what is rounded therefore changes
nothing, and the file holds exactly what was measured. Vectors, biases above all, are stored as float16 then.

`entropy` is the format of `nern.representation.entropy`, whose numbers are rounded wherever they are looked at.
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
    """One way to store numbers, by its name."""

    name: str = "float32"

    @property
    def bits(self) -> int | None:
        """Of an integer; None where numbers are stored as floats."""
        return int(self.name[3:]) if self.name.startswith("int") else None

    @property
    def is_coded(self) -> bool:
        """Whether numbers are integers of trained steps in a stream that an entropy coder writes."""
        return self.name == "entropy"

    @property
    def dtype(self) -> torch.dtype:
        """Of what is stored as a float."""
        if self.is_coded:
            return torch.float32
        dtype: torch.dtype = torch.float16 if self.bits else getattr(torch, self.name)
        return dtype

    def has_steps(self, value: Tensor) -> bool:
        """Whether a parameter is stored as integers: it is a matrix or has more dimensions."""
        return self.bits is not None and value.dim() >= 2 and value.numel() > 0

    def rounded(self, value: Tensor) -> Tensor:
        """The nearest values that can be stored, in the type of `value`."""
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
        """While the block lasts, parameters have the values of a file of integers; then they are as they were.

        A gradient that is taken inside is thus that at the values of the file, and the optimiser applies it to the values
        from which they come (the straight-through estimator; Bengio et al. 2013, Courbariaux et al. 2015). Where floats
        are stored, nothing changes: their rounding is too small to be trained with.
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
    """Of a parameter [n, ...] with integers of so many bits: [n, 1] float32, 0 for a row of zeros."""
    largest = value.detach().float().flatten(1).abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    whole = largest.contiguous().view(torch.int32)  # a positive float's bits are ordered like the float
    steps: Tensor = ((whole + 0xFF) & ~0xFF).view(torch.float32)
    return steps


def counts(value: Tensor, steps: Tensor, bits: int) -> Tensor:
    """Whole steps [n, entries of a row] float32 that are nearest to a parameter [n, ...]."""
    most = 2 ** (bits - 1) - 1
    return (value.detach().float().flatten(1) / steps.where(steps > 0, 1)).round().clamp(-most, most)


def rounded_copy(value: Tensor, form: str) -> Tensor:
    """A copied floating-point tensor as a file holds it: exact, as float16, or as int8 with one step for all of it."""
    if form == "exact" or value.numel() == 0:
        return value
    if form == "float16":
        return value.to(torch.float16).to(value.dtype)
    flat = value.reshape(1, -1)
    steps = row_steps(flat, 8)
    return (counts(flat, steps, 8) * steps + 0.0).reshape(value.shape).to(value.dtype)  # integers have no −0
