"""What a file holds of the entries of a network that are copied: one tensor for each type, since names would cost more bytes."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import torch
from safetensors.torch import save
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
    return {name: _joined(values) for name, values in by_type.items()}


def _joined(values: Sequence[Tensor]) -> Tensor:
    """Values of one type [n] one after the other; as their bytes, uint8, where safetensors does not know the type."""
    dtype = values[0].dtype
    whole = torch.cat([value.contiguous().view(torch.uint8) for value in values])  # of bytes, since not every type can be joined
    return whole.view(dtype) if storable(dtype) else whole


@functools.cache
def storable(dtype: torch.dtype) -> bool:
    """Whether safetensors has this type."""
    try:
        save({"value": torch.empty(0, dtype=dtype)})
    except Exception:  # of the library, whichever it raises for a type that it does not know
        return False
    return True


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

    values = {name: tensors[name] for name in used}

    def take(key: str, count: int, dtype: torch.dtype) -> Tensor:
        value = values[key]
        if not storable(dtype) and value.dtype == torch.uint8 and value.dim() == 1 and value.numel() % dtype.itemsize == 0:
            value = values[key] = value.contiguous().view(dtype)
        if value.dtype != dtype or value.dim() != 1:
            raise ValueError(f"{key} holds values of {value.dtype} in {value.dim()} dimensions")
        start = used[key]
        used[key] = start + count
        return value[start : used[key]]

    for entry in entries:
        if form == "int8" and entry.dtype.is_floating_point:
            value = take("copied.int8", entry.numel, torch.int8).float() * take(STEPS, 1, torch.float32)
        else:
            dtype = stored_type(entry.dtype, form)
            value = take(f"copied.{str(dtype).removeprefix('torch.')}", entry.numel, dtype)
        split[entry.name] = value.reshape(entry.shape).to(entry.dtype)
    for key, count in used.items():
        if count != values[key].numel():
            raise ValueError(f"{key} holds {values[key].numel()} values, the network has {count}")
    return split
