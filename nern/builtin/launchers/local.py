"""The launcher `local`: processes on this machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import attrs
import torch

from nern import Job, JobEnd, LaunchedJobs, Launcher, TrainingError, at_least, hookimpl, option
from nern.toolkit.commands import PARENT


@attrs.frozen
class Local(Launcher):
    """Runs processes on this machine, which share its threads and take one GPU each.

    The GPUs are those of CUDA_VISIBLE_DEVICES, or all. With fewer GPUs than simultaneous runs, several runs share one.
    """

    threads: int | None = option(
        None, help="CPU threads of a run; null divides those of this process by the number of runs at a time", check=at_least(1)
    )

    def start(self, folder: Path) -> LaunchedJobs:
        return _Processes(self.jobs, self.threads or max(1, torch.get_num_threads() // self.jobs), _gpus())


@attrs.define(eq=False)
class _Started:
    process: subprocess.Popen[bytes]
    slot: int


class _Processes(LaunchedJobs):
    def __init__(self, jobs: int, threads: int, gpus: list[str]) -> None:
        self._free = list(range(jobs))
        self._threads, self._gpus = threads, gpus
        self._running: list[_Started] = []

    def submit(self, job: Job) -> _Started:
        slot = self._free.pop(0)
        environment = {"OMP_NUM_THREADS": str(self._threads), "MKL_NUM_THREADS": str(self._threads), PARENT: str(os.getpid())}
        if self._gpus and job.takes_gpu:
            environment["CUDA_VISIBLE_DEVICES"] = self._gpus[slot % len(self._gpus)]
        try:
            with job.log.open("ab") as log:
                # A session of its own: Ctrl-C at the terminal reaches the sweep alone, which then asks its runs to stop
                process = subprocess.Popen(
                    job.command, cwd=job.folder, env={**os.environ, **environment, **job.environment}, stdin=subprocess.DEVNULL,
                    stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            self._free.insert(0, slot)
            raise TrainingError(f"cannot start {job.command[0]} for {job.name} ({error.strerror or error})") from error
        started = _Started(process, slot)
        self._running.append(started)
        return started

    def poll(self, handle: _Started) -> JobEnd | None:
        code = handle.process.poll()
        if code is None:
            return None
        if handle in self._running:
            self._running.remove(handle)
            self._free.append(handle.slot)
            self._free.sort()
        return JobEnd(code)

    def cancel(self, handle: _Started) -> None:
        handle.process.terminate()

    def close(self) -> None:
        for started in self._running:
            started.process.kill()
        for started in self._running:
            started.process.wait()
        self._running = []


def _gpus() -> list[str]:
    """The names of the GPUs of this process, as CUDA_VISIBLE_DEVICES writes them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip() and name.strip() != "-1"]
    return [str(index) for index in range(torch.cuda.device_count())]


@hookimpl
def nern_launchers() -> Mapping[str, type[Launcher]]:
    return {"local": Local}
