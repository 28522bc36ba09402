"""Measures a network beside the original one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import attrs
import torch
from torch import Tensor, nn

from nern.config.experiment import Experiment
from nern.errors import ConfigError, DataError, NernError
from nern.interfaces import Data
from nern.networks.copies import unchanged
from nern.networks.speedups import memory_layout
from nern.outputs.kinds import OutputKind
from nern.outputs.metric import Measures, figure_of
from nern.outputs.nested import call, count, laid_out, map_tensors, part, tensors_of, to_float32
from nern.run.task_data import not_taken, pair_of
from nern.support.contracts import at_work, broken, described_value, is_own
from nern.support.messages import did_you_mean, first_line
from nern.support.seeding import seeded

VALUES = {"cpu": 1 << 19, "cuda": 1 << 23}  # input values in one forward pass: a processor is fastest where its caches hold the maps
KEPT = 1 << 28  # most numbers of the original network's outputs that are kept in memory; with more, it runs again each time


@attrs.frozen
class Score:
    """The figures of a network on one split of the images."""

    images: int
    """How many images were measured."""
    figures: dict[str, float | None]
    """Every figure of the task by its name; None where it does not exist, such as top-5 below ten classes."""
    key: tuple[float, ...] = attrs.field(default=(), repr=False)
    """The sort key of checkpoints, where a greater key is better; empty where no checkpoint had to be chosen."""

    def metrics(self) -> dict[str, float]:
        """The figures that exist."""
        return {name: value for name, value in self.figures.items() if value is not None}

    @property
    def headline(self) -> tuple[str, float | None]:
        """The name of the task's first figure, and its value."""
        return next(iter(self.figures.items()))

    @property
    def top1(self) -> float | None:
        """Images whose most probable class is the right one, in per cent; None where there are no labels."""
        return self.figures.get("top1")

    @property
    def top5(self) -> float | None:
        """Images whose right class is among the five most probable ones, in per cent; None without labels or below ten classes."""
        return self.figures.get("top5")

    @property
    def agreement(self) -> float | None:
        """Images for which this network and the original predict the same class, in per cent."""
        return self.figures.get("agreement")

    @property
    def kl(self) -> float | None:
        """Mean KL(original ‖ network), in nats."""
        return self.figures.get("kl")

    def to_dict(self) -> dict[str, Any]:
        """The number of images and every figure, for JSON."""
        return {"images": self.images, **self.figures}


def measures_of(experiment: Experiment) -> Measures:
    """The metrics of an experiment: those that it names, or else those of its task's outputs.

    Raises:
        ConfigError: `choose_by` names no metric of the experiment.
    """
    return chosen_measures(experiment.task.outputs(), experiment.metrics, experiment.choose_by)


def chosen_measures(kind: OutputKind, metrics: dict[str, Any] | None = None, choose_by: str | None = None) -> Measures:
    """The metrics of a kind of outputs, unless `metrics` replaces them; `choose_by` names the one that chooses checkpoints.

    Raises:
        ConfigError: `choose_by` names no metric of them.
    """
    own = dict(kind.metrics())
    named = own if metrics is None else metrics
    if choose_by is not None:
        known = list({**named, **own})
        if choose_by not in known:
            there = f" (there are: {', '.join(known)})"
            raise ConfigError(f"choose_by: there is no metric '{choose_by}'" + did_you_mean(choose_by, known, there))
        choice: tuple[str, ...] = (choose_by,)
    else:
        choice = kind.choice
    return Measures({**named, **{name: own[name] for name in choice if name not in named}}, choice)


