"""What the writer and the reader of a file share: the format version, the name of a tensor, and the checksum."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nern.networks.state_dicts import digest

FORMAT_VERSION = 2
WITHOUT_BASE = 1  # the version of a file without a base, which older readers can read
#: Name of the tensor that holds all names and shapes, in files of networks that nern and torch alone cannot build.
NAMES = "names"


def seal(about: dict[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the metadata and the tensors."""
    return hashlib.sha256(f"{digest(tensors)} {compact(about)}".encode()).hexdigest()


def compact(about: dict[str, Any]) -> str:
    """JSON without spaces."""
    return json.dumps(about, separators=(",", ":"))


def untied(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A state dict in which every shared tensor keeps its first name alone, and the first name for each name that was dropped."""
    firsts: dict[int, str] = {}
    tied = {name: firsts[id(value)] for name, value in state.items() if firsts.setdefault(id(value), name) != name}
    return {name: value for name, value in state.items() if name not in tied}, tied
