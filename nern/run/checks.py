"""Checks a run before its first step and reports all mistakes together, each in one line with its place in the configuration."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nern.config.experiment import Experiment, Phase, phase_place
from nern.errors import ConfigError, DataError, Interrupted, NernError
from nern.interfaces import Data, Preprocessing, Task
from nern.networks.copies import unchanged
from nern.networks.speedups import noise_like
from nern.networks.tracing import cannot_take
from nern.options import located
from nern.outputs.nested import call, count, described, map_tensors, part, tensors_of
from nern.registry.blame import blamed
from nern.registry.registry import Registry
from nern.run.evaluation import measures_of
from nern.run.file_check import check_file
from nern.run.original import Original, OriginalSource
from nern.run.packing import like_at_the_end, pack
from nern.run.phases import start_phase
from nern.run.pretraining import must_have_targets
from nern.run.task_data import check_data, check_own_data, first_measured, not_taken, preprocessing_of
from nern.run.trial import check_architecture, check_components, check_losses, check_measures, check_metrics, check_phase, check_state
from nern.support.contracts import ContractError, at_work, broken, is_own
from nern.training.step import StepContext, term_runs_networks

#: Largest sum of squares of one parameter: the squares of a network's parameters are added up in float32.
LARGEST_SUM_OF_SQUARES = 1e36
#: Steps of reconstruction after which outputs are usually finite; named where they are not at the start.
LATER = 500
#: What to do where a network takes something else than images, which most of nern's tasks give.
OTHER_INPUTS = "take a task that gives such inputs, or hand them over in Python with nern.represent(model, data=…)"


def check_run(
    experiment: Experiment,
    source: OriginalSource,
    context_of: Callable[[Original], StepContext],
    open_task: Callable[[Task], Data] | None = None,
    *,
    registry: Registry,
    predicts: bool = True,
) -> tuple[StepContext, nn.Module]:
    """Check everything that would end a run at its start; nothing is written or trained.

    Every phase is started once, without making a step, on the original network with its kernels in their own order. An original
    network that the run will train itself has fresh weights here. Images are opened last, and only where nothing else is wrong.

    Args:
        context_of: function that makes the training context for an original network.
        open_task: function that opens the images of a task; with None, images are not checked.
        registry: where the components come from.
        predicts: whether to look, too, at what needs a prediction of every kernel, which takes about as long as a step.

    Returns:
        The context of training, with fresh weights and the kernels in their own order, and the original network.

    Raises:
        ConfigError: an option is impossible, or the network cannot be represented.
        DataError: weights or images are missing, or do not match each other.
        PluginError: something that is not installed is wanted.
        NernError: where there are several mistakes, an error of the first one's class, with one line for each.
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
        except (Exception, SystemExit) as error:
            reason = blamed(error)
            if reason is None:
                raise
            mistakes.append(ConfigError(reason))
            mistakes[-1].__cause__ = error

    preprocessing: Preprocessing | None = None
    with collected():
        preprocessing = preprocessing_of(experiment.architecture)
    for place, task in _tasks(experiment) if preprocessing else ():
        with collected(), located(place), at_work(task, "task"):
            task.check(preprocessing)
    with collected():
        check_measures(experiment.task, experiment.metrics)
        measures_of(experiment)
    for label, observer in experiment.observers.items():
        with collected(), located(f"observers.{label}"), at_work(observer, "observer"):
            observer.check()
    if any(isinstance(mistake, ContractError) for mistake in mistakes):  # what follows would fail for the same reason
        raise ConfigError("\n".join(map(str, mistakes))) from mistakes[0]
    context: StepContext | None = None
    outputs: Any = None
    wrong: list[ContractError] = []
    with collected():
        network, dtypes = _network(experiment, source, fetch=open_task is not None)
        wrong = list(check_architecture(experiment.architecture, network))
        if wrong:
            raise wrong[0]
        outputs = _outputs(network, experiment)
        if preprocessing is not None:
            mistakes += _refused_images(experiment, network, preprocessing)
        with located("architecture"):
            original = Original.unordered(network, dtypes, experiment)
        context = context_of(original)
        context.representation.eval()
        wrong = list(check_components(experiment, context, original.network))
        mistakes += wrong
        with tempfile.TemporaryDirectory() as folder:
            if not wrong:  # otherwise the file would fail for the same reason
                artifact = pack(experiment, original, context.representation.eval(), registry, like_at_the_end())
                check_file(artifact, Path(folder))
        if not wrong and source.available and predicts:  # otherwise the network has fresh weights, which no phase is trained with
            _check_outputs_at_start(experiment, context)
        context.representation.train()
    for index, phase in enumerate(experiment.phases if context and not wrong else ()):
        with collected():
            wrong_here = list(check_phase(experiment, context, index))
            mistakes += wrong_here
            if not wrong_here:
                mistakes += check_state(start_phase(experiment, phase, index, context, _no_images))
    if open_task is not None and not mistakes:
        measured: list[tuple[Any, Any, Any]] = []
        for _, task in _tasks(experiment):
            with collected():
                looked_at = _check_task(experiment, task, open_task, outputs, original, context.device)
                measured += looked_at if task is experiment.task else []
        for phase in experiment.phases if not mistakes else ():
            with collected():
                _check_inputs(experiment, phase, open_task)
        with collected():
            if not source.available:
                must_have_targets(open_task(experiment.task))
        if not mistakes:
            with collected():
                mistakes += check_metrics(measures_of(experiment), measured, experiment.task)
    for index, phase in enumerate(experiment.phases if predicts and not mistakes else ()):
        if open_task is None or context is None:
            break
        with collected():
            mistakes += _losses(experiment, phase, index, context, open_task)
    mistakes = [_as_config_error(mistake) if isinstance(mistake, ContractError) else mistake for mistake in mistakes]
    if len(mistakes) == 1:
        raise mistakes[0]
    if mistakes:
        raise type(mistakes[0])("\n".join(dict.fromkeys(str(mistake) for mistake in mistakes))) from mistakes[0]
    assert context is not None
    return context, original.network


def _as_config_error(mistake: ContractError) -> ConfigError:
    error = ConfigError(str(mistake))
    error.__cause__ = mistake.__cause__  # the traceback of the plugin, for its author
    return error


def _tasks(experiment: Experiment) -> Iterator[tuple[str, Task]]:
    """The tasks of all phases, each with its place in the configuration."""
    yield "task", experiment.task
    for index, phase in enumerate(experiment.phases):
        if phase.inputs is not None:
            yield f"{phase_place(experiment, index)}.inputs", phase.inputs


def _network(experiment: Experiment, source: OriginalSource, fetch: bool) -> tuple[nn.Module, dict[str, torch.dtype]]:
    """The original network in eval mode, and the dtypes of the entries in its file.

    Where the run will train it itself, it has the weights with which that training starts. Where a library would have to download its
    weights and `fetch` is false, they are fresh.
    """
    architecture = experiment.architecture
    if architecture.has_weights and experiment.pretrain is not None and experiment.pretrain.weights is not None:
        raise ConfigError(
            "pretrain.weights is where training of the original network starts, which is not trained where the architecture has weights: "
            "leave one of pretrain.weights and architecture.weights out"
        )
    elsewhere = architecture.has_weights and architecture.weights is None
    with located("architecture"):
        if source.available and (fetch or not elsewhere):
            return source.load()
        if source.available or experiment.pretrain is not None:
            network = source.build().eval()
            return network, {name: value.dtype for name, value in network.state_dict().items()}
    raise ConfigError("architecture.weights is missing: name the file with the original weights, or add a 'pretrain' section")


def _outputs(network: nn.Module, experiment: Experiment) -> Any:
    """The network's outputs for two examples; raises ConfigError where it does not run, or where the task needs other outputs."""
    check_numbers(network)
    inputs = experiment.architecture.example_inputs(2)
    try:
        with torch.no_grad(), unchanged(network):
            outputs = call(network, inputs)
    except Exception as error:
        raise cannot_take(inputs, error) from error
    kind = experiment.task.outputs()
    kind.check(outputs)
    if is_own(kind) and len(first := tensors_of(outputs)[0]) != count(inputs):
        raise ConfigError(
            f"the network gives {described(first)} for {count(inputs)} examples; its outputs must have one entry for each example"
        )
    if not all(bool(value.isfinite().all()) for value in tensors_of(outputs)):
        raise DataError("the original network's outputs are not finite; its weights are damaged, or too large for float32")
    return outputs


def _refused_images(experiment: Experiment, network: nn.Module, preprocessing: Preprocessing) -> Iterator[DataError]:
    """The tasks that give images of the architecture's size where the network takes other inputs, which its example inputs are."""
    takes, images = experiment.architecture.example_inputs(1), torch.zeros(1, *preprocessing.size)
    if isinstance(takes, torch.Tensor) and takes.shape == images.shape and takes.dtype == images.dtype:
        return
    for place, task in _tasks(experiment):
        if task.gives_images:
            try:
                with torch.no_grad(), unchanged(network):
                    call(network, images)
            except Exception as error:
                one = tensors_of(takes)
                same = len(one) == 1 and one[0].dim() == images.dim() and one[0].is_floating_point()
                way = "set architecture.size to the size that it takes" if same else OTHER_INPUTS
                yield not_taken(f"{place}: its images", images, error, way, takes)


