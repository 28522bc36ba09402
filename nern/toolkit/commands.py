"""Runs the commands of jobs, for launchers."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from nern.launching import PARENT as PARENT
from nern.launching import Job


class Commands:
    """The commands of a sweep's jobs as functions, each with a file that asks its command to stop.

    Args:
        folder: where these files are made, on a disk that all machines see; files of an earlier sweep are removed.
        threads: CPU threads that each command may use.

    Raises:
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        self._folder, self._numbers = folder, itertools.count()
        self._environment = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob("*.stop"):
            leftover.unlink()

    def runner(self, job: Job) -> tuple[Callable[[], int], Path]:
        """A function that runs a job's command (see `command_runner`), and the file that asks it to stop."""
        stop = self._folder / f"{next(self._numbers)}.stop"
        return command_runner(attrs.evolve(job, environment={**self._environment, **job.environment}), stop), stop


def command_runner(job: Job, stop: Path) -> Callable[[], int]:
    """A function without arguments that runs a job's command and returns its exit code; it works in any process.

    Libraries that send functions to other processes can send this one by value: it needs only Python's own modules there. While the
    command runs, it checks whether the file `stop` exists, on whichever machine it runs, and then sends SIGTERM to the command.

    Args:
        stop: a file on a disk that both machines see; its existence asks the command to stop.
    """
    command, folder, log, stop_file = list(job.command), str(job.folder), str(job.log), str(stop)
    environment, parent = dict(job.environment), PARENT
    if "PYTHONPATH" in os.environ:
        environment.setdefault("PYTHONPATH", os.environ["PYTHONPATH"])

    def run() -> int:
        import os
        import subprocess
        import time

        if os.path.exists(stop_file):
            return 130
        with open(log, "ab") as output:
            process: Any = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                env={**os.environ, **environment, parent: str(os.getpid())},
            )  # fmt: skip
        try:
            while process.poll() is None:
                if os.path.exists(stop_file):
                    process.terminate()
                    process.wait()
                time.sleep(0.1)
        except BaseException:  # the wait was interrupted from outside
            process.terminate()
            process.wait()
            raise
        return int(process.returncode)

    return run
