"""How the numbers of a representation stand in its file: as floats of a type, or as integers with a step for each row.

An integer of b bits counts the steps of its row, from −(2^(b−1) − 1) to 2^(b−1) − 1; the step is the smallest number of 16
significant bits for which the row's largest entry needs no more of them. Rounding what is rounded therefore changes
nothing, and the file holds exactly what was measured. Vectors, biases above all, are stored as float16 then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, get_args

import attrs
import numpy as np
import torch
from torch import Tensor

from nern.errors import TrainingError
from nern.sparse import MASK, VALUES, compress, restore, unpack_bits

Name = Literal["float32", "float16", "bfloat16", "int8", "int7", "int6", "int5", "int4"]
NAMES: tuple[str, ...] = get_args(Name)
STEPS = "(steps)"


@attrs.frozen
class Storage:
    """One way to store numbers, by its name."""

    name: str = "float32"

    @property
    def bits(self) -> int | None:
        """Of an integer; None where numbers are stored as floats."""
        return int(self.name[3:]) if self.name.startswith("int") else None

    @property
    def dtype(self) -> torch.dtype:
        """Of what is stored as a float."""
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
    def seen_by(self, parameters: Iterable[Tensor]) -> Iterator[None]:
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


def encode(state: Mapping[str, Tensor], numbers: Sequence[str], storage: Storage) -> tuple[dict[str, Tensor], list[str]]:
    """What the file holds of a rounded representation.

    Matrices that are stored as integers are int8 of the same shape, or packed bits where they take fewer than eight;
    `section.(steps)` float32 holds the steps of their rows, one after the other.

    Args:
        state: tensors on the CPU, by names that start with their section.
        numbers: the parameters among them; other tensors stay as they are.

    Returns:
        The tensors, and the names that `nern.sparse.compress` gives.
    """
    bits, found, steps = storage.bits or 0, dict(state), dict[str, list[Tensor]]()
    integers = [name for name in numbers if storage.has_steps(state[name])]
    for name in numbers:
        value = state[name]
        if name in integers:
            own = row_steps(value, bits)
            found[name] = counts(value, own, bits).to(torch.int8).reshape(value.shape)
            steps.setdefault(f"{name.split('.')[0]}.{STEPS}", []).append(own.reshape(-1))
        else:
            found[name] = value.to(storage.dtype)
    found, sparse = compress(found, "predictor", integers if bits else numbers, bits or None)
    if 0 < bits < 8:
        for name in [*integers, f"predictor.{VALUES}"]:
            if name in found:
                found[name] = pack_integers(found[name], bits)
    return {**found, **{name: torch.cat(parts) for name, parts in steps.items()}}, sparse


def decode(
    tensors: Mapping[str, Tensor], numbers: Sequence[str], storage: Storage, sparse: list[str], like: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Undo `encode`.

    Args:
        like: tensors with the shapes that the names have.

    Raises:
        ValueError: what is stored and the shapes do not fit each other.
    """
    bits, found = storage.bits or 0, dict(tensors)
    integers = [name for name in numbers if name in like and storage.has_steps(like[name])]
    if 0 < bits < 8:
        for name in integers:
            if name not in sparse:
                found[name] = unpack_integers(found[name], like[name].numel(), bits).reshape(like[name].shape)
        if sparse:
            kept = unpack_bits(found[f"predictor.{MASK}"], sum(like[name].numel() for name in sparse))
            found[f"predictor.{VALUES}"] = unpack_integers(found[f"predictor.{VALUES}"], int(kept.sum()), bits)
    found = restore(found, "predictor", sparse, like)
    used = {name: 0 for name in found if name.endswith(STEPS)}
    for name in integers:
        key, value = f"{name.split('.')[0]}.{STEPS}", found[name]
        own = found[key][used[key] : used[key] + len(value)]
        used[key] += len(value)
        if len(own) == len(value):
            found[name] = (value.flatten(1).float() * own.unsqueeze(1)).reshape(value.shape)
    for key, count in used.items():
        if count != found[key].numel():
            raise ValueError(f"{key} holds {found[key].numel()} steps, the rows are {count}")
    return {name: value for name, value in found.items() if name not in used}


def pack_integers(values: Tensor, bits: int) -> Tensor:
    """int8 of any shape → uint8 [⌈n · bits / 8⌉]: the low bits of each in two's complement, most significant bit first."""
    columns = np.unpackbits(values.reshape(-1, 1).numpy().view(np.uint8), axis=1)[:, 8 - bits :]
    return torch.from_numpy(np.packbits(columns.reshape(-1)))


def unpack_integers(packed: Tensor, count: int, bits: int) -> Tensor:
    """uint8 [⌈count · bits / 8⌉] → int8 [count].

    Raises:
        ValueError: there are more or fewer bytes.
    """
    if packed.numel() != (count * bits + 7) // 8:
        raise ValueError(f"{packed.numel()} bytes of integers are stored, {(count * bits + 7) // 8} belong to {count} of {bits} bits")
    columns = np.unpackbits(packed.numpy(), count=count * bits).reshape(count, bits)
    signed = np.concatenate([np.repeat(columns[:, :1], 8 - bits, axis=1), columns], axis=1)
    return torch.from_numpy(np.packbits(signed, axis=1).reshape(-1).view(np.int8))
