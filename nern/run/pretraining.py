"""Trains original networks, from scratch or from given weights, and saves them as weights files."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn

from nern.config.experiment import Experiment, Pretrain
from nern.config.structuring import unstructure
from nern.errors import ArtifactError, ConfigError, DataError, Interrupted, TrainingError
from nern.interfaces import Architecture, Data
from nern.kernels.coordinates import KernelGrid, LayerMapping
from nern.kernels.smoothness import grid_smoothness, weights_smoothness
from nern.networks.speedups import memory_layout
from nern.networks.state_dicts import write_state_dict
from nern.networks.tracing import cannot_take
from nern.outputs.kinds import ClassLogits, OutputKind
from nern.outputs.nested import call, laid_out, lay_out
from nern.registry.registry import Registry
from nern.run.checkpoint import belonging, check_parameters, read_checkpoint
from nern.run.devices import choose_device
from nern.run.evaluation import Comparison, Score, measures_of
from nern.run.interruption import StopRequest
from nern.run.observers import ObserverCalls
from nern.run.original import OriginalSource, original_fingerprint, starting_network
from nern.run.task_data import open_task
from nern.support.files import write_object
from nern.support.messages import cannot_write
from nern.support.seeding import derive
from nern.toolkit.images import EpochOrder, ImageData
from nern.training.optimizer_state import check_optimizer, expect


@attrs.frozen
class Trained:
    """An original network that was trained."""

    file: str
    score: Score | None  # top-1 in per cent on the test set; None where there is none
    smoothness: float  # smoothness (eq. 6) of the represented layers
    factor: float  # weight of eq. 6 in the training loss
    epochs: int
    seconds: float  # duration of this call

    def to_dict(self) -> dict[str, Any]:
        score = self.score
        values = {**attrs.asdict(self, recurse=False), "score": score.to_dict() if score else None}
        return {**values, "top1": score.top1 if score else None}


def train_original(experiment: Experiment, registry: Registry, path: Path) -> Trained:
    """Train the experiment's network by its `pretrain` section and write the weights.

    A checkpoint beside the file is written after every epoch; the same call continues from it.

    Raises:
        ConfigError: the file exists already, or has an impossible ending; the architecture has weights.
        DataError: the task cannot train a classifier.
        ArtifactError: the file or its checkpoint cannot be written.
        Interrupted: Ctrl-C or SIGTERM, after a checkpoint.
    """
    began, options = time.monotonic(), experiment.pretrain or Pretrain()
    if path.exists():
        raise ConfigError(f"{path} is there already; name another file with -o, or remove it")
    if path.suffix not in (".safetensors", ".pt", ".pth"):
        raise ConfigError(f"{path}: the file must end in .safetensors, .pt or .pth")
    if not path.absolute().parent.is_dir():
        missing = FileNotFoundError(errno.ENOENT, f"there is no folder {path.absolute().parent}")
        raise ArtifactError(cannot_write(path, missing, "make the folder, or name another file with -o"))
    _must_not_be_trained_already(experiment.architecture, path)
    device = choose_device(experiment.device)
    data = open_task(experiment.task, experiment.architecture, experiment.heldout, experiment.seed)
    network = starting_network(experiment)
    inputs = experiment.architecture.example_inputs(1)
    try:
        with torch.no_grad():
            outputs = call(network.eval(), inputs)
    except Exception as problem:
        raise cannot_take(inputs, problem) from problem
    experiment.task.outputs().check(outputs, data.classes)
    checkpoint = checkpoint_of(path, experiment, registry)
    folder, calls = path.absolute().parent, ObserverCalls(registry)
    error: BaseException | None = None
    with calls.joined_by(experiment.observers), StopRequest() as stop:
        try:
            if not pretrain_observed(experiment, options, network, data, calls, registry, folder, checkpoint, device, stop):
                raise Interrupted(f"stopped while training; the same command continues (checkpoint {checkpoint})")
        except OSError as problem:
            error = ArtifactError(cannot_write(checkpoint, problem, "free space or name another file with -o"))
            raise error from problem
        except BaseException as problem:
            error = problem
            raise
        finally:
            calls.nern_run_finished(run_dir=folder, result=None, error=error)
    network.cpu()
    write_state_dict(network.state_dict(), path)
    checkpoint.unlink(missing_ok=True)
    measured = None
    if "test" in data.splits:
        measured = Comparison(None, data, "test", device, experiment.task.outputs(), measures_of(experiment)).score(network)
    grid = KernelGrid(tuple(experiment.architecture.layers(network.cpu())), experiment.small_kernels)
    smoothness = grid_smoothness(grid, dict(network.state_dict()))
    return Trained(str(path), measured, smoothness, options.smoothness, options.epochs, round(time.monotonic() - began, 3))


def _must_not_be_trained_already(architecture: Architecture, path: Path) -> None:
    """Refuse weights that training would not look at; a file that does not exist may be the one that is to be written."""
    weights = architecture.weights
    if architecture.has_weights and (weights is None or (Path(weights).exists() and Path(weights).absolute() != path.absolute())):
        given = f"architecture.weights={weights}" if weights else "the architecture's own weights"
        raise ConfigError(
            f"nern pretrain does not start from {given}: give pretrain.weights=FILE to train on from a file, or architecture.weights=null "
            "(and pretrained=false) to train from scratch"
        )


def checkpoint_of(path: Path, experiment: Experiment, registry: Registry) -> Path:
    """The checkpoint file for training `path`; its name depends on the experiment, so that no other experiment resumes from it."""
    return path.with_name(f"{path.stem}-{original_fingerprint(experiment, registry)}.checkpoint")


def pretrain_in_run(
    source: OriginalSource, data: Data, calls: ObserverCalls, registry: Registry, device: torch.device, stop: StopRequest
) -> None:
    """Train the original network of a run, and save it in the run's folder.

    Raises:
        Interrupted: Ctrl-C or SIGTERM, after a checkpoint.
    """
    experiment, folder, network = source.experiment, source.folder, source.build()
    assert experiment.pretrain is not None
    if not pretrain_observed(
        experiment, experiment.pretrain, network, data, calls, registry, folder.path, folder.pretraining, device, stop
    ):
        raise Interrupted(f"stopped while training the original network; continue with --resume ({folder.path})")
    folder.write_original(network)


def pretrain_observed(
    experiment: Experiment,
    options: Pretrain,
    network: nn.Module,
    data: Data,
    calls: ObserverCalls,
    registry: Registry,
    run_dir: Path,
    checkpoint: Path,
    device: torch.device,
    stop: StopRequest,
) -> bool:
    """Train an experiment's original network in place and report to observers; returns whether training is complete."""

    def report(epoch: int, loss: float) -> bool:
        losses = {"cross-entropy": loss}
        calls.nern_step(phase="pretrain", iteration=epoch, total=options.epochs, losses=losses, learning_rate=0.0)
        return stop.requested

    calls.nern_run_started(run_dir=run_dir, config=unstructure(experiment, registry), iteration=0, total=options.epochs, unit="epoch")
    layers, kind = list(experiment.architecture.layers(network)), experiment.task.outputs()
    return pretrain(network, layers, data, options, seed=experiment.seed, device=device, checkpoint=checkpoint, report=report, kind=kind)


