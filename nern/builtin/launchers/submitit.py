"""The launcher `submitit`: the queue of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import attrs

from nern import Job, JobEnd, LaunchedJobs, Launcher, TrainingError, above, at_least, hookimpl, option
from nern.toolkit.commands import Commands
from nern.toolkit.optional import import_optional


@attrs.frozen
class Submitit(Launcher):
    """Jobs in the queue of a cluster (Slurm), by submitit; the extra `submitit` installs it.

    The machines of the cluster see the sweep's folder, the data and this Python under the same paths. The cluster ends a run that
    reaches its time limit; the sweep then starts it again, and it resumes from its checkpoint.
    """

    cluster: Literal["auto", "slurm", "local"] = option(
        "auto", help="auto takes Slurm where its commands are, and processes on this machine otherwise"
    )
    minutes: int = option(24 * 60, help="time limit of a run, in minutes", check=above(0))
    cpus: int = option(1, help="processor cores of a run, and its threads", check=at_least(1))
    gpus: int = option(0, help="GPUs of a run", check=at_least(0))
    memory: float | None = option(None, help="memory of a run in GB; null leaves it to the cluster", check=above(0))
    partition: str | None = option(None, help="Slurm's partition; null takes the cluster's own choice")
    more: dict[str, str] = option(factory=dict, help='further parameters of submitit, such as {"slurm_account": "vision"}')

    def start(self, folder: Path) -> LaunchedJobs:
        return _Queue(self, folder / "submitit")


@attrs.define(eq=False)
class _Queued:
    job: Any
    stop: Path


class _Queue(LaunchedJobs):
    def __init__(self, options: Submitit, folder: Path) -> None:
        submitit = import_optional("submitit", "submitit", "the launcher submitit")
        self._running: list[_Queued] = []
        parameters: dict[str, Any] = {"timeout_min": options.minutes, "cpus_per_task": options.cpus, "name": "nern"}
        parameters |= {"gpus_per_node": options.gpus} if options.gpus else {}
        parameters |= {"mem_gb": options.memory} if options.memory else {}
        parameters |= {"slurm_partition": options.partition} if options.partition else {}
        try:
            self._commands = Commands(folder, options.cpus)
            self._executor = submitit.AutoExecutor(folder / "%j", cluster=None if options.cluster == "auto" else options.cluster)
            self._executor.update_parameters(**parameters, **options.more)
        except Exception as error:  # the commands of the cluster are missing, or it has no such parameter
            raise TrainingError(f"the launcher submitit cannot start ({error}); see launcher.cluster and launcher.more") from error

    def submit(self, job: Job) -> _Queued:
        runner, stop = self._commands.runner(job)
        try:
            queued = _Queued(self._executor.submit(runner), stop)
        except Exception as error:
            raise TrainingError(f"the cluster does not take {job.name} ({error})") from error
        self._running.append(queued)
        return queued

    def poll(self, handle: _Queued) -> JobEnd | None:
        if not handle.job.done():
            return None
        if handle in self._running:
            self._running.remove(handle)
        try:
            return JobEnd(int(handle.job.result()))
        except Exception as error:  # the job has no result: it was killed, or its machine was
            return JobEnd(None, f"the cluster lost it ({handle.job.state}: {(str(error).splitlines() or [''])[0]})")

    def cancel(self, handle: _Queued) -> None:
        handle.stop.touch()
        if handle.job.state == "PENDING":
            handle.job.cancel(check=False)

    def close(self) -> None:
        for queued in self._running:
            queued.stop.touch()
            queued.job.cancel(check=False)
        self._running = []


@hookimpl
def nern_launchers() -> Mapping[str, type[Launcher]]:
    return {"submitit": Submitit}
