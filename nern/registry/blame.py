"""Finds the plugin component that caused an error."""

from __future__ import annotations

import traceback
from types import FrameType

import torch

from nern.errors import NernError
from nern.registry.hook_errors import reason_of
from nern.registry.registry import Entry, Registry


def blamed(error: BaseException, registry: Registry) -> str | None:
    """One line that names the plugin component which raised an error, with file and line.

    None where no plugin was involved, where the error explains itself, and where memory has run out.
    """
    if isinstance(error, (NernError, MemoryError, torch.OutOfMemoryError)) or not isinstance(error, Exception):
        return None
    entries = [entry for entry in registry.entries() if entry.package != "nern"]
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        module = frame.f_globals.get("__name__", "")
        own = [entry for entry in entries if _package_of(entry.cls.__module__) == _package_of(module)]
        if own:
            return f"{_named(frame, own)}: raised {reason_of(error)}"
    return None


def _named(frame: FrameType, own: list[Entry]) -> str:
    """The component whose code ran: the nearest component among the callers, or else the plugin itself."""
    at: FrameType | None = frame
    while at is not None:
        for entry in own:
            if type(at.f_locals.get("self")) is entry.cls:
                return f"component {entry.package}:{entry.name} ({entry.kind})"
        at = at.f_back
    if len(own) == 1:
        return f"component {own[0].package}:{own[0].name} ({own[0].kind})"
    return f"plugin {own[0].package}"


def _package_of(module: str) -> str:
    return module.partition(".")[0]
