"""Turns LaTeX into MathML when the site is built, so that equations need neither JavaScript nor an internet connection."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)
TAG = re.compile(r"\\tag\{([^}]*)\}")


def on_page_content(html: str, **_: Any) -> str:
    """Replace the equations that pymdownx.arithmatex has marked."""
    html = BLOCK.sub(lambda match: display(match[1]), html)
    return INLINE.sub(lambda match: mathml(match[1], "inline"), html)


def display(latex: str) -> str:
    r"""Format an equation on a line of its own; `\tag{3}` becomes its number at the right."""
    number = TAG.search(html.unescape(latex))
    equation = mathml(TAG.sub("", latex), "block")
    label = f'<span class="equation-number">({number[1]})</span>' if number else ""
    return f'<div class="equation"><div class="equation-body">{equation}</div>{label}</div>'


def mathml(latex: str, kind: str) -> str:
    """Convert LaTeX with HTML entities to a `<math>` element.

    Raises:
        PluginError: a LaTeX command is unknown, and would be shown as text.
    """
    source = html.unescape(latex).strip()
    result: str = convert(source, display=kind)
    unknown = re.search(r"\\[a-zA-Z]+", html.unescape(result))
    if unknown:
        raise PluginError(f"cannot convert {unknown[0]} in the equation {source}")
    return result
