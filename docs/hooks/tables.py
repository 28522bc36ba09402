"""Makes tables fit the screen, without JavaScript: those that are too wide scroll, and long words of code may break inside a cell."""

from __future__ import annotations

import re
from typing import Any

TABLE = re.compile(r"<table>.*?</table>", re.DOTALL)
CODE = re.compile(r"<code>[^<]*</code>")
LONG_WORD = re.compile(r"[^\s<>]{25,}")
BREAK = re.compile(r"(?<=\w)([./=]+)(?=[A-Za-z_])")


def on_page_content(html: str, **_: Any) -> str:
    """Put every table into a scrollable box."""
    return TABLE.sub(lambda match: f'<div class="wide">{breakable(match[0])}</div>', html)


def breakable(table: str) -> str:
    """The table with a place for a line break after the dots, slashes and equals signs inside its long words of code."""
    return CODE.sub(lambda code: LONG_WORD.sub(lambda word: BREAK.sub(r"\1<wbr>", word[0]), code[0]), table)
