"""Targets of bytes or accuracy, and the search for a predictor size that reaches them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import attrs

from nern.config.experiment import Experiment
from nern.engine import Engine
from nern.errors import ConfigError, DataError, OptionError
from nern.registry.registry import Registry
from nern.run.evaluation import measures_of
from nern.run.results import Result

Say = Callable[[str], None]
SMALLEST, LARGEST = 4, 4096  # bounds of the hidden size
CLOSE = 0.05  # largest relative difference from the wanted bytes that counts as reached


class Target(ABC):
    """A target that a representation has to reach."""

    trains: ClassVar[bool] = False
    """Whether the size is found by training."""

    @abstractmethod
    def experiment(self, experiment: Experiment, registry: Registry, say: Say) -> Experiment:
        """The experiment with the hidden size that reaches the target, as far as can be told before the run.

        Raises:
            ConfigError: the predictor has no hidden size.
        """

    @abstractmethod
    def verdict(self, result: Result) -> str:
        """One sentence that says what was asked for and what the run reached."""


@attrs.frozen
class TargetBytes(Target):
    """A file of at most `bytes` bytes: takes the largest predictor whose file is not larger.

    Where `bytes` is more than the network's own weights take, the file gets at most their bytes, and a message says so.
    """

    bytes: int
    """Largest size of the whole file."""

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.bytes, int) or isinstance(self.bytes, bool):
            raise OptionError("bytes", f"must be a whole number such as 100_000, got {self.bytes!r}")
        if self.bytes <= 0:
            raise OptionError("bytes", f"must be > 0, got {self.bytes}")

    def experiment(self, experiment: Experiment, registry: Registry, say: Say) -> Experiment:
        most = min(self.bytes, _own_bytes(experiment, registry))
        if most < self.bytes:
            say(f"{self.bytes:,} bytes are more than the network's own weights take, {most:,}: the file gets at most these")
        if experiment.storage == "entropy":  # this format is trained towards a size
            return attrs.evolve(experiment, bytes=most)
        engine = Engine(experiment, registry)
        original = engine.prepared(roughly=True)

        def size(hidden: int) -> int:
            return Engine(with_hidden(experiment, hidden), registry).untrained(original).bytes().total

        low, high = SMALLEST, LARGEST
        smallest = size(low)
        if smallest > most:
            say(f"{most:,} bytes cannot be reached: the smallest file of this recipe has {smallest:,}; hidden size {low} is taken")
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if size(middle) <= most else (low, middle - 1)
        return with_hidden(experiment, low)

    def verdict(self, result: Result) -> str:
        reached = result.bytes.total
        asked = f"asked for {self.bytes:,} bytes, reached {reached:,}"
        if self.bytes > result.bytes.original:
            return f"{asked}; the network itself takes {result.bytes.original:,}"
        return asked if abs(reached - self.bytes) <= CLOSE * self.bytes else f"{asked}, the nearest that this recipe gives"


@attrs.frozen
class TargetDrop(Target):
    """The smallest file whose headline figure is at most `points` worse than the original's, found by short runs.

    The short runs are judged on held-out examples. A short run is a little worse than a full run, so that the size found is usually
    slightly too large, not too small.
    """

    trains: ClassVar[bool] = True
    """The size is found by short runs of training."""
    points: float = 1.0
    """By how much the headline figure may be worse than the original's: points of top-1, or a difference of the mean squared error."""
    runs: int = 5
    """Most short runs of the search."""
    part: float = 0.2
    """Length of a short run, as a part of the full run."""

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.runs, int):
            raise OptionError("runs", f"must be a whole number, got {self.runs!r}")
        for name, value in (("points", self.points), ("runs", self.runs), ("part", self.part)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise OptionError(name, f"must be a finite number above 0, got {value!r}")

    def experiment(self, experiment: Experiment, registry: Registry, say: Say) -> Experiment:
        coded = experiment.storage == "entropy"  # this format is trained towards a number of bytes
        hidden, good, bad = (_own_bytes(experiment, registry) // 10 if coded else hidden_of(experiment)), LARGEST, 0
        if coded:
            good = 1 << 40
        most, what = good, "number of bytes" if coded else "hidden size"
        tried: dict[int, float] = {}
        say(f"the {what} is found by at most {self.runs} short runs, each of {self.part:.0%} of the steps")
        for _ in range(self.runs):
            try:
                name, drop = self._drop(experiment, registry, hidden)
                say(f"{what} {hidden:,}: {name} is {_apart(drop)} than the original's on held-out examples, in a short run")
            except ConfigError as error:  # fewer bytes than the parts of the file besides the kernels take
                if not coded:
                    raise
                drop = math.inf
                say(f"{what} {hidden:,}: {error}")
            tried[hidden] = drop
            good, bad = (min(good, hidden), bad) if drop <= self.points else (good, max(bad, hidden))
            if bad == 0:
                following = hidden * 7 // 10
            elif good == most:
                following = hidden * (20 if drop > 2 * self.points else 14) // 10
            else:
                following = round((good * bad) ** 0.5)
            hidden = max(SMALLEST, following)
            if hidden in tried:
                break
        if good == most:
            good = min(tried, key=lambda size: (tried[size], -size))
            say(f"no size that was tried is at most {self.points:g} worse; the best, {good:,}, is taken for the whole run")
        return _sized(experiment, good)

    def _drop(self, experiment: Experiment, registry: Registry, hidden: int) -> tuple[str, float]:
        """The headline figure's name, and by how much it is worse than the original's after a short run."""
        phases = [attrs.evolve(phase, iterations=max(1, round(phase.iterations * self.part))) for phase in experiment.phases]
        output = str(Path(experiment.output) / "sizes" / str(hidden))
        batches = max(min(2, experiment.curvature_batches), round(experiment.curvature_batches * self.part))
        short = attrs.evolve(_sized(experiment, hidden), phases=phases, curvature_batches=batches, output=output, observers={})
        engine = Engine(short, registry)
        engine.fit(resume=engine.run.config.exists())
        headline = engine.evaluate("heldout").headline
        if headline is None:
            raise DataError("nothing can be measured on the held-out examples")
        name, before, after = headline
        return name, (before - after) if measures_of(short).metrics[name].better == "higher" else (after - before)

    def verdict(self, result: Result) -> str:
        if result.drop is None or result.headline is None:
            return f"asked for at most {self.points:g} worse than the original; there are no test examples to measure that on"
        reached = f"on the test examples it is {_apart(result.drop)}"
        return f"asked for {result.headline[0]} at most {self.points:g} worse than the original's; {reached}"


def _apart(drop: float) -> str:
    """How much worse or better a figure is, such as `0.35 worse`."""
    return f"{abs(drop):.3g} {'worse' if drop > 0 else 'better'}"


def hidden_of(experiment: Experiment) -> int:
    """The hidden size of the experiment's predictor.

    Raises:
        ConfigError: the predictor has no hidden size.
    """
    hidden = getattr(experiment.predictor, "hidden", None)
    if not isinstance(hidden, int):
        raise ConfigError(f"predictor {type(experiment.predictor).__name__} has no option 'hidden', by which a target finds the size")
    return hidden


def with_hidden(experiment: Experiment, hidden: int) -> Experiment:
    """The experiment with another hidden size; the network and data that were passed in memory stay."""
    hidden_of(experiment)
    return attrs.evolve(experiment, predictor=_evolved(experiment.predictor, hidden))


def _sized(experiment: Experiment, size: int) -> Experiment:
    """The experiment with another hidden size, or with another number of bytes where its numbers are entropy-coded."""
    return attrs.evolve(experiment, bytes=size) if experiment.storage == "entropy" else with_hidden(experiment, size)


def _own_bytes(experiment: Experiment, registry: Registry) -> int:
    """Bytes of the original network's state dict."""
    state = Engine(experiment, registry).source.load()[0].state_dict()
    return sum(value.numel() * value.element_size() for value in state.values())


def _evolved(predictor: Any, hidden: int) -> Any:
    return attrs.evolve(predictor, hidden=hidden)
