"""Shows how a run is doing: a bar on a terminal, a line every few seconds elsewhere. Always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path

import attrs
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from nern import Observer, above, hookimpl, option


@attrs.define
class _State:
    bar: Progress | None = None
    task: TaskID | None = None
    phase: str | None = None
    started: float = 0.0  # when this phase began
    first: int = 0  # and at which step
    latest: tuple[float, int] = (0.0, 0)  # time and step of the last report
    total: int = 0
    shown: float = float("-inf")


@attrs.frozen
class ProgressBar(Observer):
    """A progress bar with losses, steps a second and time left; plain lines where stderr is no terminal."""

    every: float = option(5.0, help="seconds between two lines where stderr is no terminal", check=above(0))
    _state: _State = attrs.field(init=False, factory=_State, eq=False, repr=False)

    @hookimpl
    def nern_run_started(self, run_dir: Path, iteration: int, total: int) -> None:
        self._finish()
        state = self._state
        state.phase, state.latest, state.total, state.shown = None, (time.monotonic(), iteration), total, float("-inf")
        self._say(f"run {run_dir}: step {iteration} of {total}")
        if sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=None, table_column=Column(min_width=8, max_width=40, ratio=1)),
                MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=2 * len(str(total)) + 1)),
                TimeRemainingColumn(table_column=Column(no_wrap=True, min_width=len("0:00:00"))),
                TextColumn("{task.fields[losses]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=3)),
            )
            state.bar = Progress(*columns, console=Console(stderr=True), expand=True)
            state.task = state.bar.add_task("training", total=total, completed=iteration, losses="")
            state.bar.start()

    @hookimpl
    def nern_ordering(self, done: int, total: int) -> None:
        if time.monotonic() - self._state.shown >= self.every:
            self._state.shown = time.monotonic()
            self._say(f"ordering: {done} of {total} kernels")

    @hookimpl
    def nern_original_measured(self, split: str, images: int, metrics: dict[str, float]) -> None:
        if metrics:
            self._say(f"original on {images} {split} images: " + "  ".join(f"{name} {value:.4g}" for name, value in metrics.items()))

    @hookimpl
    def nern_step(self, phase: str, iteration: int, losses: dict[str, float]) -> None:
        state = self._state
        if phase != state.phase:  # a step of another phase takes another time
            state.phase, (state.started, state.first) = phase, state.latest
        state.latest = time.monotonic(), iteration
        rate = (iteration - state.first) / max(state.latest[0] - state.started, 1e-9)
        terms = "  ".join(f"{name} {value:.4g}" for name, value in losses.items())
        if state.bar is not None and state.task is not None:
            state.bar.update(state.task, completed=iteration, description=phase, losses=f"{rate:.1f} steps/s  {terms}")
        elif time.monotonic() - state.shown >= self.every or iteration == state.total:
            state.shown = time.monotonic()
            left = (state.total - iteration) / max(rate, 1e-9)
            self._say(f"{phase}: step {iteration}/{state.total}  {rate:.1f} steps/s  {_duration(left)} left  {terms}")

    @hookimpl
    def nern_evaluated(self, iteration: int, split: str, metrics: dict[str, float]) -> None:
        self._say(f"{split} at step {iteration}: " + "  ".join(f"{name} {value:.4g}" for name, value in metrics.items()))

    @hookimpl
    def nern_run_finished(self) -> None:
        self._finish()

    def _finish(self) -> None:
        if self._state.bar is not None:
            self._state.bar.stop()
            self._state.bar = None

    def _say(self, text: str) -> None:
        if self._state.bar is not None:
            self._state.bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@hookimpl
def nern_observers() -> Mapping[str, type[Observer]]:
    return {"progress": ProgressBar}
