"""Data from examples that were passed in Python: tensors, data sets and loaders, for training and for measurements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Literal

import attrs
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, default_collate

from nern.errors import DataError
from nern.interfaces import Data, Preprocessing
from nern.support.seeding import derive, generator
from nern.toolkit.images import EpochOrder

MOST_STREAMED = 10_000  # examples that are kept of a stream, whose examples have no index
_INPUTS = ("image", "images", "pixel_values", "input", "inputs", "x", "features", "data")
_TARGETS = ("label", "labels", "target", "targets", "y", "mask", "masks")


class Examples(ABC):
    """A sequence of examples that are read by their indices."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        """Inputs [b, ...] and targets [b, ...] or None of the examples with indices [b] int64."""


@attrs.frozen(eq=False)
class TensorExamples(Examples):
    """Examples in memory."""

    inputs: Tensor
    """Inputs [n, ...] of all examples."""
    targets: Tensor | None
    """Targets [n, ...] of all examples; None where there are none."""

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.inputs[indices], None if self.targets is None else self.targets[indices]

    @property
    def bytes(self) -> int:
        """Bytes in memory."""
        return sum(value.numel() * value.element_size() for value in (self.inputs, self.targets) if value is not None)


@attrs.frozen(eq=False)
class DatasetExamples(Examples):
    """Examples of a data set, which are read in this process when they are needed."""

    dataset: Any
    """The data set: has a length, and an example for each index."""
    collate: Callable[[list[Any]], Any] = default_collate
    """Function that makes a batch from a list of examples."""

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        return inputs_and_targets(self.collate([self.dataset[int(index)] for index in indices]))


@attrs.frozen(eq=False)
class Some(Examples):
    """A part of other examples, by their indices."""

    whole: Examples
    """The other examples."""
    numbers: Tensor
    """Indices of the part, [m] int64."""

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.whole[self.numbers[indices]]


def examples_of(data: Any) -> Examples:
    """Make examples from a tensor or array of inputs, a pair of inputs and targets, a Dataset, a DataLoader, or batches.

    Targets are optional everywhere; batches may be dictionaries with keys such as `image` and `label`. Of a stream, whose examples
    have no index, the first 10,000 are kept in memory.

    Raises:
        DataError: `data` is something else, or empty.
    """
    if isinstance(data, Examples):
        examples: Examples = data
    elif isinstance(data, TensorDataset):
        examples = _tensors(data.tensors)
    elif isinstance(data, DataLoader) and not isinstance(data.dataset, IterableDataset):
        examples = DatasetExamples(data.dataset, data.collate_fn or default_collate)
        if isinstance(data.dataset, TensorDataset) and data.collate_fn is default_collate:
            examples = _tensors(data.dataset.tensors)
    elif isinstance(data, DataLoader):
        examples = _streamed(data)
    elif isinstance(data, IterableDataset):
        examples = _streamed(DataLoader(data, batch_size=64))
    elif _is_tensor(data):
        examples = TensorExamples(torch.as_tensor(data), None)
    elif isinstance(data, (tuple, list)) and len(data) == 2 and all(map(_is_tensor, data)) and len(data[0]) == len(data[1]):
        examples = _tensors(data)
    elif isinstance(data, Dataset) or (_has_numbers(data) and not isinstance(data, (list, str, Mapping))):
        examples = DatasetExamples(data)
    elif isinstance(data, Iterable) and not isinstance(data, (str, Mapping)):
        examples = _streamed(data)
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


def _tensors(values: Sequence[Any]) -> TensorExamples:
    return TensorExamples(torch.as_tensor(values[0]), torch.as_tensor(values[1]) if len(values) > 1 else None)


def _streamed(batches: Iterable[Any]) -> TensorExamples:
    inputs, targets, count = [], [], 0
    for batch in islice(batches, MOST_STREAMED):
        images, labels = inputs_and_targets(batch)
        inputs.append(images)
        targets.append(labels)
        count += len(images)
        if count >= MOST_STREAMED:
            break
    if not inputs:
        raise DataError("data holds no examples")
    known = [labels for labels in targets if labels is not None]
    return TensorExamples(torch.cat(inputs), torch.cat(known) if len(known) == len(inputs) else None)


def inputs_and_targets(batch: Any) -> tuple[Tensor, Tensor | None]:
    """Inputs and targets of a batch: a tensor, (inputs, targets, …), or a dictionary.

    Raises:
        DataError: the batch has no tensor that could be the input.
    """
    inputs, targets = batch, None
    if isinstance(batch, Mapping):
        inputs = next((batch[key] for key in _INPUTS if key in batch), None)
        targets = next((batch[key] for key in _TARGETS if key in batch), None)
        if inputs is None:
            raise DataError(f"a batch is a dictionary with {', '.join(map(str, batch))}; its input must be called {', '.join(_INPUTS)}")
    elif isinstance(batch, (tuple, list)) and batch:
        inputs, targets = batch[0], batch[1] if len(batch) > 1 else None
    if not _is_tensor(inputs):
        raise DataError(f"a batch is a {type(batch).__name__}; it must be a tensor of inputs, (inputs, targets), or a dictionary of them")
    return torch.as_tensor(inputs), torch.as_tensor(targets) if targets is not None and _is_tensor(targets) else None


def _classes(examples: Examples) -> int | None:
    """The number of classes of the labels, where that is known without reading every example; None otherwise."""
    if isinstance(examples, TensorExamples):
        labels = examples.targets
        whole = labels is not None and labels.dim() == 1 and not labels.is_floating_point() and len(labels)
        return int(labels.max()) + 1 if whole and labels is not None else None
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

    def inputs(self, batch: int, seed: int, device: torch.device) -> Callable[[int], Tensor]:
        part = self._parts["train"]
        if not len(part):
            raise DataError(f"no examples are left to train on ({self.sizes()}); give more, or a smaller heldout")
        order = EpochOrder(len(part), batch, derive(seed, "order"))

        def inputs(step: int) -> Tensor:
            with torch.random.fork_rng(devices=[]):
                # Random numbers that a data set draws depend on the step alone
                torch.manual_seed(derive(seed, "example", step) % (1 << 63))
                inputs_of_step, _ = part[order(step)]
            return self._prepared(inputs_of_step, device)

        return inputs

    def batches(self, split: Literal["heldout", "test"], batch: int, device: torch.device) -> Iterable[tuple[Tensor, Tensor | None]]:
        part = self._parts[split]
        if not len(part):
            raise DataError(f"there are no {split} examples")
        for start in range(0, len(part), batch):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(start)
                inputs, targets = part[torch.arange(start, min(start + batch, len(part)))]
            yield self._prepared(inputs, device), None if targets is None else targets.to(device)

    def _prepared(self, inputs: Tensor, device: torch.device) -> Tensor:
        inputs = inputs.to(device)
        if inputs.dtype == torch.uint8 and inputs.dim() == 4:
            return self._preprocessing.normalise(inputs)
        return inputs.float() if inputs.is_floating_point() else inputs