@torch.no_grad()
def outputs_of(
    network: nn.Module, data: Data, split: Literal["heldout", "test"], device: torch.device, batch: int = 500, every: int = 1
) -> Iterator[tuple[Any, Any]]:
    """Run a network on a split, some images at a time; yields its outputs, on the CPU, with the images' targets or None.

    Floating-point outputs are float32. With `every` above 1, only every `every`-th image of the split is used.

    Raises:
        DataError: the split is missing.
    """
    network, layout, passed = network.to(device).eval(), None, 0
    with unchanged(network):
        for given in data.batches(split, batch, device):
            inputs, targets = pair_of(data, split, given)
            if every > 1:
                thin, passed = slice(-passed % every, None, every), passed + count(inputs)
                inputs, targets = part(inputs, thin), part(targets, thin)
                if count(inputs) == 0:
                    continue
            values = sum(tensor[:1].numel() for tensor in tensors_of(inputs))
            size = max(1, VALUES.get(device.type, VALUES["cuda"]) // max(1, values))
            for start in range(0, count(inputs), size):
                chosen = slice(start, start + size)
                layout = layout or memory_layout(network, part(inputs, chosen))
                outputs = _outputs(network, laid_out(part(inputs, chosen), layout), data, split)
                yield _on_cpu(to_float32(outputs)), _on_cpu(part(targets, chosen))
    if layout is None:
        raise DataError(f"the task has no {split} examples")


def _outputs(network: nn.Module, inputs: Any, data: Data, split: str) -> Any:
    """What a network gives.

    Raises:
        DataError: it does not take such data; those of a plugin are named.
    """
    try:
        return call(network, inputs)
    except (NernError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if is_own(data):
            way = "set architecture.size to the size that it takes, or take other data"
            raise not_taken(f"the {split} examples", inputs, error, way) from error
        given = ", ".join(map(described_value, tensors_of(inputs)))
        problem = f"batches('{split}', …) must give inputs that the network takes, gave {given} ({first_line(error)})"
        raise broken(data, "task", problem, data) from error


def is_chance(score: Score, outputs: int) -> bool:
    """Whether a classifier is hardly better than guessing."""
    if score.top1 is None or not outputs:
        return False
    expected = score.images / outputs
    return bool(score.top1 * score.images / 100 <= 1.1 * expected + 3 * (expected * (1 - 1 / outputs)) ** 0.5)


class Comparison:
    """Measures networks on one split of a task, and compares them with the original network, which runs only once.

    Args:
        original: the original network; None where its weights are missing.
        kind: the kind of the networks' outputs.
        measures: the figures that are measured.
        every: use only every `every`-th image of the split.
    """

    def __init__(
        self,
        original: nn.Module | None,
        data: Data,
        split: Literal["heldout", "test"],
        device: torch.device,
        kind: OutputKind,
        measures: Measures | None = None,
        every: int = 1,
    ) -> None:
        self._network, self._data, self._split, self._device, self._every = original, data, split, device, every
        self._kind, self._measures = kind, chosen_measures(kind) if measures is None else measures
        self._kept: list[Any] | None = None
        self._original: Score | None = None
        self.outputs = 0  # number of outputs of a classifier, known after a measurement; 0 for other networks

    @property
    def original(self) -> Score | None:
        """The figures of the original network; None where its weights are missing."""
        if self._original is None and self._network is not None:
            self._original = self._drawing_the_same(self._network, choosing=False, itself=True)
        return self._original

    def score(self, network: nn.Module, choosing: bool = False, watch: Callable[[Any, Any, Any], None] | None = None) -> Score:
        """Measure a network, and compare its outputs with those of the original one.

        Args:
            choosing: whether the score needs a key by which checkpoints are compared.
            watch: called for every batch with the outputs, those of the original network (or None) and the targets (or None).

        Raises:
            DataError: the split is missing, its targets cannot belong to the network's outputs, or the figure that chooses
                does not exist.
        """
        return self._drawing_the_same(network, choosing, watch=watch)

    def _drawing_the_same(self, *given: Any, **more: Any) -> Score:
        """Measure a network; what networks, data and metrics draw from global generators is the same in every measurement."""
        with seeded(0, "measured", self._split):
            return self._measured(*given, **more)

    def _measured(
        self, network: nn.Module, choosing: bool, itself: bool = False, watch: Callable[[Any, Any, Any], None] | None = None
    ) -> Score:
        metrics, images = self._measures.metrics, 0
        taken: dict[str, list[Any]] = {name: [] for name in metrics}
        originals = self._originals() if self._network is not None and not itself else None
        kept: list[Any] | None = [] if itself else None
        for outputs, targets in outputs_of(network, self._data, self._split, self._device, every=self._every):
            images += count(outputs)
            if targets is not None:
                self._kind.check(outputs, self._data.classes)
                self._kind.check_targets(outputs, targets)
            self.outputs = outputs.shape[1] if isinstance(outputs, Tensor) and outputs.dim() == 2 else 0
            original = outputs if itself else None if originals is None else next(originals)
            if watch is not None:
                watch(outputs, original, targets)
            if kept is not None:
                kept.append(outputs)
                kept = None if images * sum(value[:1].numel() for value in tensors_of(outputs)) > KEPT else kept
            for name, metric in metrics.items():
                reference = targets if metric.compares == "targets" else original
                with at_work(metric, "metric"):
                    taken[name].append(None if reference is None else metric.batch(outputs, reference))
        if itself:
            self._kept = kept
        figures = {name: figure_of(metrics[name], batches) for name, batches in taken.items()}
        return Score(images, figures, self._measures.key(figures) if choosing else ())

    def _originals(self) -> Iterator[Any]:
        """The outputs of the original network, batch by batch."""
        assert self._network is not None and self.original is not None
        if self._kept is not None:
            return iter(self._kept)
        return (outputs for outputs, _ in outputs_of(self._network, self._data, self._split, self._device, every=self._every))


def _on_cpu(value: Any) -> Any:
    return map_tensors(Tensor.cpu, value)
