"""Puts source code into a page: a line `{{ source nern.kernels.smoothness.layer_smoothness }}` becomes that function's text."""

from __future__ import annotations

import importlib
import inspect
import re
import textwrap
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

DIRECTIVE = re.compile(r"^\{\{ source ([\w.]+) \}\}$", re.MULTILINE)
ROOT = Path(__file__).resolve().parents[2]


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace every directive of a page."""
    return DIRECTIVE.sub(lambda match: excerpt(match[1]), markdown)


def excerpt(name: str) -> str:
    """A fenced block with the source of the module, class or function with a dotted name.

    Raises:
        PluginError: there is no such object.
    """
    named = inspect.unwrap(locate(name))  # of a decorated function, the function itself
    lines, first = inspect.getsourcelines(named)
    text = textwrap.dedent("".join(lines)).rstrip()
    file = Path(inspect.getsourcefile(named) or "").resolve()
    place = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file.name
    return f'```python title="{place}, line {max(first, 1)}"\n{text}\n```'


def locate(name: str) -> Any:
    """Find the object with a dotted name: the longest prefix that is a module, then attributes."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            named: Any = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        try:
            for attribute in parts[end:]:
                named = getattr(named, attribute)
        except AttributeError as error:
            raise PluginError(f"{{{{ source {name} }}}}: {error}") from error
        return named
    raise PluginError(f"{{{{ source {name} }}}}: there is no such module")
