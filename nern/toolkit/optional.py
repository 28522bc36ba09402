"""Optional dependencies: imported when a run first wants them, and named with the way to install them if missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from nern.errors import PluginError


def import_optional(module: str, extra: str, wanted_by: str) -> ModuleType:
    """Import a module of one of nern's extras.

    Args:
        extra: the extra that installs it, as in `pip install "nern[extra]"`.
        wanted_by: who needs it, for the message.

    Raises:
        PluginError: it is not installed, or does not load.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise PluginError(f'{wanted_by} needs {module} ({error}): pip install "nern[{extra}]", or switch it off') from error
