"""Hashes of what a run gives, whatever the format of its files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


def digest(value: Any, without: tuple[str, ...] = ()) -> str:
    """SHA-256 of nested dictionaries, lists, numbers and tensors: keys, types, shapes and bits, whatever the file format."""
    hasher = hashlib.sha256()
    for piece in _pieces(value, without):
        hasher.update(piece)
    return hasher.hexdigest()


def _pieces(value: Any, without: tuple[str, ...]) -> Iterator[bytes]:
    if isinstance(value, Tensor):
        whole = value.detach().cpu().contiguous()
        yield f"tensor {whole.dtype} {tuple(whole.shape)};".encode()
        yield whole.reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, Mapping):
        yield f"mapping {len(value)};".encode()
        for key, inner in value.items():
            if key not in without:
                yield f"{key!r}:".encode()
                yield from _pieces(inner, without)
    elif isinstance(value, (list, tuple)):
        yield f"list {len(value)};".encode()
        for inner in value:
            yield from _pieces(inner, without)
    else:
        yield f"{value!r};".encode()
