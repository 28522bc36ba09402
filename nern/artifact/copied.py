"""How a file stores the copied entries of a network: one tensor for each type, since one name for each entry would cost more bytes."""

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
    """The file's tensors for copied entries, which are given by name, each in the type that it has in the file.

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
    """Concatenate values of one type [n]; their bytes (uint8) where safetensors does not know the type."""
    dtype = values[0].dtype
    # The bytes are joined, since torch cannot concatenate every type
    whole = torch.cat([value.contiguous().view(torch.uint8) for value in values])
    return whole.view(dtype) if storable(dtype) else whole


@functools.cache
def storable(dtype: torch.dtype) -> bool:
    """Whether safetensors can store this type."""
    try:
        save({"value": torch.empty(0, dtype=dtype)})
    except Exception:  # the library may raise anything for a type that it does not know
        return False
    return True


def stored_type(dtype: torch.dtype, form: str) -> torch.dtype:
    """The type in which a file stores an entry."""
    return torch.float16 if form == "float16" and dtype.is_floating_point and dtype.itemsize > 2 else dtype


def split_copied(tensors: Mapping[str, Tensor], entries: Sequence[Entry], form: str = "exact") -> dict[str, Tensor]:
    """Undo `join_copied`: the values by name, in the types of the entries.

    Args:
        entries: the entries that were joined, in the same order.

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
