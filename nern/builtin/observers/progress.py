"""Shows the progress of a run: a bar on a terminal and in a notebook, otherwise a line on stderr every few seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Column

from nern import Observer, above, hookimpl, option
from nern.toolkit.notebooks import NotebookBar, in_notebook

SPLITS = {"heldout": "held-out"}


@attrs.frozen
class _Span:
    """The steps of one phase: from `first` + 1 to `last`."""

    name: str
    first: int
    last: int
    place: str = ""  # such as "1 of 2"; empty where the run has one phase


@attrs.define
class _State:
    bar: Progress | None = None
    task: TaskID | None = None
    notebook: NotebookBar | None = None
    unit: str = "step"
    spans: list[_Span] = attrs.field(factory=list)
    span: _Span | None = None  # the phase that is running
    started: float = 0.0  # time of the phase's first report, or of the run's start
    first: int = 0  # step at that time
    latest: tuple[float, int] = (0.0, 0)  # time and step of the last report
    shown: float = float("-inf")


@attrs.frozen
class ProgressBar(Observer):
    """A progress bar for each phase with losses, steps a second and the time left in it; plain lines outside terminals and notebooks."""

    every: float = option(5.0, help="seconds between two lines where there is neither terminal nor notebook", check=above(0))
    _state: _State = attrs.field(init=False, factory=_State, eq=False, repr=False)

    @hookimpl
    def nern_run_started(self, run_dir: Path, config: dict[str, Any], iteration: int, total: int, unit: str) -> None:
        self._finish()
        state = self._state
        state.unit, state.span, state.latest, state.shown = unit, None, (time.monotonic(), iteration), float("-inf")
        state.spans = [_Span("pretrain", 0, total)] if unit == "epoch" else _spans(config.get("phases", []))
        if in_notebook():
            state.notebook = NotebookBar()
        what = "training the original network" if unit == "epoch" else f"run {run_dir}"
        self._say(f"{what}: {unit} {iteration} of {total}")
        if state.notebook is None and sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}", table_column=Column(no_wrap=True)),
                BarColumn(bar_width=None, table_column=Column(min_width=8, max_width=40, ratio=1)),
                MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=2 * len(str(total)) + 1)),
                TextColumn("{task.fields[left]}", table_column=Column(no_wrap=True)),
                TextColumn("{task.fields[losses]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=3)),
            )
            state.bar = Progress(*columns, console=Console(stderr=True), expand=True)
            state.task = state.bar.add_task("starting", total=None, completed=0, losses="", left="")
            state.bar.start()

    @hookimpl
    def nern_ordering(self, done: int, total: int) -> None:
        if done and time.monotonic() - self._state.shown >= self.every:  # without an ordering nothing is ever done
            self._state.shown = time.monotonic()
            self._say(f"ordering: {done:,} of {total:,} kernels")

    @hookimpl
    def nern_original_measured(self, split: str, images: int, metrics: dict[str, float]) -> None:
        self._state.latest = time.monotonic(), self._state.latest[1]  # the first phase begins after it
        if metrics:
            self._say(
                f"original on {images:,} {SPLITS.get(split, split)} examples: "
                + "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
            )

    @hookimpl
    def nern_step(self, phase: str, iteration: int, total: int, losses: dict[str, float]) -> None:
        state = self._state
        span = next((span for span in state.spans if span.first < iteration <= span.last), None) or _Span(phase, 0, total)
        if state.span != span:  # steps of different phases take different times
            state.span, (state.started, state.first) = span, state.latest
        state.latest = time.monotonic(), iteration
        rate = (iteration - state.first) / max(state.latest[0] - state.started, 1e-9)
        left = f"{_duration((span.last - iteration) / max(rate, 1e-9))} left"
        speed = f"{rate:.1f} {state.unit}s/s" if rate >= 0.1 else f"{1 / max(rate, 1e-9):.0f} s/{state.unit}"
        terms = "  ".join(f"{name} {value:.4g}" for name, value in losses.items())
        done, length = iteration - span.first, span.last - span.first
        if state.bar is not None and state.task is not None:
            name = f"{phase} ({span.place})" if span.place else f"{phase}, {state.unit}"
            state.bar.update(state.task, completed=done, total=length, description=name, left=left, losses=f"{speed}  {terms}")
        elif state.notebook is not None:
            name = f"{phase} ({span.place})" if span.place else phase
            state.notebook.update(f"{name}, {left}  {speed}  {terms}", done, length)
        elif time.monotonic() - state.shown >= self.every or iteration == span.last:
            state.shown = time.monotonic()
            place = f", phase {span.place}" if span.place else ""
            self._say(f"{phase}{place}: {state.unit} {done} of {length}  {speed}  {left}{' in this phase' if span.place else ''}  {terms}")

    @hookimpl
    def nern_measuring(self, phase: str, iteration: int, split: str) -> None:
        state = self._state
        what = f"measuring the {SPLITS.get(split, split)} examples"
        if state.bar is not None and state.task is not None:
            state.bar.update(state.task, description=what, left="", losses="")
        elif state.notebook is not None:
            state.notebook.update(what, 0, None)
        elif split == "test":
            self._say(f"{what}: {'the original network' if phase == 'original' else f'the network of step {iteration}'}")

    @hookimpl
    def nern_evaluated(self, iteration: int, split: str, metrics: dict[str, float]) -> None:
        self._state.latest = time.monotonic(), iteration  # what ends a phase is no part of the next one
        figures = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        self._say(f"{SPLITS.get(split, split)} examples at step {iteration}: {figures}")

    @hookimpl
    def nern_run_finished(self) -> None:
        self._finish()

    def _finish(self) -> None:
        if self._state.bar is not None:
            self._state.bar.stop()
            self._state.bar = None
        if self._state.notebook is not None:
            self._state.notebook.stop()
            self._state.notebook = None

    def _say(self, text: str) -> None:
        if self._state.bar is not None:
            self._state.bar.console.print(text, markup=False, highlight=False)
        elif self._state.notebook is not None:
            self._state.notebook.say(text)
        else:
            print(text, file=sys.stderr, flush=True)


def _spans(phases: list[dict[str, Any]]) -> list[_Span]:
    """The steps of each phase of a configuration."""
    spans: list[_Span] = []
    for number, phase in enumerate(phases, start=1):
        first = spans[-1].last if spans else 0
        place = f"{number} of {len(phases)}" if len(phases) > 1 else ""
        spans.append(_Span(str(phase.get("name", "")), first, first + int(phase.get("iterations", 0)), place))
    return spans


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@hookimpl
def nern_observers() -> Mapping[str, type[Observer]]:
    return {"progress": ProgressBar}
