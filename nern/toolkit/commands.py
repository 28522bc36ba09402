"""Commands of jobs, for launchers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nern.launching import PARENT as PARENT
from nern.launching import Job


def command_runner(job: Job, stop: Path) -> Callable[[], int]:
    """A function without arguments that runs a job's command and returns its exit code; it works in any process.

    Libraries that send functions to other processes send this one whole: it needs nothing but Python's own modules there. While
    the command runs it looks whether the file `stop` is there and then sends SIGTERM, on whichever machine it is.

    Args:
        stop: a file on a disk that both machines see; it asks the command to stop.
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
        except BaseException:  # interrupted from outside
            process.terminate()
            process.wait()
            raise
        return int(process.returncode)

    return run
