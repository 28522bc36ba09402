"""The plan of a run: which layers are represented and which entries copied, bytes before and after, and an estimate of the time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from nern.artifact.artifact import Artifact, Bytes
from nern.config.experiment import Experiment
from nern.interfaces import Data, Task
from nern.run.evaluation import Comparison, Score, measures_of
from nern.run.loop import start_phase
from nern.run.original import Original
from nern.support.messages import some
from nern.training.step import StepContext

TRIAL_STEPS = 3  # trial steps of each phase; the first one is not timed


@attrs.frozen
class Plan:
    """The plan of a run, made before its first step."""

    network: str
    represented: dict[str, int]
    """Parameter name → number of its weights."""
    copied: dict[str, int]
    """Name of an entry of the state dict → how many numbers it has."""
    predictor: str
    bytes: Bytes
    """Sizes of the file; exact unless the number format is `entropy`."""
    seconds: float
    """Estimated training time on this machine, from a few trial steps of each phase."""
    original: Score | None
    """Figures of the original network on the test images; None where there are none."""
    notes: Sequence[str] = ()
    """Further remarks that a user should read before the run."""

    @property
    def lines(self) -> list[str]:
        """The plan as lines of text."""
        own, rest = sum(self.represented.values()), sum(self.copied.values())
        largest = sorted(self.copied, key=lambda name: -self.copied[name])
        share = 100 * own / max(1, own + rest)
        sizes = self.bytes
        lines = [
            f"{self.network}: {len(self.represented)} layers with {own:,} weights are represented ({share:.1f} %)",
            f"copied as they are: {rest:,} numbers, of which most in {some(largest)}" if rest else "nothing is copied",
            f"predictor: {self.predictor}",
            f"bytes: {sizes.original:,} before, {sizes.total:,} after ({sizes.original / sizes.total:.1f} times smaller)",
            f"time: about {duration(self.seconds)} here",
        ]
        if self.original is not None:
            name, value = self.original.headline
            figure = "not measured: there are no labels" if value is None else f"{name} {value:.4g}"
            lines.insert(0, f"original network on {self.original.images:,} test images: {figure}")
        return [*lines, *self.notes]

    def to_dict(self) -> dict[str, Any]:
        """The plan as values for JSON."""
        return {
            **attrs.asdict(self, recurse=False),
            "bytes": attrs.asdict(self.bytes),
            "original": self.original and self.original.to_dict(),
        }

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def _repr_html_(self) -> str:
        from html import escape

        return "<br>".join(map(escape, self.lines))


def make_plan(
    experiment: Experiment, original: Original, context: StepContext, artifact: Artifact, open_task: Callable[[Task], Data]
) -> Plan:
    """The plan of a run.

    Args:
        artifact: an artifact with an untrained representation, which trial steps change.
        open_task: function that opens the images of a task.
    """
    data = open_task(experiment.task)
    comparison = None
    if "test" in data.splits:
        comparison = Comparison(original.network, data, "test", context.device, experiment.task.outputs(), measures_of(experiment)).original
    layers, entries = original.grid.layers, artifact.entries
    sizes = artifact.bytes()
    seconds = 0.0
    for index, phase in enumerate(experiment.phases):
        trainer = start_phase(experiment, phase, index, context, open_task)
        trainer.step(0)
        began = time.perf_counter()
        for step in range(1, TRIAL_STEPS):
            trainer.step(step)
        seconds += (time.perf_counter() - began) / (TRIAL_STEPS - 1) * phase.iterations
    options = {name: value for name, value in attrs.asdict(experiment.predictor).items() if name in ("hidden", "layers", "activation")}
    described = ", ".join(f"{name} {value}" for name, value in options.items())
    based = "" if context.representation.base is None else f" on {type(experiment.base).__name__}"
    name = getattr(experiment.architecture, "network", None) or type(original.network).__name__
    return Plan(
        name,
        {layer.parameter: math.prod(layer.shape) for layer in layers},
        {entry.name: entry.numel for entry in entries if entry.layer is None},
        f"{type(experiment.predictor).__name__} ({described}){based}, storage {experiment.storage}",
        sizes,
        seconds,
        comparison,
    )


def duration(seconds: float) -> str:
    """A duration as text: `40 seconds`, `3 minutes`, `2.5 hours`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
