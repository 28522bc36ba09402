"""Settings of torch and of the process that all code in it shares, and that a plugin has to leave as they are."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch

_ALL_AS_ERRORS = ("error", None, Warning, None, 0)  # the filter of warnings.simplefilter("error")


def _folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return None


def _enter(folder: str | None) -> None:
    if folder is not None:
        os.chdir(folder)


def _set_device(device: torch.device) -> None:
    torch.set_default_device(None if device.type == "cpu" else device)


def _treat_warnings(as_errors: bool) -> None:
    if as_errors:
        warnings.simplefilter("error")
    else:
        warnings.filters[:] = [entry for entry in warnings.filters if entry != _ALL_AS_ERRORS]  # type: ignore[index]


#: What messages call a setting → how it is read, and how it is set.
SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "torch's default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "torch's default device": (torch.get_default_device, _set_device),
    "whether torch computes gradients": (torch.is_grad_enabled, torch.set_grad_enabled),
    "whether torch is deterministic": (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
    "the number of torch's threads": (torch.get_num_threads, torch.set_num_threads),
    "whether warnings are errors": (lambda: _ALL_AS_ERRORS in warnings.filters, _treat_warnings),
    "the working directory": (_folder, _enter),
}


def settings() -> dict[str, Any]:
    """The shared settings, by what messages call them."""
    return {name: read() for name, (read, _) in SETTINGS.items()}


@contextmanager
def kept() -> Iterator[list[str]]:
    """Put back what a block changes of the shared settings; after it, the list that it got holds what messages call them."""
    before, changed = settings(), list[str]()
    try:
        yield changed
    finally:
        changed += [name for name, value in settings().items() if value != before[name]]
        for name in changed:
            with suppress(OSError):  # a working directory that was removed
                SETTINGS[name][1](before[name])
