"""Writes a representation's numbers as the tensors of a file, and reads them back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nern.artifact.bitmask import MASK, VALUES, compress, restore
from nern.representation.quantization import NumberFormat as Storage
from nern.representation.quantization import counts, row_steps
from nern.support.bits import pack_integers, unpack_bits, unpack_integers

STEPS = "(steps)"


def encode(state: Mapping[str, Tensor], numbers: Sequence[str], storage: Storage) -> tuple[dict[str, Tensor], list[str]]:
    """The file's tensors for a representation whose numbers are rounded.

    Matrices that are stored as integers are int8 of the same shape, or packed bits where they take fewer than eight;
    `section.(steps)` float32 holds the steps of their rows, one after the other.

    Args:
        state: tensors on the CPU, by names that start with their section.
        numbers: the names of the parameters among them; other tensors stay as they are.

    Returns:
        The tensors, and the names of those that are stored as a bitmask (see `nern.artifact.bitmask.compress`).
    """
    bits, encoded, steps = storage.bits or 0, dict(state), dict[str, list[Tensor]]()
    integers = [name for name in numbers if storage.has_steps(state[name])]
    for name in numbers:
        value = state[name]
        if name in integers:
            own = row_steps(value, bits)
            encoded[name] = counts(value, own, bits).to(torch.int8).reshape(value.shape)
            steps.setdefault(f"{name.split('.')[0]}.{STEPS}", []).append(own.reshape(-1))
        else:
            encoded[name] = value.to(storage.dtype)
    encoded, sparse = compress(encoded, "predictor", integers if bits else numbers, bits or None)
    if 0 < bits < 8:
        for name in [*integers, f"predictor.{VALUES}"]:
            if name in encoded:
                encoded[name] = pack_integers(encoded[name], bits)
    return {**encoded, **{name: torch.cat(parts) for name, parts in steps.items()}}, sparse


def decode(
    tensors: Mapping[str, Tensor], numbers: Sequence[str], storage: Storage, sparse: list[str], like: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Undo `encode`.

    Args:
        like: tensors with the shapes that the names have.

    Raises:
        ValueError: the stored tensors do not belong to these shapes.
    """
    bits, decoded = storage.bits or 0, dict(tensors)
    integers = [name for name in numbers if name in like and storage.has_steps(like[name])]
    if 0 < bits < 8:
        for name in integers:
            if name not in sparse:
                decoded[name] = unpack_integers(decoded[name], like[name].numel(), bits).reshape(like[name].shape)
        if sparse:
            kept = unpack_bits(decoded[f"predictor.{MASK}"], sum(like[name].numel() for name in sparse))
            decoded[f"predictor.{VALUES}"] = unpack_integers(decoded[f"predictor.{VALUES}"], int(kept.sum()), bits)
    decoded = restore(decoded, "predictor", sparse, like)
    used = {name: 0 for name in decoded if name.endswith(STEPS)}
    for name in integers:
        key, value = f"{name.split('.')[0]}.{STEPS}", decoded[name]
        own = decoded[key][used[key] : used[key] + len(value)]
        used[key] += len(value)
        if len(own) == len(value):
            decoded[name] = (value.flatten(1).float() * own.unsqueeze(1)).reshape(value.shape)
    for key, count in used.items():
        if count != decoded[key].numel():
            raise ValueError(f"{key} holds {decoded[key].numel()} steps, the rows are {count}")
    return {name: value for name, value in decoded.items() if name not in used}
