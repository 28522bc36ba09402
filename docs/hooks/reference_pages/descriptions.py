"""Takes descriptions from docstrings and from the help of options, and refuses what has none."""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from collections.abc import Iterable
from typing import Any

from mkdocs.exceptions import PluginError

from nern.options import OptionInfo
from reference_pages.markdown import escape


def documented(described: Any, name: str) -> str:
    """The docstring of an object.

    Raises:
        PluginError: the object has no docstring.
    """
    text = inspect.getdoc(described)
    if not text:
        raise PluginError(f"{name} has no docstring")
    return text


def first_line(described: Any, name: str) -> str:
    """The first sentence or line of a docstring."""
    return escape(documented(described, name).splitlines()[0])


def check_described(options: Iterable[OptionInfo], owner: str) -> None:
    """Raise PluginError where an option has no help."""
    missing = [option.name for option in options if not option.help]
    if missing:
        raise PluginError(f"{owner}: no help for {', '.join(missing)}")


def undescribed_attributes(cls: type) -> list[str]:
    """Public data attributes of a class without a description, which is a docstring below them or the help of an option."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(body, ast.ClassDef)
    undescribed = []
    for statement, following in itertools.zip_longest(body.body, body.body[1:]):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            name = statement.target.id
            text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            made_by = getattr(getattr(statement.value, "func", None), "id", None)  # options are described in a table
            if not name.startswith("_") and made_by != "option" and not text:
                undescribed.append(name)
    return undescribed


def check_attributes(cls: type) -> None:
    """Raise PluginError where a public data attribute of a class has no description."""
    missing = undescribed_attributes(cls)
    if missing:
        raise PluginError(f"{cls.__module__}.{cls.__name__}: no docstring below {', '.join(missing)}")
