"""What a file holds of the entries of a network that are copied: one tensor for each type, since names would cost more bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nern.artifact.entries import Entry
from nern.representation.quantization import counts, row_steps

STEPS = "copied.(steps)"


def join_copied(copied: Mapping[str, Tensor], form: str = "exact") -> dict[str, Tensor]:
    """Copied entries by name, each of its type in the file, as the file's tensors.

    Args:
        form: exact, float16 or int8, for floating-point entries.
    """
    by_type: dict[str, list[Tensor]] = {}
    for value in copied.values():
        flat = value.detach().cpu().reshape(-1)
        if form == "int8" and value.is_floating_point():
            steps = row_steps(flat.reshape(1, -1), 8) if len(flat) else torch.zeros(1, 1)
            by_type.setdefault("copied.int8", []).append(counts(flat.reshape(1, -1), steps, 8).to(torch.int8).reshape(-1))
            by_type.setdefault(STEPS, []).append(steps.reshape(-1))
        else:
            flat = flat.to(stored_type(value.dtype, form))
            by_type.setdefault(f"copied.{str(flat.dtype).removeprefix('torch.')}", []).append(flat)
    return {name: torch.cat(values) for name, values in by_type.items()}


def stored_type(dtype: torch.dtype, form: str) -> torch.dtype:
    """The type in which an entry is stored."""
    return torch.float16 if form == "float16" and dtype.is_floating_point and dtype.itemsize > 2 else dtype


def split_copied(tensors: Mapping[str, Tensor], entries: Sequence[Entry], form: str = "exact") -> dict[str, Tensor]:
    """Undo `join_copied`: values of the types of the entries, by name.

    Args:
        entries: what was joined, in the same order.

    Raises:
        KeyError: a tensor is missing.
        ValueError: there are more or fewer values than the entries take.
    """
    split, used = {}, dict.fromkeys((name for name in tensors if name.startswith("copied.") and not name.endswith("(coded)")), 0)

    def take(key: str, count: int) -> Tensor:
        start = used[key]
        used[key] = start + count
        return tensors[key][start : used[key]]

    for entry in entries:
        if form == "int8" and entry.dtype.is_floating_point:
            value = take("copied.int8", entry.numel).float() * take(STEPS, 1)
        else:
            dtype = stored_type(entry.dtype, form)
            value = take(f"copied.{str(dtype).removeprefix('torch.')}", entry.numel)
        split[entry.name] = value.reshape(entry.shape).to(entry.dtype)
    for key, count in used.items():
        if count != tensors[key].numel():
            raise ValueError(f"{key} holds {tensors[key].numel()} values, the network has {count}")
    return split
