"""The launcher `ray`: a cluster of Ray."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from nern import Job, JobEnd, LaunchedJobs, Launcher, TrainingError, above, at_least, hookimpl, option
from nern.toolkit.commands import Commands
from nern.toolkit.optional import import_optional


@attrs.frozen
class Ray(Launcher):
    """Tasks of a Ray cluster; the extra `ray` installs it.

    Without an address, a cluster of this machine alone is started for the sweep and stopped at its end. The machines of a larger
    cluster see the sweep's folder, the data and this Python under the same paths.
    """

    address: str | None = option(None, help='a running cluster, such as "auto" or "ray://head:10001"; null starts one for the sweep')
    cpus: int = option(1, help="processor cores of a run, and its threads", check=at_least(1))
    gpus: float = option(0.0, help="GPUs of a run; 0.5 lets two runs share one", check=at_least(0))
    memory: float | None = option(None, help="memory of a run in GB; null reserves none", check=above(0))

    def start(self, folder: Path) -> LaunchedJobs:
        return _Tasks(self, folder / "ray")


@attrs.define(eq=False)
class _Task:
    reference: Any
    stop: Path


class _Tasks(LaunchedJobs):
    def __init__(self, options: Ray, folder: Path) -> None:
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a task without a GPU sees what this process sees
        self._ray = import_optional("ray", "ray", "the launcher ray")
        self._options, self._commands = options, Commands(folder, options.cpus)
        self._running: list[_Task] = []
        cores = {} if options.address else {"num_cpus": max(options.jobs * options.cpus, os.cpu_count() or 1)}
        try:
            self._ray.init(
                address=options.address or "local", include_dashboard=None if options.address else False, log_to_driver=False,
                configure_logging=False, logging_level=logging.ERROR, **cores,
            )  # fmt: skip
        except Exception as error:
            raise TrainingError(f"the launcher ray cannot reach or start a cluster ({error}); see launcher.address") from error

    def submit(self, job: Job) -> _Task:
        runner, stop = self._commands.runner(job)
        needs: dict[str, Any] = {"num_cpus": self._options.cpus, "num_gpus": self._options.gpus, "max_retries": 0}
        if self._options.memory:
            needs["memory"] = int(self._options.memory * 1e9)
        task = _Task(self._ray.remote(**needs)(runner).remote(), stop)
        self._running.append(task)
        return task

    def poll(self, handle: _Task) -> JobEnd | None:
        ready, _ = self._ray.wait([handle.reference], timeout=0)
        if not ready:
            return None
        if handle in self._running:
            self._running.remove(handle)
        try:
            return JobEnd(int(self._ray.get(handle.reference)))
        except Exception as error:  # the worker or its machine died
            return JobEnd(None, f"the cluster lost it ({(str(error).splitlines() or [type(error).__name__])[0]})")

    def cancel(self, handle: _Task) -> None:
        handle.stop.touch()

    def close(self) -> None:
        for task in self._running:
            task.stop.touch()
            self._ray.cancel(task.reference, force=True)
        self._running = []
        self._ray.shutdown()


@hookimpl
def nern_launchers() -> Mapping[str, type[Launcher]]:
    return {"ray": Ray}
