"""Calls with optional arguments: a method may leave out offered parameters, so that new ones can be offered without breaking plugins."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any


def takes(function: Callable[..., Any], name: str) -> bool:
    """Whether a function has a parameter of this name."""
    return name in inspect.signature(function).parameters


def call_with(function: Callable[..., Any], *needed: Any, offered: Mapping[str, Callable[[], Any]]) -> Any:
    """Call a function with the arguments `needed`, and with those offered arguments for which it has parameters.

    Args:
        offered: for each name, a function that makes the value; called only where the parameter exists.
    """
    return function(*needed, **{name: make() for name, make in offered.items() if takes(function, name)})
