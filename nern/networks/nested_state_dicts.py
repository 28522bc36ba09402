"""Finds the state dicts inside the content of a weights file, where training scripts nest them under keys of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs
from torch import Tensor, nn

from nern.errors import DataError

#: Keys under which training scripts store a network's state dict, the most likely first; averaged weights come last.
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "model_state", "params", "module", "weights")
DEEPEST = 4  # how many nested mappings are searched for a state dict


@attrs.frozen
class Candidate:
    """A state dict that was found in a file."""

    entry: str  # the keys that lead to it, joined by dots; empty where it is the whole file
    state: dict[str, Tensor]
    metadata: dict[str, Any] | None  # versions of modules, where the file has them


def candidates(content: Any, place: object, entry: str | None) -> list[Candidate]:
    """The state dicts in a file's content, the most likely first.

    Raises:
        DataError: there is none, or none at `entry`.
    """
    if isinstance(content, nn.Module):
        content = content.state_dict()
    inside = list(_search(content, ""))
    if not inside:
        raise DataError(f"{place} holds no state dict (a mapping from parameter names to tensors)")
    if entry is not None:
        chosen = [candidate for candidate in inside if candidate.entry == entry]
        if not chosen:
            there = ", ".join(candidate.entry for candidate in inside if candidate.entry) or "none inside another one: leave it out"
            raise DataError(f"{place} has no state dict at architecture.entry={entry} (there are: {there})")
        return chosen
    return sorted(inside, key=lambda candidate: _likelihood(candidate.entry))


def _search(content: Any, entry: str, depth: int = 0) -> Iterator[Candidate]:
    if not isinstance(content, Mapping) or "param_groups" in content or depth > DEEPEST:
        return
    inner = [
        candidate
        for key, value in content.items()
        if isinstance(key, str) and isinstance(value, (Mapping, nn.Module))
        for candidate in _search(
            value.state_dict() if isinstance(value, nn.Module) else value, f"{entry}.{key}" if entry else key, depth + 1
        )
    ]
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if inner:
        yield from inner
    elif 2 * len(tensors) > len(content):
        metadata = getattr(content, "_metadata", None)
        yield Candidate(
            entry, tensors, dict(metadata) if isinstance(metadata, Mapping) and all(isinstance(k, str) for k in metadata) else None
        )


def _likelihood(entry: str) -> tuple[bool, int]:
    """Sort key: known names first, in their order, then unknown names; averaged weights come after all others."""
    first = entry.split(".")[0]
    return "ema" in entry.lower() or "teacher" in entry.lower(), WRAPPERS.index(first) if first in WRAPPERS else len(WRAPPERS)
