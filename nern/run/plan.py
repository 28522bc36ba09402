"""The plan of a run: which layers are represented and which entries copied, bytes before and after, and an estimate of the time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import attrs
import torch

from nern.artifact.artifact import Artifact, Bytes
from nern.config.experiment import Experiment
from nern.interfaces import Data, Task
from nern.kernels.orders import Unordered
from nern.representation.entropy import is_coded
from nern.run.evaluation import Comparison, Score, measures_of
from nern.run.original import Original
from nern.run.packing import room_for_codes
from nern.run.step_time import step_time
from nern.support.messages import some
from nern.training.coding import IMAGES, start_coding
from nern.training.step import StepContext

TRIAL_SECONDS = 20.0  # for the trial steps of all phases together, about
MEASURING_SECONDS = 15.0  # for the original network on the test images
MEASURED_AT_A_TIME = 64  # images of a batch
LONG = 3600.0  # seconds of training; the plan of a longer run says what makes it shorter


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
    """Sizes of the file, which may become a little smaller; of entropy-coded numbers an estimate."""
    seconds: float
    """Estimated training time on this machine, from a few trial steps of each phase."""
    original: Score | None
    """Figures of the original network on the test images, as many as there is time for; None where there are none."""
    notes: Sequence[str] = ()
    """Further remarks that a user should read before the run."""
    phases: Mapping[str, float] = attrs.field(factory=dict)
    """Name of a phase → its estimated seconds."""
    extrapolated: Sequence[str] = ()
    """How the time of a phase was estimated whose whole steps would have taken too long to try."""
    whole: bool = True
    """Whether the original network was measured on all test images."""
    ordered: bool = True
    """Whether the kernels are ordered, which takes more time."""

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
            f"bytes: {sizes.change}",
            f"time: about {duration(self.seconds)} here{self._parts()}{', besides ordering the kernels' if self.ordered else ''}",
            *self.extrapolated,
        ]
        if self.original is not None:
            name, value = self.original.headline
            figure = "not measured: there are no labels" if value is None else f"{name} {value:.4g}"
            examples = (
                f"{self.original.images:,} test examples" if self.whole else f"the first {self.original.images:,} test examples alone"
            )
            lines.insert(0, f"original network on {examples}: {figure}")
        return [*lines, *self.notes]

    def _parts(self) -> str:
        """`, of which 2 hours distillation`: where a run takes long, what most of it is."""
        longest = max(self.phases, key=lambda name: self.phases[name], default="")
        if len(self.phases) < 2 or self.seconds < LONG:
            return ""
        return f", of which {duration(self.phases[longest])} {longest}"

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
    score, timed = None, TimedData(data, MEASURING_SECONDS)
    if "test" in data.splits:
        score = Comparison(original.network, timed, "test", context.device, experiment.task.outputs(), measures_of(experiment)).original
    layers, entries = original.grid.layers, artifact.entries
    representation, sizes = context.representation, artifact.bytes()
    seconds, extrapolated = dict[str, float](), list[str]()
    for index, phase in enumerate(experiment.phases):
        measured = 0.0  # steps that measuring the curvature takes as long as
        if representation.storage.is_coded and experiment.counts_bits(phase) and not is_coded(representation):
            if experiment.runs_networks(phase):
                measured = experiment.curvature_batches * min(IMAGES, phase.batch) / phase.batch
            start_coding(context, None, 0, room_for_codes(experiment, original, representation, artifact.registry))
            sizes = artifact.bytes()
        step, how = step_time(experiment, phase, index, context, open_task, TRIAL_SECONDS / len(experiment.phases))
        seconds[phase.name] = seconds.get(phase.name, 0.0) + step * (phase.iterations + measured)
        extrapolated += [f"a step of {phase.name} takes about {duration(step)}, as far as can be told from {how}"] if how else []
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
        sum(seconds.values()),
        score,
        _notes(experiment, seconds),
        seconds,
        extrapolated,
        timed.whole,
        not all(isinstance(order, Unordered) for order in original.orders),
    )


class TimedData(Data):
    """A task's data, of whose splits only as many examples are given as there is time for."""

    def __init__(self, data: Data, seconds: float) -> None:
        self._data, self._seconds = data, seconds
        self.classes, self.splits = data.classes, data.splits
        self.whole = True  # whether every split that was asked for was given to its end

    def inputs(self, batch: int, seed: int, device: torch.device) -> Callable[[int], Any]:
        return self._data.inputs(batch, seed, device)

    def batches(self, split: Literal["heldout", "test"], batch: int, device: torch.device) -> Iterator[tuple[Any, Any]]:
        """Some batches, the first one always."""
        until, given = time.monotonic() + self._seconds, False
        for pair in self._data.batches(split, min(batch, MEASURED_AT_A_TIME), device):
            if given and time.monotonic() > until:
                self.whole = False
                return
            yield pair
            given = True


def _notes(experiment: Experiment, seconds: Mapping[str, float]) -> list[str]:
    """What makes a run shorter that takes hours."""
    if sum(seconds.values()) < LONG:
        return []
    longest = max(seconds, key=lambda name: seconds[name])
    phase = next(phase for phase in experiment.phases if phase.name == longest)
    images = f"; phases.{longest}.batch={max(1, phase.batch // 8)} takes fewer images a step" if experiment.runs_networks(phase) else ""
    recipe = "" if experiment.storage == "entropy" else "; recipe='small' (--recipe small) makes steps that run the networks alone"
    return [f"shorter: steps=0.1 (--steps 0.1) is a tenth of every phase{images}{recipe}; a GPU is used where there is one"]


def duration(seconds: float) -> str:
    """A duration as text: `0.25 seconds`, `40 seconds`, `3 minutes`, `2.5 hours`."""
    if 0 < seconds < 1:
        return f"{seconds:.2g} seconds"
    if seconds < 90:
        return f"{max(1, round(seconds))} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
