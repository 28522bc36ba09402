"""What can be found wrong with a run before its first step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from nern.config.experiment import Experiment, Phase
from nern.errors import ConfigError, DataError
from nern.interfaces import Data, Task
from nern.outputs.nested import call
from nern.run.evaluation import measures_of
from nern.run.loop import start_phase
from nern.run.original import OriginalSource
from nern.training.step import StepContext


def check_inputs(experiment: Experiment, source: OriginalSource, open_task: Callable[[Task], Data]) -> None:
    """Look at images and original weights before anything is written or trained.

    Args:
        open_task: finds the images of a task.

    Raises:
        ConfigError: there is neither a weights file nor a way to train the original network, or the network cannot run.
        DataError: weights or images are missing, or do not fit each other.
    """
    tasks = [experiment.task, *(phase.inputs for phase in experiment.phases if phase.inputs is not None)]
    classes = max(open_task(task).classes or 0 for task in tasks)
    measures_of(experiment)
    outputs = check_network(experiment, source)
    for phase in experiment.phases:
        _check_images(experiment, phase, open_task)
    experiment.task.outputs().check(outputs, classes)


def check_network(experiment: Experiment, source: OriginalSource) -> Any:
    """Load the original network, or build the one to be trained, and run it once; returns its outputs for one image.

    Raises:
        ConfigError: there is neither a weights file nor a way to train the original network, or the network cannot run.
        DataError: the weights are missing or do not fit.
    """
    if source.available:
        network = source.load()[0]
    elif experiment.pretrain is not None:
        network = source.build().eval()
    else:
        raise ConfigError("architecture.weights is missing: name the file with the original weights, or add a 'pretrain' section")
    with torch.no_grad():
        outputs = call(network, {}, experiment.architecture.example_inputs(1))
    experiment.task.outputs().check(outputs)
    return outputs


def check_phases(experiment: Experiment, context: StepContext, open_task: Callable[[Task], Data]) -> None:
    """Start every phase once, without a step, so that what its components refuse is known before the first phase runs.

    Raises:
        ConfigError: an option of a loss or a sampler is impossible for this network; names its path.
    """
    for index, phase in enumerate(experiment.phases):
        start_phase(experiment, phase, index, context, open_task)


def _check_images(experiment: Experiment, phase: Phase, open_task: Callable[[Task], Data]) -> None:
    """Raise DataError where a phase runs the networks and there are no training images for it."""
    if experiment.runs_networks(phase) and "train" not in open_task(phase.inputs or experiment.task).splits:
        raise DataError(
            f"phase '{phase.name}' runs the networks, but the task has no training images; "
            "set inputs={name: uniform-noise} in the phase, or leave out the losses that look at images"
        )
