"""Checks a launcher."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nern.interfaces import Launcher
from nern.launching import Job, JobEnd, LaunchedJobs
from nern.testing.assertions import expect
from nern.testing.options import check_options

PATIENCE = 120.0  # seconds after which a job that has not reacted counts as lost
STOPPABLE = """
import pathlib, signal, sys, time
def stop(*_):
    pathlib.Path(sys.argv[2]).write_text("stopped")
    sys.exit(130)
signal.signal(signal.SIGTERM, stop)
pathlib.Path(sys.argv[1]).write_text("started")
time.sleep(600)
"""


def check_launcher(launcher: Launcher) -> None:
    """Check that commands run in the folder and environment that a job names, exit codes are reported, and jobs stop on request."""
    check_options("launcher", launcher)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        launched = launcher.start(folder)
        expect(isinstance(launched, LaunchedJobs), f"start() must return nern.LaunchedJobs, returns {type(launched).__name__}")
        try:
            _check_ends(launched, folder)
            _check_cancelled(launched, folder)
        finally:
            launched.close()


def _check_ends(launched: LaunchedJobs, folder: Path) -> None:
    (folder / "work").mkdir()
    code = "import os, sys; print('printed', os.environ['NERN_CHECK'], os.path.basename(os.getcwd())); sys.exit(3)"
    log = folder / "log.txt"
    log.write_text("before\n")
    job = Job("ends", (sys.executable, "-c", code), folder / "work", log, "cpu", {"NERN_CHECK": "variable"})
    end = _until(launched, launched.submit(job), "a command that prints and exits")
    expect(end.code == 3, f"a command that exits with 3 ended as {end} (code {end.code})")
    text = log.read_text()
    expect("printed variable work" in text, f"the log does not hold what the command printed in its folder, but {text!r}")
    expect(text.startswith("before"), "the log of earlier tries is overwritten; append to it")
    good = Job("good", (sys.executable, "-c", ""), folder, log, "cpu")
    end = _until(launched, launched.submit(good), "a command that does nothing")
    expect(end.code == 0, f"a command that ends well ended as {end} (code {end.code})")


def _check_cancelled(launched: LaunchedJobs, folder: Path) -> None:
    started, stopped = folder / "started", folder / "stopped"
    command = (sys.executable, "-c", STOPPABLE, str(started), str(stopped))
    handle = launched.submit(Job("stopped", command, folder, folder / "stopped.txt", "cpu"))
    _wait(started.exists, "a job that was submitted does not start")
    expect(launched.poll(handle) is None, "a job that runs has ended, poll() says")
    launched.cancel(handle)
    _until(launched, handle, "a job that was cancelled")
    expect(stopped.exists(), "a cancelled job was killed; it must be sent SIGTERM first, so that a run leaves a checkpoint")


def _until(launched: LaunchedJobs, handle: Any, what: str) -> JobEnd:
    ends: list[JobEnd] = []

    def ended() -> bool:
        end = launched.poll(handle)
        ends.extend([end] if end is not None else [])
        return end is not None

    _wait(ended, f"{what} does not end: poll() says None for {PATIENCE:g} s")
    return ends[0]


def _wait(happened: Callable[[], bool], problem: str) -> None:
    until = time.monotonic() + PATIENCE
    while not happened():
        expect(time.monotonic() < until, problem)
        time.sleep(0.05)
