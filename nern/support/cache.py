"""The cache for results that take long to compute, such as decoded images and orderings.

An entry is a file of tensors with a checksum of its name and content. An entry that is damaged, was written by another version or
was copied from another name is ignored, and its content is computed again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import platformdirs
import torch
from safetensors.torch import load as tensors_in
from safetensors.torch import save

from nern.support.files import write_atomically

_CHECKSUM_BYTES = 32


def folder() -> Path:
    """The cache folder: `NERN_CACHE` in the environment, or the user's cache folder."""
    return Path(os.environ.get("NERN_CACHE") or platformdirs.user_cache_dir("nern"))


def enabled() -> bool:
    """Whether the cache is used: an empty `NERN_CACHE` in the environment switches it off."""
    return os.environ.get("NERN_CACHE") != ""


def load(name: str) -> dict[str, torch.Tensor] | None:
    """The tensors stored under a name, or None where there are none or the entry is damaged."""
    if not enabled():
        return None
    try:
        entry = memoryview(_file(name).read_bytes())
    except OSError:
        return None
    checksum, content = entry[:_CHECKSUM_BYTES], entry[_CHECKSUM_BYTES:]
    return tensors_in(bytes(content)) if checksum == _checksum(name, content) else None


def store(name: str, tensors: Mapping[str, torch.Tensor]) -> None:
    """Store tensors under a name; where the cache cannot be written, nothing is stored and no error raised."""
    if not enabled():
        return
    content = save({key: value.detach().cpu().contiguous() for key, value in tensors.items()})

    try:
        folder().mkdir(parents=True, exist_ok=True)
        write_atomically(_file(name), lambda file: file.writelines([_checksum(name, content), content]))
    except OSError:
        pass


def _file(name: str) -> Path:
    return folder() / f"{name}.cache"


def _checksum(name: str, content: bytes | memoryview) -> bytes:
    total = hashlib.sha256(name.encode())
    total.update(content)
    return total.digest()
