"""Processes that are forked from this one, with everything imported, report in lines, and can be killed."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

WAIT_SECONDS = 100  # longest time to wait for a line, since other processes may occupy the machine


class Child:
    """A forked process; what it prints is thrown away.

    Args:
        work: called in the child with a stream whose lines the parent reads; the child ends with 0 after it, or with 1 where it raises.
    """

    def __init__(self, work: Callable[[TextIO], object]) -> None:
        reading, writing = os.pipe()
        self.process = os.fork()
        if self.process == 0:
            code = 1
            with contextlib.suppress(BaseException):
                os.close(reading)
                silence = os.open(os.devnull, os.O_WRONLY)
                os.dup2(silence, 1)
                os.dup2(silence, 2)
                work(os.fdopen(writing, "w", buffering=1))
                code = 0
            os._exit(code)
        os.close(writing)
        self._lines = os.fdopen(reading, "rb", buffering=0)
        self._waiting = selectors.DefaultSelector()
        self._waiting.register(self._lines, selectors.EVENT_READ)

    def line(self, seconds: float) -> bytes | None:
        """The next line of the report, empty where the process ended; None where it computes for more than `seconds` or waits too long."""
        began, before = time.monotonic(), self.computed()
        while not self._waiting.select(1):
            if self.computed() - before > seconds or time.monotonic() - began > max(seconds, WAIT_SECONDS):
                return None
        return self._lines.readline()

    def computed(self) -> float:
        """Processor seconds of the process so far, as Linux counts them."""
        fields = Path(f"/proc/{self.process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def ended(self) -> bool:
        """Whether the process has ended, by itself or killed, and waits for `wait`."""
        return Path(f"/proc/{self.process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"

    def kill(self) -> None:
        """Send SIGKILL."""
        os.kill(self.process, signal.SIGKILL)

    def wait(self) -> tuple[int, float]:
        """Wait for the end; returns the exit code, which is minus the signal where one ended the process, and its processor seconds."""
        _, status, used = os.wait4(self.process, 0)
        self._waiting.close()
        self._lines.close()
        return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime
