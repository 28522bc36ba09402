"""What can be found wrong with a run before its first step, all of it together; each mistake is one line with its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from nern.config.experiment import Experiment
from nern.errors import ConfigError, DataError, Interrupted, NernError
from nern.interfaces import Data, Preprocessing, Task
from nern.networks.tracing import cannot_take
from nern.options import located
from nern.outputs.nested import call, tensors_of
from nern.run.evaluation import measures_of
from nern.run.loop import phase_place, start_phase
from nern.run.original import Original, OriginalSource
from nern.run.pretraining import must_have_targets
from nern.training.step import StepContext

#: Of one parameter; the squares of a network's parameters are added up in float32.
LARGEST_SUM_OF_SQUARES = 1e36


def check_run(
    experiment: Experiment,
    source: OriginalSource,
    context_of: Callable[[Original], StepContext],
    open_task: Callable[[Task], Data] | None = None,
) -> None:
    """Look for everything that would end a run before its first step; nothing is written or trained.

    Every phase is started once, without a step, on the original network with its kernels in their own order. A network
    that the run has yet to train stands there with fresh weights. Images are opened last, where nothing else is wrong.

    Args:
        context_of: what training works on, made from an original network.
        open_task: finds the images of a task; None leaves images alone.

    Raises:
        ConfigError: an option is impossible, or the network cannot be represented.
        DataError: weights or images are missing, or do not match each other.
        PluginError: something that is not installed is wanted.
        NernError: of the first mistake's kind, with one line for each where there are several.
    """
    mistakes: list[NernError] = []

    @contextmanager
    def collected() -> Iterator[None]:
        try:
            yield
        except Interrupted:
            raise
        except NernError as error:
            mistakes.append(error)

    preprocessing: Preprocessing | None = None
    with collected():
        preprocessing = experiment.architecture.preprocessing()
    for place, task in _tasks(experiment) if preprocessing else ():
        with collected(), located(place):
            task.check(preprocessing)
    with collected():
        measures_of(experiment)
    for label, observer in experiment.observers.items():
        with collected(), located(f"observers.{label}"):
            observer.check()
    context: StepContext | None = None
    outputs: Any = None
    with collected():
        network, dtypes = _network(experiment, source, fetch=open_task is not None)
        outputs = _outputs(network, experiment)
        with located("architecture"):
            original = Original.unordered(network, dtypes, experiment)
        context = context_of(original)
    for index, phase in enumerate(experiment.phases if context else ()):
        with collected():
            start_phase(experiment, phase, index, context, _no_images)
    if open_task is not None and not mistakes:
        with collected():
            _check_images(experiment, source, open_task, outputs)
    if len(mistakes) == 1:
        raise mistakes[0]
    if mistakes:
        raise type(mistakes[0])("\n".join(dict.fromkeys(str(mistake) for mistake in mistakes))) from mistakes[0]


def _tasks(experiment: Experiment) -> Iterator[tuple[str, Task]]:
    """Where images come from, each with its place in the configuration."""
    yield "task", experiment.task
    for index, phase in enumerate(experiment.phases):
        if phase.inputs is not None:
            yield f"{phase_place(experiment, index)}.inputs", phase.inputs


def _network(experiment: Experiment, source: OriginalSource, fetch: bool) -> tuple[nn.Module, dict[str, torch.dtype]]:
    """The original network in eval mode, and the dtypes of its file.

    It has fresh weights where the run has yet to train it, and without `fetch` where its weights lie in no file here, but a
    library would fetch them.
    """
    architecture = experiment.architecture
    elsewhere = architecture.has_weights and architecture.weights is None
    with located("architecture"):
        if source.available and (fetch or not elsewhere):
            return source.load()
        if source.available or experiment.pretrain is not None:
            network = source.build().eval()
            return network, {name: value.dtype for name, value in network.state_dict().items()}
    raise ConfigError("architecture.weights is missing: name the file with the original weights, or add a 'pretrain' section")


def _outputs(network: nn.Module, experiment: Experiment) -> Any:
    """What the network gives for one example; raises ConfigError where it does not run, or gives something else than the task needs."""
    check_numbers(network)
    inputs = experiment.architecture.example_inputs(1)
    try:
        with torch.no_grad():
            outputs = call(network, inputs)
    except Exception as error:
        raise cannot_take(inputs, error) from error
    experiment.task.outputs().check(outputs)
    if not all(bool(value.isfinite().all()) for value in tensors_of(outputs)):
        raise DataError("the original network's outputs are not finite; its weights are damaged, or too large for float32")
    return outputs


def check_numbers(network: nn.Module) -> None:
    """Look for numbers in a network that are not what their names say, or with which no loss can be computed.

    Raises:
        DataError: a variance is below zero, or the sum of the squares of a parameter is beyond float32; names the entry.
    """
    for name, value in network.named_buffers():
        if name.endswith("running_var") and bool((value < 0).any()):
            raise DataError(
                f"the original network's '{name}' has values below zero (the least is {float(value.min()):.4g}), which no variance has; "
                "the weights are damaged, or those of another network"
            )
    for name, value in network.named_parameters():
        squares = float(value.detach().double().square().sum())
        if not squares <= LARGEST_SUM_OF_SQUARES:
            raise DataError(
                f"the original network's '{name}' is too large: the squares of its values add up to {squares:.4g}, and float32 ends at "
                f"{torch.finfo(torch.float32).max:.4g}; the weights are damaged, or want to be divided by a factor that the network undoes"
            )


def _no_images(task: Task) -> Data:
    raise AssertionError("a phase opens its images at its first step")


def _check_images(experiment: Experiment, source: OriginalSource, open_task: Callable[[Task], Data], outputs: Any) -> None:
    """Raise DataError where images are missing, broken, or do not belong to the network."""
    for _, task in _tasks(experiment):
        experiment.task.outputs().check(outputs, open_task(task).classes)
    for phase in experiment.phases:
        if not experiment.runs_networks(phase):
            continue
        data = open_task(phase.inputs or experiment.task)
        if "train" not in data.splits:
            raise DataError(
                f"phase '{phase.name}' runs the networks, but the task has no training images; "
                "set inputs={name: uniform-noise} in the phase, or leave out the losses that look at images"
            )
        data.check()
    if not source.available:
        must_have_targets(open_task(experiment.task))
