"""Imports optional dependencies when they are first needed; where one is missing, the error says how to install it."""

from __future__ import annotations

import importlib
from types import ModuleType

from nern.errors import PluginError


def import_optional(module: str, extra: str, wanted_by: str) -> ModuleType:
    """Import a module of one of nern's extras.

    Args:
        extra: the extra that installs it, as in `pip install "nern[extra]"`.
        wanted_by: what needs the module, for the message.

    Raises:
        PluginError: the module is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise PluginError(f'{wanted_by} needs {module} ({error}): pip install "nern[{extra}]", or switch it off') from error
