"""What the writer and the reader of a file agree on: its version, the names of its tensors, and its checksum."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nern.networks.state_dicts import digest

FORMAT_VERSION = 2
WITHOUT_BASE = 1  # the version of a file without a base, which older readers can read
#: The tensor of all names and shapes, where nern and torch alone cannot build the network.
NAMES = "names"


def seal(about: dict[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the metadata and the tensors."""
    return hashlib.sha256(f"{digest(tensors)} {compact(about)}".encode()).hexdigest()


def compact(about: dict[str, Any]) -> str:
    """JSON without spaces."""
    return json.dumps(about, separators=(",", ":"))


def untied(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A state dict without parameters that another name holds, too; and which name that is, by the one left out."""
    firsts: dict[int, str] = {}
    tied = {name: firsts[id(value)] for name, value in state.items() if firsts.setdefault(id(value), name) != name}
    return {name: value for name, value in state.items() if name not in tied}, tied
