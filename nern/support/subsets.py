"""Calls that offer more arguments than a function has to take: a method can be offered more without breaking what exists."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any


def takes(function: Callable[..., Any], name: str) -> bool:
    """Whether a function has a parameter of this name."""
    return name in inspect.signature(function).parameters


def call_with(function: Callable[..., Any], *needed: Any, offered: Mapping[str, Callable[[], Any]]) -> Any:
    """Call a function with `needed`, and with those of the offered arguments that it has parameters for.

    Args:
        offered: name → function that makes the value, called only where it is wanted.
    """
    return function(*needed, **{name: make() for name, make in offered.items() if takes(function, name)})