def check_numbers(network: nn.Module) -> None:
    """Check that variances in a network are not negative, and that losses can be computed with its numbers.

    Raises:
        DataError: a variance is below zero, or the sum of the squares of a parameter exceeds float32; the message names the entry.
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


@torch.no_grad()
def _check_outputs_at_start(experiment: Experiment, context: StepContext) -> None:
    """Run the network once with kernels that are not trained yet, where the first step does so.

    Raises:
        ConfigError: it gives numbers beyond float32, of which no loss can be computed.
    """
    phase = experiment.phases[0]
    terms = {name: term for name, term in experiment.losses_of(phase).items() if term.weight > 0}
    early = [name for name, term in terms.items() if term.warmup == 0 and term_runs_networks(term)]
    if not early or not context.processes.alone:  # processes that share a step share this prediction, too
        return
    weights = context.representation.reconstruct()
    inputs = map_tensors(lambda values: noise_like(values).to(context.device), experiment.architecture.example_inputs(2))
    outputs = context.networks.reconstructed(inputs, weights)
    context.networks.release()
    if all(bool(value.isfinite().all()) for value in tensors_of(outputs.logits)):
        return
    place = "losses" if phase.losses is None else f"{phase_place(experiment, 0)}.losses"
    others = [name for name, term in terms.items() if not term_runs_networks(term)]
    way = "" if others else f"add {place}.reconstruction={{}}, and "
    later = " ".join(f"{place}.{name}.warmup={LATER}" for name in early)
    raise ConfigError(
        f"{place}: with untrained kernels the network's outputs are beyond float32, of which {' and '.join(early)} cannot be computed; "
        f"{way}let {'it' if len(early) == 1 else 'them'} begin later: {later}"
    )


def _no_images(task: Task) -> Data:
    raise AssertionError("a phase opens its images at its first step")


def _losses(
    experiment: Experiment, phase: Phase, index: int, context: StepContext, open_task: Callable[[Task], Data]
) -> Iterator[ContractError]:
    """What the losses of a phase do with two inputs, where one of them, or what compares outputs, is a plugin's."""
    terms = [term for term in experiment.losses_of(phase).values() if term.weight > 0]
    if all(is_own(term.loss) for term in terms) and is_own(experiment.task):
        return
    trainer = start_phase(experiment, phase, index, context, open_task)
    given = None
    if trainer.runs_networks(list(trainer.terms)):
        with torch.random.fork_rng():
            given = part(trainer.inputs(0), slice(2))
    place = "losses" if phase.losses is None else f"{phase_place(experiment, index)}.losses"
    yield from check_losses(trainer, given, place, experiment.task)
    context.networks.release()


def _check_task(
    experiment: Experiment, task: Task, open_task: Callable[[Task], Data], outputs: Any, original: Original, device: torch.device
) -> list[tuple[Any, Any, Any]]:
    """Open the images of a task.

    Args:
        outputs: what the network gives for an example.

    Returns:
        Inputs, targets and outputs of a few held-out and test images, where a plugin gives them or measures what they give.

    Raises:
        DataError: images are missing, broken, or do not belong to the network.
    """
    data, kind = open_task(task), experiment.task.outputs()
    kind.check(outputs, data.classes)
    if not is_own(task) and not is_own(data):
        return check_data(task, data, kind, original.network, experiment.phases[0].batch, device)
    if is_own(data):
        phases = [phase for phase in experiment.phases if (phase.inputs or experiment.task) is task]
        training = any(map(experiment.runs_networks, phases))
        try:
            takes = experiment.architecture.example_inputs(2)
            way = "set architecture.size to the size that it takes" if task.gives_images else "give examples that it takes"
            check_own_data(data, original.network, takes, training, way, device)
        except DataError as error:
            if is_own(task):
                raise
            raise broken(task, "task", f"open() gives data that the run cannot use: {error}") from error
    if task is experiment.task and not all(map(is_own, measures_of(experiment).metrics.values())):
        return first_measured(task, data, kind, original.network, device)
    return []


def _check_inputs(experiment: Experiment, phase: Phase, open_task: Callable[[Task], Data]) -> None:
    """Look at the training images of a phase whose losses need some.

    Raises:
        DataError: there are none, or they are broken.
    """
    if not experiment.runs_networks(phase):
        return
    task = phase.inputs or experiment.task
    data = open_task(task)
    if "train" not in data.splits:
        raise DataError(
            f"phase '{phase.name}' runs the networks, but the task has no training images; "
            "set inputs={name: uniform-noise} in the phase, or leave out the losses that look at images"
        )
    with at_work(task, "task", data):
        data.check()
