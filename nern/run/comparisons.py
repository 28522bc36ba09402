"""What a run compares its networks on: the held-out images, a part of them, and the test images."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Literal

import torch
from torch import nn

from nern.config.experiment import Experiment
from nern.interfaces import Data, Task
from nern.run.evaluation import Comparison, measures_of


class Comparisons:
    """The comparisons of a run, each of which opens its images and runs the original network when it is first asked for.

    Args:
        network: the original network.
        open_task: function that opens the images of a task.
    """

    def __init__(self, experiment: Experiment, network: nn.Module, device: torch.device, open_task: Callable[[Task], Data]) -> None:
        self.experiment, self.network, self.device, self.open_task = experiment, network, device, open_task

    @cached_property
    def heldout(self) -> Comparison | None:
        """On the held-out images of the last phase that has a task of its own, or else of the run's task; None where there are none."""
        return self._on(self._last_task(), "heldout")

    @cached_property
    def curve(self) -> Comparison | None:
        """On at most `curve_images` of the held-out images, spread evenly over all of them; None where there are none."""
        whole = None if self.heldout is None else self.heldout.original
        return None if whole is None else self._on(self._last_task(), "heldout", every=-(-whole.images // self.experiment.curve_images))

    @cached_property
    def test(self) -> Comparison | None:
        """On the test images of the run's task; None where there are none."""
        return self._on(self.experiment.task, "test")

    def _last_task(self) -> Task:
        own = [phase.inputs for phase in self.experiment.phases if phase.inputs is not None]
        return own[-1] if own else self.experiment.task

    def _on(self, task: Task, split: Literal["heldout", "test"], every: int = 1) -> Comparison | None:
        data = self.open_task(task)
        if split not in data.splits:
            return None
        kind, measures = self.experiment.task.outputs(), measures_of(self.experiment)
        return Comparison(self.network, data, split, self.device, kind, measures, every)
