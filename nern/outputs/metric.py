"""What a metric is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import attrs
import torch

from nern.errors import DataError


@attrs.frozen
class Metric(ABC):
    """A figure that says how a network does on all images of a split.

    A metric sees one batch after the other, so that outputs of any size can be measured; `total` makes one number of
    what it kept of each.
    """

    @property
    def compares(self) -> Literal["targets", "original"]:
        """What outputs are compared with: the task's targets (the default), or the outputs of the original network."""
        return "targets"

    @property
    def better(self) -> Literal["higher", "lower"]:
        """Which direction is the better one, where the metric chooses among checkpoints; by default the higher one."""
        return "higher"

    @abstractmethod
    def batch(self, outputs: Any, reference: Any) -> Any:
        """What the figure needs to know of one batch, by default a tensor with one entry for each image [b].

        Args:
            outputs: what the network gives for b images, on the CPU, floating-point tensors as float32.
            reference: their targets, or what the original network gives for them.

        Returns None where there is no such figure for outputs like these.
        """

    def total(self, batches: Sequence[Any]) -> float | None:
        """The figure of the whole split from what `batch` gave for each of its batches; by default the mean over images."""
        return float(torch.cat(list(batches)).double().mean())


@attrs.frozen
class Measures:
    """Which metrics a run takes, and which of them choose among its checkpoints."""

    metrics: dict[str, Metric]
    """Name of the figure → metric. The first one is the task's headline."""
    choice: tuple[str, ...]
    """Names of the metrics that checkpoints are compared by; a later one decides where the earlier ones are equal."""

    def key(self, figures: dict[str, float | None]) -> tuple[float, ...]:
        """What two measurements are compared by: the greater key is the better one.

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
