"""Finds the plugin component that caused an error."""

from __future__ import annotations

import traceback
from types import FrameType

import torch

from nern.errors import NernError
from nern.support.contracts import ContractError, offered, place_of, raised


def blamed(error: BaseException) -> str | None:
    """One line that names the plugin component which raised an error, with file and line.

    None where no plugin was involved, where the error explains itself, and where memory has run out.
    """
    if isinstance(error, ContractError):
        return str(error)
    if isinstance(error, (NernError, MemoryError, torch.OutOfMemoryError)) or not isinstance(error, (Exception, SystemExit)):
        return None
    component = _at_work(error)
    if component is None:
        return None
    kind, name = component
    return f"{f'component {name} ({kind})' if kind else f'plugin {name}'}: {raised(error)}"


def refused_at(error: BaseException) -> str:
    """` (package:name, FILE, line N)` of the plugin that an error went through, to stand behind what it says; or nothing."""
    component, place = None if isinstance(error, NernError) else _at_work(error), place_of(error)
    return f" ({component[1]}, {place[2:]}" if component and place else ""


def _at_work(error: BaseException) -> tuple[str, str] | None:
    """The extension point and name of the component that an error went through; no extension point where only its plugin is known."""
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        own = offered(frame.f_globals.get("__name__", ""))
        if own:
            return _named(frame, own)
    return None


def _named(frame: FrameType, own: dict[type, tuple[str, str]]) -> tuple[str, str]:
    """The component whose code ran: the nearest component among the callers, or else the plugin itself."""
    at: FrameType | None = frame
    while at is not None:
        known = own.get(type(at.f_locals.get("self")))
        if known:
            return known
        at = at.f_back
    kinds = sorted(set(own.values()))
    return kinds[0] if len(kinds) == 1 else ("", kinds[0][1].partition(":")[0])
