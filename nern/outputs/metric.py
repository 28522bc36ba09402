"""The interface of metrics, and how a figure is taken from one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import attrs
import torch

from nern.errors import DataError
from nern.support.contracts import at_work, broken, described_value


@attrs.frozen
class Metric(ABC):
    """A figure that measures a network on all images of a split.

    A metric sees one batch after the other, so that outputs of any size can be measured; `total` computes the figure from the
    results of all batches.
    """

    @property
    def compares(self) -> Literal["targets", "original"]:
        """Whether outputs are compared with the task's targets (the default), or with the outputs of the original network."""
        return "targets"

    @property
    def better(self) -> Literal["higher", "lower"]:
        """Which direction is better where the metric chooses among checkpoints; by default higher figures are better."""
        return "higher"

    @abstractmethod
    def batch(self, outputs: Any, reference: Any) -> Any:
        """The contribution of one batch to the figure, by default a tensor with one entry for each image [b].

        Args:
            outputs: the network's outputs for b images, on the CPU, with floating-point tensors as float32.
            reference: the images' targets, or the original network's outputs for them.

        Returns None where such outputs do not have this figure.
        """

    def total(self, batches: Sequence[Any]) -> float | None:
        """The figure of the whole split, from the results of `batch` for all batches; by default the mean over images."""
        return float(torch.cat(list(batches)).double().mean())


@attrs.frozen
class Measures:
    """The metrics of a run, and those among them that choose its checkpoint."""

    metrics: dict[str, Metric]
    """The metrics by name. The first one is the task's headline."""
    choice: tuple[str, ...]
    """Names of the metrics that checkpoints are compared by; a later one decides where the earlier ones are equal."""

    def key(self, figures: dict[str, float | None]) -> tuple[float, ...]:
        """The sort key of a measurement; the greater key is better.

        Raises:
            DataError: the first of the deciding figures does not exist.
        """
        first = self.choice[0]
        if figures.get(first) is None:
            needs = "targets, and these images have none" if self.metrics[first].compares == "targets" else "the original network"
            raise DataError(f"the checkpoint is chosen by '{first}', which needs {needs}; set choose_by to another metric")
        return tuple(self._rank(name, figures.get(name)) for name in self.choice)

    def _rank(self, name: str, value: float | None) -> float:
        if value is None:
            return 0.0
        if value != value:
            return float("-inf")
        return value if self.metrics[name].better == "higher" else -value


def figure_of(metric: Metric, batches: Sequence[Any]) -> float | None:
    """The figure of a split, from the results of `Metric.batch` for all of its batches; None where it does not exist.

    Raises:
        ContractError: the metric gives something else than a number or None.
    """
    if any(batch is None for batch in batches):
        return None
    if type(metric).total is Metric.total:
        for batch in batches:
            if not isinstance(batch, torch.Tensor) or not batch.dim():
                problem = "batch() must give a tensor with one entry for each image where total() is the default"
                raise broken(metric, "metric", f"{problem}, gave {described_value(batch)}")
    with at_work(metric, "metric"):
        total: Any = metric.total(batches)
    if total is not None and (isinstance(total, bool) or not isinstance(total, (int, float))):
        raise broken(metric, "metric", f"total() must give a float or None, gave {described_value(total)}")
    return total if total is None else float(total)  # NumPy's numbers are floats, too, and no checkpoint can hold them
