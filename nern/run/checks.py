"""Checks a run before its first step and reports all mistakes together, each in one line with its place in the configuration."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nern.artifact.artifact import Artifact
from nern.artifact.reading import load
from nern.config.experiment import Experiment, Phase, phase_place
from nern.contracts import ContractError, at_work, broken, is_own
from nern.errors import ConfigError, DataError, Interrupted, NernError
from nern.interfaces import Architecture, Data, Preprocessing, Task
from nern.networks.speedups import noise_like
from nern.networks.state_dicts import same_bits
from nern.networks.tracing import cannot_take
from nern.options import located
from nern.outputs.nested import call, map_tensors, part, tensors_of
from nern.registry.blame import blamed
from nern.registry.registry import Registry
from nern.representation.entropy import is_coded
from nern.run.evaluation import measures_of
from nern.run.loop import start_phase
from nern.run.original import Original, OriginalSource
from nern.run.packing import like_at_the_end, pack
from nern.run.pretraining import must_have_targets
from nern.run.task_data import check_data, first_measured, preprocessing_of
from nern.run.trial import check_architecture, check_components, check_losses, check_measures, check_metrics, check_phase, check_state
from nern.training.step import StepContext, term_runs_networks

#: Largest sum of squares of one parameter: the squares of a network's parameters are added up in float32.
LARGEST_SUM_OF_SQUARES = 1e36
#: Steps of reconstruction after which outputs are usually finite; named where they are not at the start.
LATER = 500


def check_run(
    experiment: Experiment,
    source: OriginalSource,
    context_of: Callable[[Original], StepContext],
    open_task: Callable[[Task], Data] | None = None,
    *,
    registry: Registry,
    predicts: bool = True,
) -> None:
    """Check everything that would end a run at its start; nothing is written or trained.

    Every phase is started once, without making a step, on the original network with its kernels in their own order. An original
    network that the run will train itself has fresh weights here. Images are opened last, and only where nothing else is wrong.

    Args:
        context_of: function that makes the training context for an original network.
        open_task: function that opens the images of a task; with None, images are not checked.
        registry: where the components come from.
        predicts: whether to look, too, at what needs a prediction of every kernel, which takes about as long as a step.

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
        with located("architecture"):
            original = Original.unordered(network, dtypes, experiment)
        context = context_of(original)
        context.representation.eval()
        wrong = list(check_components(experiment, context, original.network))
        mistakes += wrong
        with tempfile.TemporaryDirectory() as folder:
            if not wrong:  # otherwise the file would fail for the same reason
                artifact = pack(experiment, original, context.representation.eval(), registry, like_at_the_end())
                check_file(artifact, Path(folder), predicts)
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
        with collected():
            measured = _check_images(experiment, source, open_task, outputs, original, context.device)
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


def _as_config_error(mistake: ContractError) -> ConfigError:
    error = ConfigError(str(mistake))
    error.__cause__ = mistake.__cause__  # the traceback of the plugin, for its author
    return error


@torch.no_grad()
def check_file(artifact: Artifact, folder: Path, predicts: bool = True) -> None:
    """Write the file of a representation that is not trained yet, read it back, and compare everything in it.

    An entry that cannot be read back now could not be read back after hours of training either.

    Args:
        folder: the folder of the temporary file.
        predicts: whether to predict every kernel, to compare names, shapes and types of the network's entries, too.

    Raises:
        ConfigError: an entry is different after reading; the message names it.
        OSError: the folder cannot be written.
    """
    path = folder / ".untrained.nern.tmp"
    try:
        artifact.write(path)
        read = load(path, artifact.registry)
        if set(artifact.architecture.private) - set(Architecture.private):  # the file does not hold what builds such a network
            read.built_by(artifact.architecture)
        _compare(artifact, read, [read.state_dict(), read.reconstruct().state_dict()] if predicts else [])
    except (OSError, ContractError):
        raise
    except Exception as error:  # a plugin's component, or a type that no file can hold, can raise anything
        reason = str(error).replace(str(path), "the file")
        raise ConfigError(f"the run's file could not be read back: {reason.splitlines()[0] if reason else type(error).__name__}") from error
    finally:
        path.unlink(missing_ok=True)


