"""Tensors with exact zeros, stored as one bit for each entry and the values of the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from nern.support.bits import pack_bits, unpack_bits

MASK, VALUES = "(mask)", "(values)"
WORTH = 512  # bytes that a bitmask must save to be used: its two names in the header cost about a hundred


def compress(
    tensors: Mapping[str, Tensor], section: str, names: Iterable[str] | None = None, bits: int | None = None
) -> tuple[dict[str, Tensor], list[str]]:
    """Store tensors named `section.…` that have many zeros as a common bitmask and their other values.

    Only tensors of one type share the mask; it is the type for which a mask saves most.

    Args:
        names: the tensors to choose among; by default those of floating-point numbers.
        bits: the bits that an entry takes, where these are fewer than its type has.

    Returns:
        All tensors, and the names of those that are in `section.(mask)` and `section.(values)`, in their order there.
    """
    among = [name for name, value in tensors.items() if value.is_floating_point()] if names is None else names
    saved = {name: _saved(tensors[name], bits) for name in among if name.startswith(f"{section}.")}
    by_dtype: dict[torch.dtype, list[str]] = {}
    for name in saved:
        if saved[name] > 0:
            by_dtype.setdefault(tensors[name].dtype, []).append(name)
    chosen = max(by_dtype.values(), key=lambda group: sum(saved[name] for name in group), default=[])
    if sum(saved[name] for name in chosen) < WORTH:
        return dict(tensors), []
    flat = torch.cat([tensors[name].reshape(-1) for name in chosen])
    kept = {name: value for name, value in tensors.items() if name not in chosen}
    return {**kept, f"{section}.{MASK}": pack_bits(flat != 0), f"{section}.{VALUES}": flat[flat != 0]}, chosen


def restore(tensors: Mapping[str, Tensor], section: str, names: list[str], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo `compress`.

    Args:
        names: what `compress` returned.
        like: tensors with the shapes that these names have.

    Raises:
        ValueError: mask, values and shapes do not fit each other.
    """
    if not names:
        return dict(tensors)
    mask, values = tensors[f"{section}.{MASK}"], tensors[f"{section}.{VALUES}"]
    kept = unpack_bits(mask, sum(like[name].numel() for name in names))
    if int(kept.sum()) != len(values):
        raise ValueError(f"{section}: {len(values)} values are stored, the mask counts {int(kept.sum())}")
    flat = torch.zeros(len(kept), dtype=values.dtype)
    flat[kept] = values
    parts = torch.split(flat, [like[name].numel() for name in names])
    dense = {name: part.reshape(like[name].shape) for name, part in zip(names, parts, strict=True)}
    return {**{name: value for name, value in tensors.items() if name not in (f"{section}.{MASK}", f"{section}.{VALUES}")}, **dense}


def _saved(value: Tensor, bits: int | None) -> int:
    """Bytes that a bitmask saves."""
    bits = bits or 8 * value.element_size()
    return bits * int((value == 0).sum()) // 8 - (value.numel() + 7) // 8
