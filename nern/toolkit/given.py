"""Data from examples that were passed in Python: tensors, data sets and loaders, for training and for measurements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Literal

import attrs
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, default_collate

from nern.errors import DataError, NernError
from nern.interfaces import Data, Preprocessing
from nern.outputs.nested import count, map_tensors, moved, tensors_of, to_float32
from nern.support.contracts import raised
from nern.support.messages import first_line, some
from nern.support.seeding import derive, generator, seeded
from nern.toolkit.images import EpochOrder

MOST_STREAMED = 10_000  # examples that are kept of a stream, whose examples have no index
_INPUTS = ("image", "images", "pixel_values", "input", "inputs", "x", "features", "data")
_TARGETS = ("label", "labels", "target", "targets", "y", "mask", "masks")
_ALWAYS_TARGETS = ("label", "labels", "target", "targets")  # though a network may take them, to compute a loss


class Examples(ABC):
    """A sequence of examples that are read by their indices."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, indices: Tensor) -> tuple[Any, Tensor | None]:
        """Inputs and targets [b, ...] or None of the examples with indices [b] int64.

        Inputs are a tensor [b, ...], or, of a network with several arguments, a tuple or dictionary of tensors.
        """


@attrs.frozen(eq=False)
class TensorExamples(Examples):
    """Examples in memory."""

    inputs: Any
    """Inputs [n, ...] of all examples: a tensor, or a tuple or dictionary of tensors."""
    targets: Tensor | None
    """Targets [n, ...] of all examples; None where there are none."""

    def __len__(self) -> int:
        return count(self.inputs)

    def __getitem__(self, indices: Tensor) -> tuple[Any, Tensor | None]:
        return map_tensors(lambda values: values[indices], self.inputs), None if self.targets is None else self.targets[indices]

    @property
    def bytes(self) -> int:
        """Bytes in memory."""
        return sum(value.numel() * value.element_size() for value in tensors_of((self.inputs, self.targets)))


@attrs.frozen(eq=False)
class DatasetExamples(Examples):
    """Examples of a data set, which are read in this process when they are needed."""

    dataset: Any
    """The data set: has a length, and an example for each index."""
    collate: Callable[[list[Any]], Any] = default_collate
    """Function that makes a batch from a list of examples."""
    arguments: Sequence[str] = ()
    """Names of the network's arguments, by which a batch that is a dictionary is read."""

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, indices: Tensor) -> tuple[Any, Tensor | None]:
        examples = [self._example(index) for index in indices.tolist()]
        try:
            batch = self.collate(examples)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            which = some(list(map(str, indices.tolist())))
            raise DataError(
                f"examples {which} of the data set make no batch ({first_line(error)}); give all examples one shape and type"
            ) from error
        return inputs_and_targets(batch, self.arguments)

    def _example(self, index: int) -> Any:
        try:
            return self.dataset[index]
        except (NernError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            raise DataError(f"example {index} of the data set cannot be read: it {raised(error)}") from error


@attrs.frozen(eq=False)
class Some(Examples):
    """A part of other examples, by their indices."""

    whole: Examples
    """The other examples."""
    numbers: Tensor
    """Indices of the part, [m] int64."""

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, indices: Tensor) -> tuple[Any, Tensor | None]:
        return self.whole[self.numbers[indices]]


