"""The interface of launchers, which start the runs of a sweep, and the jobs that they start.

A run is a command, `nern train` with the run's resolved configuration. A launcher starts such commands somewhere (on this machine,
in the queue of a cluster), reports when each has ended, and stops those that are no longer wanted.
"""

from __future__ import annotations

import signal
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from nern.options import at_least, option

#: The environment variable that names the process whose end ends a run, by its number; the run then leaves a checkpoint.
PARENT = "NERN_STOP_WITH_PROCESS"


@attrs.frozen
class Job:
    """A run that a sweep hands to a launcher."""

    name: str
    """Name of the run; unique among the jobs that run at the same time."""
    command: tuple[str, ...]
    """Program and arguments; exit code 0 says that the run is finished."""
    folder: Path
    """The working directory."""
    log: Path
    """The file to which the command's output is appended."""
    device: str = "auto"
    """The run's option `device`."""
    environment: Mapping[str, str] = attrs.field(factory=dict)
    """Environment variables for the command, besides those of this process."""

    @property
    def takes_gpu(self) -> bool:
        """Whether the launcher may choose a GPU for the run: with "cpu" the run needs none, and with "cuda:1" it has its own."""
        return self.device in ("auto", "cuda")


@attrs.frozen
class JobEnd:
    """How a job ended."""

    code: int | None
    """The exit code; minus the signal's number where a signal ended the job; None where the launcher lost the job."""
    reason: str = ""
    """What the launcher knows about how the job ended, as text."""

    @property
    def killed(self) -> bool:
        """Whether the job was ended from outside: by a signal, a lost machine, or a request to stop."""
        return self.code is None or self.code < 0 or self.code in (130, 137, 143)

    def __str__(self) -> str:
        if self.reason:
            return self.reason
        if self.code is None:
            return "it was lost"
        if self.code < 0:
            names = {member.value: member.name for member in signal.Signals}
            return f"it was killed ({names.get(-self.code, f'signal {-self.code}')})"
        return f"it ended with exit code {self.code}"


class LaunchedJobs(ABC):
    """The jobs of one sweep that a launcher has started. The other methods take the handle that `submit` returns."""

    @abstractmethod
    def submit(self, job: Job) -> Any:
        """Start a job, or put it into a queue.

        Raises:
            NernError: the job cannot be started; the message says why.
        """

    @abstractmethod
    def poll(self, handle: Any) -> JobEnd | None:
        """How a job ended, or None while it waits or runs. Returns at once."""

    @abstractmethod
    def cancel(self, handle: Any) -> None:
        """Ask a job to stop, and return at once. The run is sent SIGTERM, writes a checkpoint and ends, which `poll` then reports."""

    @abstractmethod
    def close(self) -> None:
        """End all jobs that still run, without waiting for checkpoints, and release all resources."""


@attrs.frozen
class Launcher(ABC):
    """Starts the runs of a sweep somewhere."""

    jobs: int = option(1, help="runs at a time", check=at_least(1))

    @abstractmethod
    def start(self, folder: Path) -> LaunchedJobs:
        """Get ready to start jobs.

        Args:
            folder: the sweep's folder; the launcher keeps its own files in a folder below it.

        Raises:
            PluginError: a package that the launcher needs is missing.
        """