def pretrain(
    network: nn.Module,
    layers: list[LayerMapping],
    data: Data,
    options: Pretrain,
    *,
    seed: int,
    device: torch.device,
    checkpoint: Path,
    report: Callable[[int, float], bool],
    kind: OutputKind | None = None,
) -> bool:
    """Train `network` in place with SGD, momentum and a cosine schedule on the task's training images.

    Args:
        layers: convolutions whose kernels are made smooth (eq. 6) where `options.smoothness` is above zero.
        checkpoint: written after every epoch; training continues from it where it exists.
        kind: the kind of the network's outputs, which gives the training loss; by default logits of classes.
        report: called with the number of epochs done and their mean loss; training stops after the checkpoint where it returns True.

    Returns:
        Whether training is complete.

    Raises:
        DataError: the task has no targets for its training examples, or does not say how many there are.
        TrainingError: the loss is not finite.
    """
    kind, draw, examples = kind or ClassLogits(), _pairs(data, options.batch, seed, device), data.examples
    if not examples:
        raise DataError("this task does not say how many training examples it has (Data.examples); give architecture.weights")
    layout = memory_layout(network.to(device).eval(), draw(0)[0], trains=True)
    lay_out(network, layout).train()
    weights = [network.get_parameter(layer.parameter) for layer in layers]
    optimizer = torch.optim.SGD(network.parameters(), lr=options.lr, momentum=options.momentum, weight_decay=options.weight_decay)
    steps = max(1, examples // options.batch)
    first = 0
    if checkpoint.exists():
        state = read_checkpoint(checkpoint)
        with belonging(checkpoint):
            check_parameters(state["network"], "network")
            network.load_state_dict(state["network"])
            copies = [nn.Parameter(value.detach().clone()) for value in network.parameters()]
            fresh = torch.optim.SGD(copies, lr=options.lr, momentum=options.momentum, weight_decay=options.weight_decay)
            check_optimizer(fresh, state["optimizer"])
            optimizer.load_state_dict(state["optimizer"])
            expect(type(state["epoch"]) is int and 0 <= state["epoch"] <= options.epochs, "'epoch' is no number of its epochs")
        first = state["epoch"]
    total = options.epochs * steps
    for epoch in range(first, options.epochs):
        mean = torch.zeros((), device=device)
        for step in range(epoch * steps, (epoch + 1) * steps):
            optimizer.param_groups[0]["lr"] = options.lr * (1 + torch.cos(torch.tensor(torch.pi * step / total)).item()) / 2
            inputs, targets = draw(step)
            loss = kind.training_loss(call(network, laid_out(inputs, layout)), targets)
            if options.smoothness:
                loss = loss + options.smoothness * weights_smoothness(layers, weights)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            mean += loss.detach() / steps
        if not bool(mean.isfinite()):
            raise TrainingError(f"the original network's loss is {float(mean)} in epoch {epoch + 1}; lower pretrain.lr")
        state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch + 1}
        write_object(checkpoint, state)
        if report(epoch + 1, float(mean)) and epoch + 1 < options.epochs:
            return False
    network.eval()
    return True


def _pairs(data: Data, batch: int, seed: int, device: torch.device) -> Callable[[int], tuple[Any, Any]]:
    """Inputs and targets of a step; images in memory are ordered and augmented by a seed of this training alone."""
    must_have_targets(data)
    if not isinstance(data, ImageData):
        return data.pairs(batch, derive(seed, "pretrain"), device)
    images, labels = data.labelled()
    order = EpochOrder(len(images), batch, derive(seed, "pretrain"))

    def pairs(step: int) -> tuple[Any, Any]:
        index = order(step)
        return data.prepare(images[index].to(device), derive(seed, "pretrain", step)), labels[index].to(device)

    return pairs


def must_have_targets(data: Data) -> None:
    """Raise DataError where a task has no targets to train an original network with."""
    own = isinstance(data, ImageData) or "train" not in data.splits
    if not own and type(data).pairs is Data.pairs and not data.gives_targets:
        raise DataError("this task has no targets and cannot train an original network; give architecture.weights")