def examples_of(data: Any, arguments: Sequence[str] = ()) -> Examples:
    """Make examples from a tensor or array of inputs, a pair of inputs and targets, a Dataset, a DataLoader, or batches.

    Targets are optional everywhere; batches may be dictionaries with keys such as `image` and `label`. Of a stream, whose examples
    have no index, the first 10,000 are kept in memory. Inputs of a network with several arguments are a tuple of tensors, or a
    dictionary of tensors by the names of its arguments.

    Args:
        arguments: names of the network's arguments.

    Raises:
        DataError: `data` is something else, or empty.
    """
    if isinstance(data, Examples):
        examples: Examples = data
    elif isinstance(data, TensorDataset):
        examples = _tensors(data.tensors)
    elif isinstance(data, DataLoader) and not isinstance(data.dataset, IterableDataset):
        examples = DatasetExamples(data.dataset, data.collate_fn or default_collate, arguments)
        if isinstance(data.dataset, TensorDataset) and data.collate_fn is default_collate:
            examples = _tensors(data.dataset.tensors)
    elif isinstance(data, DataLoader):
        examples = _streamed(data, arguments)
    elif isinstance(data, IterableDataset):
        examples = _streamed(DataLoader(data, batch_size=64), arguments)
    elif _is_tensor(data):
        examples = TensorExamples(torch.as_tensor(data), None)
    elif isinstance(data, (tuple, list)) and len(data) == 2 and all(map(_is_tensor, data)) and len(data[0]) == len(data[1]):
        examples = _tensors(data)
    elif isinstance(data, (tuple, list)) and len(data) == 2 and _are_arguments(data[0]) and _is_tensor(data[1]):
        examples = TensorExamples(_as_arguments(data[0]), torch.as_tensor(data[1]))
    elif isinstance(data, Mapping) and _are_arguments(data):
        examples = TensorExamples(*inputs_and_targets(data, arguments))
    elif isinstance(data, Dataset) or (_has_numbers(data) and not isinstance(data, (list, str, Mapping))):
        examples = DatasetExamples(data, arguments=arguments)
    elif isinstance(data, Iterable) and not isinstance(data, (str, Mapping)):
        examples = _streamed(data, arguments)
    else:
        raise DataError(
            f"data is a {type(data).__name__}; give a DataLoader, a Dataset, a tensor, a pair (inputs, labels), a folder of images, or None"
        )
    if not len(examples):
        raise DataError("data holds no examples")
    return examples


def _has_numbers(data: Any) -> bool:
    return hasattr(data, "__getitem__") and hasattr(data, "__len__")


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) or type(value).__name__ == "ndarray"


def _are_arguments(value: Any) -> bool:
    """Whether it holds several arguments of a network: tensors of one length in a tuple, a list, or a dictionary by names."""
    parts = list(value.values()) if isinstance(value, Mapping) else list(value) if isinstance(value, (tuple, list)) else []
    return bool(parts) and all(map(_is_tensor, parts)) and all(len(part) == len(parts[0]) for part in parts)


def _as_arguments(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): torch.as_tensor(part) for name, part in value.items()}
    return tuple(torch.as_tensor(part) for part in value)


def _tensors(values: Sequence[Any]) -> TensorExamples:
    return TensorExamples(torch.as_tensor(values[0]), torch.as_tensor(values[1]) if len(values) > 1 else None)


def _streamed(batches: Iterable[Any], arguments: Sequence[str] = ()) -> TensorExamples:
    inputs, targets, examples = [], [], 0
    for batch in islice(batches, MOST_STREAMED):
        images, labels = inputs_and_targets(batch, arguments)
        inputs.append(images)
        targets.append(labels)
        examples += count(images)
        if examples >= MOST_STREAMED:
            break
    if not inputs:
        raise DataError("data holds no examples")
    known = [labels for labels in targets if labels is not None]
    joined = pytree.tree_map(lambda *parts: torch.cat(parts), *inputs)
    return TensorExamples(joined, torch.cat(known) if len(known) == len(inputs) else None)


def inputs_and_targets(batch: Any, arguments: Sequence[str] = ()) -> tuple[Any, Tensor | None]:
    """Inputs and targets of a batch: a tensor, (inputs, targets, …), or a dictionary.

    Inputs are a tensor, or several arguments of a network: a tuple of tensors, or a dictionary of tensors by their names.

    Args:
        arguments: names of the network's arguments. A dictionary that holds several of them holds its inputs by name.

    Raises:
        DataError: there is no tensor in it that could be the input.
    """
    inputs, targets = batch, None
    if isinstance(batch, Mapping):
        named = {name: batch[name] for name in arguments if name not in _ALWAYS_TARGETS and _is_tensor(batch.get(name))}
        one = next((batch[key] for key in _INPUTS if key in batch), None)
        inputs = named if len(named) > 1 or (named and one is None) else one
        targets = next((batch[key] for key in _TARGETS if key in batch and key not in named), None)
        if inputs is None:
            there = f"its input must be called {', '.join(_INPUTS)}, or as the network's argument"
            raise DataError(f"a batch is a dictionary with {', '.join(map(str, batch))}; {there} ({', '.join(arguments) or 'unknown'})")
    elif isinstance(batch, (tuple, list)) and batch:
        inputs, targets = batch[0], batch[1] if len(batch) > 1 else None
    if not _is_tensor(inputs) and not _are_arguments(inputs):
        raise DataError(f"a batch is a {type(batch).__name__}; it must be a tensor of inputs, (inputs, targets), or a dictionary of them")
    known = torch.as_tensor(targets) if targets is not None and _is_tensor(targets) else None
    return torch.as_tensor(inputs) if _is_tensor(inputs) else _as_arguments(inputs), known


