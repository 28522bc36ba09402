"""Ctrl-C, SIGTERM and SIGHUP as a request to stop at the next step."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from nern.errors import Interrupted


class StopRequest:
    """Turns the first Ctrl-C, SIGTERM or SIGHUP into a request to stop at the next step; a second Ctrl-C stops at once.

    SIGHUP, which a closed terminal sends, stays ignored where it was (`nohup`).
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            hangup = getattr(signal, "SIGHUP", None)
            ignored = hangup is not None and signal.getsignal(hangup) == signal.SIG_IGN
            for number in (signal.SIGINT, signal.SIGTERM, *([hangup] if hangup is not None and not ignored else [])):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise Interrupted("stopped at once, after the last checkpoint that was written")
        self.requested = True
