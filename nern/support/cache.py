"""A place for what is slow to compute and easy to compute again: decoded images, orderings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import platformdirs
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from nern.support.files import write_tensors


def folder() -> Path:
    """The cache folder: `NERN_CACHE` in the environment, or the user's cache folder. An empty `NERN_CACHE` is no cache."""
    return Path(os.environ.get("NERN_CACHE") or platformdirs.user_cache_dir("nern"))


def load(name: str) -> dict[str, torch.Tensor] | None:
    """What was stored under a name, or None where nothing usable is."""
    try:
        return load_file(str(folder() / f"{name}.safetensors"))
    except (OSError, SafetensorError):
        return None


def store(name: str, tensors: Mapping[str, torch.Tensor]) -> None:
    """Keep tensors under a name. A cache that cannot be written is no error."""
    if os.environ.get("NERN_CACHE") == "":
        return
    try:
        folder().mkdir(parents=True, exist_ok=True)
        write_tensors(folder() / f"{name}.safetensors", tensors)
    except OSError:
        pass
