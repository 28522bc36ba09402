"""Runs long jobs on several threads, which report their progress and can be cancelled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import torch

T = TypeVar("T")


class Cancelled(Exception):
    """Raised inside a cancelled job."""


class _Progress:
    def __init__(self) -> None:
        self.done, self.cancelled = 0, False
        self._lock = threading.Lock()

    def add(self, units: int) -> None:
        with self._lock:
            self.done += units


_progress: ContextVar[_Progress | None] = ContextVar("progress", default=None)


def advance(units: int) -> None:
    """Report that `units` more of a job are done; raises an exception where the job was cancelled.

    Raises:
        Cancelled: another job raised an error, or `report` of `in_parallel` did.
    """
    progress = _progress.get()
    if progress is not None:
        progress.add(units)
        if progress.cancelled:
            raise Cancelled


def in_parallel(jobs: Sequence[Callable[[], T]], report: Callable[[int], None] | None = None, every: float = 0.2) -> list[T]:
    """Run jobs on as many threads as torch uses; returns their results in order.

    Args:
        report: called from this thread with the units done so far, every `every` seconds and at the end. An exception from it,
            Ctrl-C, or an error in a job ends all jobs at their next `advance`.
    """
    progress = _Progress()

    def run(job: Callable[[], T]) -> T:
        with _counting(progress):
            return job()

    with ThreadPoolExecutor(max(1, min(len(jobs), torch.get_num_threads()))) as pool:
        futures = [pool.submit(run, job) for job in jobs]
        try:
            waiting = set(futures)
            while waiting:
                finished, waiting = wait(waiting, timeout=every, return_when=FIRST_EXCEPTION)
                for future in finished:
                    future.result()
                if report is not None:
                    report(progress.done)
        except BaseException:
            progress.cancelled = True
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [future.result() for future in futures]


@contextmanager
def with_threads(number: int | None) -> Iterator[None]:
    """Let torch compute on so many CPU threads while a block runs; with None, on as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _counting(progress: _Progress) -> Iterator[None]:
    token = _progress.set(progress)
    try:
        yield
    finally:
        _progress.reset(token)
