"""Settings of torch and of the process that all code in it shares, and that a plugin has to leave as they are."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch

_ALL_AS_ERRORS = ("error", None, Warning, None, 0)  # the filter of warnings.simplefilter("error")


def settings() -> dict[str, Any]:
    """The shared settings by what messages call them."""
    try:
        folder = os.getcwd()
    except OSError:  # it was removed
        folder = None
    return {
        "torch's default dtype": torch.get_default_dtype(),
        "torch's default device": torch.get_default_device(),
        "whether torch computes gradients": torch.is_grad_enabled(),
        "whether torch is deterministic": torch.are_deterministic_algorithms_enabled(),
        "the number of torch's threads": torch.get_num_threads(),
        "whether warnings are errors": _ALL_AS_ERRORS in warnings.filters,
        "the working directory": folder,
    }


def put_back(before: dict[str, Any]) -> list[str]:
    """Give the shared settings the values that they had before; returns what messages call those that had changed."""
    now = settings()
    changed = [name for name, value in before.items() if now[name] != value]
    ways: dict[str, Callable[[Any], object]] = {
        "torch's default dtype": torch.set_default_dtype,
        "torch's default device": lambda device: torch.set_default_device(None if device.type == "cpu" else device),
        "whether torch computes gradients": torch.set_grad_enabled,
        "whether torch is deterministic": torch.use_deterministic_algorithms,
        "the number of torch's threads": torch.set_num_threads,
        "whether warnings are errors": _treat_warnings,
        "the working directory": lambda folder: None if folder is None else os.chdir(folder),
    }
    for name in changed:
        with suppress(OSError):
            ways[name](before[name])
    return changed


def _treat_warnings(as_errors: bool) -> None:
    if as_errors:
        warnings.simplefilter("error")
    else:
        warnings.filters[:] = [entry for entry in warnings.filters if entry != _ALL_AS_ERRORS]  # type: ignore[index]


@contextmanager
def kept() -> Iterator[list[str]]:
    """Put back what a block changes of the shared settings; after it, the list that it got holds what messages call them."""
    before, changed = settings(), list[str]()
    try:
        yield changed
    finally:
        changed += put_back(before)
