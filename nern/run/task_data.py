"""The data of a task: opened, and looked at before anything is trained with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn

from nern.errors import DataError, NernError
from nern.interfaces import Architecture, Data, Preprocessing, Task
from nern.networks.copies import unchanged
from nern.options import located
from nern.outputs.kinds import OutputKind
from nern.outputs.nested import call, count, map_tensors, part, tensors_of, to_float32
from nern.support.contracts import at_work, broken, described_value
from nern.support.messages import first_line
from nern.support.seeding import seeded

SPLITS = {"train", "heldout", "test"}
FEW = 16  # examples of a batch that are looked at


def preprocessing_of(architecture: Architecture) -> Preprocessing:
    """How a network wants its inputs.

    Raises:
        ConfigError: an option is impossible, or the architecture gives something else.
    """
    with located("architecture"), at_work(architecture, "architecture"):
        preprocessing: Any = architecture.preprocessing()
    if not isinstance(preprocessing, Preprocessing):
        raise broken(architecture, "architecture", f"preprocessing() must give a nern.Preprocessing, gave {described_value(preprocessing)}")
    return preprocessing


def open_task(task: Task, architecture: Architecture, heldout: float, seed: int) -> Data:
    """The images of a task; see `Task.open`.

    Raises:
        ConfigError: the task gives something else than data.
        DataError: the images are missing, or laid out in another way.
    """
    preprocessing = preprocessing_of(architecture)
    with seeded(seed, "task"), at_work(task, "task"):
        data: Any = task.open(preprocessing, heldout, seed)
    with at_work(task, "task", data):
        problem = problem_with_data(data)
    if problem:
        raise broken(task, "task", problem, data)
    opened: Data = data
    return opened


def problem_with_data(data: Any) -> str | None:
    """What is wrong with the result of `Task.open`; None where nothing is."""
    if not isinstance(data, Data):
        return f"open() must give a nern.Data, gave {described_value(data)}"
    splits: Any = getattr(data, "splits", None)
    if not isinstance(splits, (set, frozenset)) or not splits or not splits <= SPLITS:
        given = sorted(map(str, splits)) if isinstance(splits, (set, frozenset)) else splits
        return f"'splits' of its data must be a set of 'train', 'heldout' and 'test', is {given}"
    classes: Any = data.classes
    if classes is not None and (isinstance(classes, bool) or not isinstance(classes, int)):
        return f"'classes' of its data must be a whole number or None, is {classes!r}"
    return None


def check_data(
    task: Task, data: Data, kind: OutputKind, network: nn.Module, batch: int, device: torch.device
) -> list[tuple[Any, Any, Any]]:
    """Look at the first batch of every split.

    Args:
        kind: what the network gives.
        network: that runs on them, in eval mode.
        batch: examples of a training step.

    Returns:
        Inputs, targets (or None) and outputs of the first batch of every split but the training one.

    Raises:
        ConfigError: the task's data do not keep their contract.
    """
    with torch.random.fork_rng():
        if "train" in data.splits:
            _check_training(task, data, network, batch, device)
    return first_measured(task, data, kind, network, device)


def first_measured(task: Task, data: Data, kind: OutputKind, network: nn.Module, device: torch.device) -> list[tuple[Any, Any, Any]]:
    """Inputs, targets (or None) and outputs of a few examples of every split but the training one.

    Raises:
        ConfigError: the task's data do not keep their contract.
    """
    splits: tuple[Literal["heldout", "test"], ...] = ("heldout", "test")
    with torch.random.fork_rng():
        return [_first(task, data, split, network, kind, device) for split in splits if split in data.splits]


def check_own_data(data: Data, network: nn.Module, takes: Any, training: bool, way: str, device: torch.device) -> None:
    """Run the network on two examples of every split of data that nern itself reads, and that may be anybody's.

    Args:
        takes: inputs that the network takes.
        training: whether training examples are needed, too.
        way: what the user can do where the network does not take them.

    Raises:
        DataError: the network does not take them, or they are not finite.
    """
    splits: tuple[Literal["heldout", "test"], ...] = ("heldout", "test")
    with seeded(0, "tried"):
        given: dict[str, Any] = {split: next(iter(data.batches(split, 2, device)))[0] for split in splits if split in data.splits}
        if training and "train" in data.splits:
            drawn = data.inputs(2, 0, device)(0)
            given["training"] = drawn[0] if data.gives_targets else drawn
    for name, inputs in given.items():
        if not all(bool(value.isfinite().all()) for value in tensors_of(inputs)):
            raise DataError(f"the {name} examples hold numbers that are not finite; remove such examples")
        try:
            with torch.no_grad(), unchanged(network.to(device)):
                call(network, inputs)
        except Exception as error:
            raise not_taken(f"the {name} examples", inputs, error, way, takes) from error


def not_taken(what: str, inputs: Any, error: Exception, way: str, takes: Any = None) -> DataError:
    """The error to report where a network fails on examples.

    Args:
        what: the examples, in the plural.
        way: what the user can do.
        takes: inputs that the network takes; None where they are not known.
    """
    known = "" if takes is None else f"; it takes {_listed(takes)}"
    return DataError(f"{what} are {_listed(inputs)}, and the network does not take them ({first_line(error)}){known}: {way}")


def _listed(inputs: Any) -> str:
    """`[2, 1, 8, 8] float32`, as messages describe the inputs of a network; with names where it has several by name."""
    if isinstance(inputs, Mapping):
        return ", ".join(f"{name} {described_value(value)}" for name, value in inputs.items())
    return ", ".join(map(described_value, tensors_of(inputs)))


def _check_training(task: Task, data: Data, network: nn.Module, batch: int, device: torch.device) -> None:
    what, made = f"inputs({batch}, …)(0)", (data,)
    with at_work(task, "task", *made):
        draw: Any = data.inputs(batch, 0, device)
    if not callable(draw):
        raise broken(task, "task", f"inputs() must give a function of the step, gave {described_value(draw)}", *made)
    with at_work(task, "task", *made):
        first: Any = draw(0)
    inputs = first
    if data.gives_targets:
        if not isinstance(first, (tuple, list)) or len(first) != 2:
            raise broken(task, "task", f"{what} must give (inputs, targets) where gives_targets is set, gave {_of(first)}", *made)
        inputs, targets = first
        _check_targets(task, data, what, targets, batch)
    _check_inputs(task, data, what, inputs, batch, device)
    _run(task, data, what, part(inputs, slice(2)), network, device)
    with at_work(task, "task", *made):
        again = draw(0)
    before, after = tensors_of(first), tensors_of(again)
    if len(before) != len(after) or not all(torch.equal(a, b) for a, b in zip(before, after, strict=True)):
        problem = "must give the same for the same step, and gives others: a resumed run would differ; draw with nern.generator(seed, step)"
        raise broken(task, "task", f"{what} {problem}", *made)


def check_step(task: Task, data: Data, batch: int, step: int, inputs: Any, network: nn.Module, device: torch.device) -> None:
    """Look at the inputs of a step that went wrong.

    Raises:
        ConfigError: the network cannot take them.
    """
    what = f"inputs({batch}, …)({step})"
    _check_inputs(task, data, what, inputs, batch, device)
    _run(task, data, what, part(inputs, slice(2)), network, device)


def _first(
    task: Task, data: Data, split: Literal["heldout", "test"], network: nn.Module, kind: OutputKind, device: torch.device
) -> tuple[Any, Any, Any]:
    what = f"batches('{split}', …)"
    with at_work(task, "task", data):
        batches: Any = data.batches(split, 2, device)
        first: Any = next(iter(batches), None) if hasattr(batches, "__iter__") else batches
    if not isinstance(first, (tuple, list)):
        none = first is None and hasattr(batches, "__iter__")
        raise broken(task, "task", f"{what} must give pairs (inputs, targets or None), gave {'none' if none else _of(first)}", data)
    inputs, targets = pair_of(data, split, first)
    number = count(inputs) if tensors_of(inputs) else 0
    _check_inputs(task, data, what, inputs, number, device)
    if targets is not None:
        _check_targets(task, data, what, targets, number)
    inputs, targets = part(inputs, slice(FEW)), map_tensors(torch.Tensor.cpu, part(targets, slice(FEW)))
    outputs = _run(task, data, what, inputs, network, device)
    if targets is not None:
        try:
            kind.check_targets(outputs, targets)
        except NernError as error:
            raise broken(task, "task", f"{what}: {error}", data) from error
        except Exception as error:
            raise broken(task, "task", f"{what} gives targets that its outputs() cannot take: {error}", data) from error
    return inputs, targets, outputs


def pair_of(data: Data, split: str, batch: Any) -> tuple[Any, Any]:
    """Inputs and targets of a batch to measure on.

    Raises:
        ConfigError: it is no pair.
    """
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise broken(data, "task", f"batches('{split}', …) must give pairs (inputs, targets or None), gave {_of(batch)}", data)
    return batch[0], batch[1]


def _check_inputs(task: Task, data: Data, what: str, inputs: Any, number: int, device: torch.device) -> None:
    tensors = tensors_of(inputs)
    if not tensors:
        raise broken(task, "task", f"{what} must give tensors, gave {_of(inputs)}", data)
    if count(inputs) != number or not number:
        raise broken(task, "task", f"{what} must give {number or 'some'} examples, gave {count(inputs)}", data)
    for tensor in tensors:
        if tensor.device.type != device.type:
            raise broken(task, "task", f"{what} must give tensors on {device.type}, gave one on {tensor.device.type}", data)
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise broken(task, "task", f"{what} must give finite numbers, and gives others", data)


def _run(task: Task, data: Data, what: str, inputs: Any, network: nn.Module, device: torch.device) -> Any:
    """What the network gives, on the CPU."""
    try:
        with torch.no_grad(), unchanged(network.to(device)):
            return map_tensors(torch.Tensor.cpu, to_float32(call(network, inputs)))
    except Exception as error:
        problem = f"must give inputs that the network takes, gave {_listed(inputs)} ({first_line(error)})"
        raise broken(task, "task", f"{what} {problem}", data) from error


def _check_targets(task: Task, data: Data, what: str, targets: Any, number: int) -> None:
    if targets is None:
        raise broken(task, "task", f"{what} must give targets where gives_targets is set, gave None", data)
    if (tensors_of(targets) or isinstance(targets, list)) and count(targets) != number:
        raise broken(task, "task", f"{what} gives {number} inputs and {count(targets)} targets", data)


def _of(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return f"{'a tuple' if isinstance(value, tuple) else 'a list'} of {len(value)}"
    return described_value(value)