def _classes(examples: Examples) -> int | None:
    """How many classes a data set names; None for labels alone, which are the numbers of the network's outputs, and may lack some."""
    names = getattr(getattr(examples, "dataset", None), "classes", None)
    return len(names) if isinstance(names, (list, tuple)) else None


class GivenData(Data):
    """Examples that were passed in Python, split into parts for training, for choosing a checkpoint and for the measurement at the end.

    Args:
        examples: the examples to split.
        test: examples for the measurement at the end; None splits off a part of `examples`.
        preprocessing: how uint8 images become inputs; other inputs are used as they are.
        heldout, tested: fractions of `examples` for choosing and for measuring, drawn by `seed`.
    """

    def __init__(
        self, examples: Examples, test: Examples | None, preprocessing: Preprocessing, *, heldout: float, tested: float, seed: int
    ) -> None:
        order = torch.randperm(len(examples), generator=generator(seed, "given"))
        apart = 0 if test is not None else round(len(examples) * tested)
        kept = round(len(examples) * heldout)
        self._parts: dict[str, Examples] = {
            "test": test if test is not None else Some(examples, order[:apart].sort().values),
            "heldout": Some(examples, order[apart : apart + kept].sort().values),
            "train": Some(examples, order[apart + kept :].sort().values),
        }
        self.splits = frozenset(name for name, part in self._parts.items() if len(part))
        self._preprocessing = preprocessing
        self.classes = _classes(examples)

    def __len__(self) -> int:
        return sum(map(len, self._parts.values()))

    def sizes(self) -> dict[str, int]:
        """Number of examples of each part."""
        return {name: len(part) for name, part in self._parts.items()}

    def check(self) -> None:
        """Check that all examples in memory are finite."""
        for name, part in (("data", self._parts["train"]), ("test", self._parts["test"])):
            examples = part.whole if isinstance(part, Some) else part
            for values in tensors_of(examples.inputs) if isinstance(examples, TensorExamples) else ():
                wrong = [] if not values.is_floating_point() else (~values.flatten(1).isfinite().all(1)).nonzero().flatten().tolist()
                if wrong:
                    more = f", and {len(wrong) - 1} more do" if wrong[1:] else ""
                    raise DataError(f"example {wrong[0]} of {name} holds numbers that are not finite{more}; remove them")

    def inputs(self, batch: int, seed: int, device: torch.device) -> Callable[[int], Any]:
        part = self._parts["train"]
        if not len(part):
            raise DataError(f"no examples are left to train on ({self.sizes()}); give more, or a smaller heldout")
        order = EpochOrder(len(part), batch, derive(seed, "order"))

        def inputs(step: int) -> Any:
            with seeded(seed, "example", step):  # random numbers that a data set draws depend on the step alone
                inputs_of_step, _ = part[order(step)]
            return self._prepared(inputs_of_step, device)

        return inputs

    def batches(self, split: Literal["heldout", "test"], batch: int, device: torch.device) -> Iterable[tuple[Any, Tensor | None]]:
        part = self._parts[split]
        if not len(part):
            raise DataError(f"there are no {split} examples")
        for start in range(0, len(part), batch):
            with seeded(0, split, start):
                inputs, targets = part[torch.arange(start, min(start + batch, len(part)))]
            yield self._prepared(inputs, device), None if targets is None else targets.to(device)

    def _prepared(self, inputs: Any, device: torch.device) -> Any:
        if isinstance(inputs, Tensor) and inputs.dtype == torch.uint8 and inputs.dim() == 4:
            return self._preprocessing.normalise(inputs.to(device))
        return to_float32(moved(inputs, device))
