"""Turns Ctrl-C, SIGTERM, SIGHUP and the end of the parent process into a request to stop at the next step."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

from nern.errors import Interrupted
from nern.launching import PARENT

WATCH_EVERY = 1.0  # seconds between checks of the process that started this one


class StopRequest:
    """Turns the first Ctrl-C, SIGTERM or SIGHUP into a request to stop at the next step; a second Ctrl-C stops at once.

    SIGHUP, which a closed terminal sends, stays ignored where it was ignored (`nohup`). Where torchrun or a sweep started this
    process, the end of that parent is a request, too: otherwise an abandoned run would write into a folder in which another one may
    be started.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}
        self._ended = threading.Event()

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            hangup = getattr(signal, "SIGHUP", None)
            ignored = hangup is not None and signal.getsignal(hangup) == signal.SIG_IGN
            for number in (signal.SIGINT, signal.SIGTERM, *([hangup] if hangup is not None and not ignored else [])):
                self._before[number] = signal.signal(number, self._ask)
        starter = started_by()
        if starter is not None:
            threading.Thread(target=self._watch, args=(starter,), daemon=True, name="nern-starter").start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise Interrupted("stopped at once, after the last checkpoint that was written")
        self.requested = True

    def _watch(self, starter: int) -> None:
        while not self._ended.is_set():
            if has_ended(starter):
                self.requested = True
                return
            self._ended.wait(WATCH_EVERY)


def started_by() -> int | None:
    """The id of the process whose end must end this run, which is the sweep's or torchrun's; None where nobody supervises the run."""
    if os.name != "posix":  # on Windows the parent's id does not change when the parent ends
        return None
    named = os.environ.get(PARENT, "")
    if named.isdigit():
        return int(named)
    return _PARENT_AT_START if "TORCHELASTIC_RUN_ID" in os.environ else None


def has_ended(starter: int) -> bool:
    """Whether a process that started this one, directly or through other processes, has ended."""
    if starter == _PARENT_AT_START:
        return os.getppid() != starter
    try:
        os.kill(starter, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


_PARENT_AT_START = os.getppid()
