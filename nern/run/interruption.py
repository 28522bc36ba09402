"""Ctrl-C and SIGTERM as a request to stop at the next step."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from nern.errors import Interrupted


class StopRequest:
    """Turns the first Ctrl-C or SIGTERM into a request to stop at the next step; a second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise Interrupted("stopped at once, after the last checkpoint that was written")
        self.requested = True