def _compare(artifact: Artifact, read: Artifact, states: Sequence[Mapping[str, Tensor]]) -> None:
    """Raise ValueError with the name of the first entry that is different after reading.

    Args:
        states: state dicts of the network that was read.
    """
    copied = artifact.copied_entries()
    for entry in artifact.entries:
        for tensors in states:
            value = tensors.get(entry.name)
            if value is None or value.dtype != entry.dtype or tuple(value.shape) != entry.shape:
                raise ValueError(f"'{entry.name}' comes back with another name, shape or type")
            if entry.name in copied and not same_bits(value, copied[entry.name]):
                raise ValueError(f"'{entry.name}' comes back with other values")
    before, after = artifact.representation, read.representation
    if before.base is not None and not list(before.base.parameters()):
        rows = torch.arange(min(4, before.grid.rows))
        if not torch.allclose(after.added(rows), before.added(rows.to(before.device)).cpu(), rtol=1e-3, atol=1e-6):
            problem = "what forward(rows) needs must come back with load_state_dict(), and the base that is read back adds other numbers"
            raise broken(artifact.base, "base", problem, before.base)
    if is_coded(before):  # entropy coding rounds in its own way, which decoding checks
        return
    numbers = {name for name, _ in before.named_parameters(remove_duplicate=False)}  # shared parameters under each of their names
    own, other = before.state_dict(), after.state_dict()
    for name, value in own.items():
        if name.startswith("copies."):  # trained copies were compared among the copied entries above
            continue
        expected = before.storage.rounded(value) if name in numbers else value
        if name not in other or not torch.equal(other[name].to(expected.dtype), expected.cpu()):
            raise ValueError(f"'{name}' of the predictor or its embedding comes back as another one")


def _tasks(experiment: Experiment) -> Iterator[tuple[str, Task]]:
    """The tasks of all phases, each with its place in the configuration."""
    yield "task", experiment.task
    for index, phase in enumerate(experiment.phases):
        if phase.inputs is not None:
            yield f"{phase_place(experiment, index)}.inputs", phase.inputs


def _network(experiment: Experiment, source: OriginalSource, fetch: bool) -> tuple[nn.Module, dict[str, torch.dtype]]:
    """The original network in eval mode, and the dtypes of the entries in its file.

    It has fresh weights where the run will train it itself; without `fetch`, also where a library would have to download its
    weights.
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
    """The network's outputs for one example; raises ConfigError where it does not run, or where the task needs other outputs."""
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
    if not early or context.processes.size > 1:  # processes that share a step share this prediction, too
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


def _check_images(
    experiment: Experiment,
    source: OriginalSource,
    open_task: Callable[[Task], Data],
    outputs: Any,
    original: Original,
    device: torch.device,
) -> list[tuple[Any, Any, Any]]:
    """Look at the images.

    Returns:
        Inputs, targets and outputs of a few held-out and test images, where a plugin gives them or measures what they give.

    Raises:
        DataError: images are missing, broken, or do not belong to the network.
    """
    measured: list[tuple[Any, Any, Any]] = []
    for _, task in _tasks(experiment):
        data = open_task(task)
        experiment.task.outputs().check(outputs, data.classes)
        if not is_own(task) and not is_own(data):
            kept = check_data(task, data, experiment.task.outputs(), original.network, experiment.phases[0].batch, device)
            measured += kept if task is experiment.task else []
    if not measured and not all(map(is_own, measures_of(experiment).metrics.values())):
        measured += first_measured(experiment.task, open_task(experiment.task), experiment.task.outputs(), original.network, device)
    for phase in experiment.phases:
        if not experiment.runs_networks(phase):
            continue
        data = open_task(phase.inputs or experiment.task)
        if "train" not in data.splits:
            raise DataError(
                f"phase '{phase.name}' runs the networks, but the task has no training images; "
                "set inputs={name: uniform-noise} in the phase, or leave out the losses that look at images"
            )
        with at_work(phase.inputs or experiment.task, "task", data):
            data.check()
    if not source.available:
        must_have_targets(open_task(experiment.task))
    return measured
