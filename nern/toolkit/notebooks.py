"""A progress bar in a notebook: one output that is drawn anew, without widgets."""

from __future__ import annotations

import html
import sys
import time
from typing import Any

LINES = 30  # of text that stay below the bar
PAUSE = 0.2  # seconds between two drawings


def in_notebook() -> bool:
    """Whether this is the kernel of a notebook, whose outputs can be drawn anew."""
    asked: Any = getattr(sys.modules.get("IPython"), "get_ipython", None)
    shell = asked() if asked is not None else None
    return type(shell).__name__ in ("ZMQInteractiveShell", "Shell")  # of Jupyter and its kin, and of Colab


class NotebookBar:
    """A progress bar with a description beside it and lines of text below it."""

    def __init__(self) -> None:
        import IPython.display

        self._display: Any = IPython.display
        self._lines: list[str] = []
        self._bar: tuple[str, int, int | None] = ("starting", 0, None)
        self._drawn = float("-inf")
        self._handle: Any = self._display.display(self._display.HTML(self._text()), display_id=True)

    def update(self, description: str, done: int, total: int | None) -> None:
        """Move the bar to `done` of `total` steps; a `total` of None is not known."""
        self._bar = description, done, total
        self._draw(last=done == total)

    def say(self, line: str) -> None:
        """Add a line below the bar."""
        self._lines = [*self._lines, line][-LINES:]
        self._draw(last=True)

    def stop(self) -> None:
        """Draw the bar for the last time, as finished."""
        self._bar = "ended", 1, 1
        self._draw(last=True)

    def _draw(self, last: bool) -> None:
        if not last and time.monotonic() - self._drawn < PAUSE:
            return
        self._drawn = time.monotonic()
        if self._handle is not None:
            self._handle.update(self._display.HTML(self._text()))

    def _text(self) -> str:
        description, done, total = self._bar
        known = "" if total is None else f' value="{done}" max="{total}"'
        count = "" if total is None or total == 1 else f"{done}/{total} "
        lines = html.escape("\n".join(self._lines))
        return f'<div><progress{known} style="width:20em"></progress> {count}{html.escape(description)}</div><pre>{lines}</pre>'
