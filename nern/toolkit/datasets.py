"""Data of a task from a PyTorch `Dataset` or `DataLoader`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from nern.errors import DataError
from nern.interfaces import Data
from nern.outputs.nested import count, map_tensors
from nern.support.seeding import derive, seeded
from nern.toolkit.images import EpochOrder, split_heldout


class DatasetData(Data):
    """Data sets with `len()` and numbered items, such as torchvision's: each item is (inputs, targets), or inputs alone.

    Items are collated into batches. What an item draws from the global generators of torch, NumPy and Python, as augmentation
    does, is seeded by the step, so that a resumed run sees the same.

    Args:
        train: the training set; a part of it is held out. None where there is none.
        test: the test set. None where there is none.
        heldout: the fraction that is held out; the argument of `Task.open`.
        seed: chooses the held-out part; the argument of `Task.open`.
        classes: how many classes the targets have; None where they are no classes.
        targets: whether an item is a pair (inputs, targets).
        heldout_set: the data set that held-out items are read from, by the same indices; pass the training set without augmentation.
        collate: function that makes a batch from a list of items.
    """

    def __init__(
        self,
        train: Any | None,
        test: Any | None = None,
        *,
        heldout: float = 0.0,
        seed: int = 0,
        classes: int | None = None,
        targets: bool = True,
        heldout_set: Any | None = None,
        collate: Callable[[list[Any]], Any] = default_collate,
    ) -> None:
        for name, items in (("train", train), ("test", test)):
            if items is not None and not (hasattr(items, "__len__") and hasattr(items, "__getitem__")):
                raise DataError(f"{name} is a {type(items).__name__}, which has no len() and no numbered items; wrap it in a LoaderData")
        self.classes, self.gives_targets, self._collate = classes, targets, collate
        self._train: Any = train
        self._test: Any = test
        self._heldout: Any = train if heldout_set is None else heldout_set
        keep, held = split_heldout(0 if train is None else len(train), heldout, seed)
        self._keep, self._held = keep.tolist(), held.tolist()
        sizes = {"train": len(self._keep), "heldout": len(self._held), "test": 0 if test is None else len(test)}
        self.splits = frozenset(name for name, size in sizes.items() if size)
        self.examples = sizes["train"]

    def inputs(self, batch: int, seed: int, device: torch.device) -> Callable[[int], Any]:
        if not self._keep:
            raise DataError("there is no training set: give DatasetData one")
        order = EpochOrder(len(self._keep), batch, derive(seed, "order"))

        def inputs(step: int) -> Any:
            with seeded(seed, "items", step):
                collated = self._collate([self._train[self._keep[index]] for index in order(step).tolist()])
            return _moved(collated, device)

        return inputs

    def batches(self, split: Literal["heldout", "test"], batch: int, device: torch.device) -> Iterable[tuple[Any, Any]]:
        items: Any = self._held if split == "heldout" else range(len(self._test) if "test" in self.splits else 0)
        source = self._heldout if split == "heldout" else self._test
        for start in range(0, len(items), batch):
            with seeded(0, split, start):
                collated = self._collate([source[index] for index in items[start : start + batch]])
            yield _pair(_moved(collated, device), self.gives_targets)


class LoaderData(Data):
    """`DataLoader`s, or other iterables of batches that can be iterated once per epoch: (inputs, targets), or inputs alone.

    Everything that a loader draws from global generators, including its order, is seeded by epoch and batch. A run that is
    resumed in the middle of an epoch goes through the epoch's earlier batches again. Worker processes of a loader are seeded from
    the same generator.

    Args:
        train: gives training batches; its own batch size must be the phase's `batch`.
        heldout: gives the batches that choose among checkpoints; keep them out of `train`.
        test: gives the test batches.
        classes: how many classes the targets have; None where they are no classes.
        targets: whether a batch is a pair (inputs, targets).
    """

    def __init__(
        self,
        train: Iterable[Any] | None = None,
        heldout: Iterable[Any] | None = None,
        test: Iterable[Any] | None = None,
        *,
        classes: int | None = None,
        targets: bool = True,
    ) -> None:
        self.classes, self.gives_targets = classes, targets
        self._loaders = {"train": train, "heldout": heldout, "test": test}
        for name, loader in self._loaders.items():
            if isinstance(loader, Iterator):
                raise DataError(f"{name} is an iterator, which can be gone through only once; give the loader itself")
        self.splits = frozenset(name for name, loader in self._loaders.items() if loader is not None)
        batches = _length(train)
        if batches is not None and isinstance(train, DataLoader) and train.batch_size:
            self.examples = batches * train.batch_size

    def inputs(self, batch: int, seed: int, device: torch.device) -> Callable[[int], Any]:
        loader = self._loaders["train"]
        if loader is None:
            raise DataError("there are no training batches: give LoaderData a loader as train")
        own = loader.batch_size if isinstance(loader, DataLoader) else None
        if own is not None and own != batch:
            raise DataError(f"the training loader gives batches of {own} and the phase asks for {batch}: set the phase's batch to {own}")
        walk = _Walk(loader, seed)
        return lambda step: _moved(walk(step), device)

    def batches(self, split: Literal["heldout", "test"], batch: int, device: torch.device) -> Iterable[tuple[Any, Any]]:
        loader = self._loaders[split]
        for given in _seeded_batches(loader, 0, 0) if loader is not None else ():
            moved = _pair(_moved(given, device), self.gives_targets)
            yield moved


class _Walk:
    """Gives the batch of a step from a loader that can only be iterated in order."""

    def __init__(self, loader: Any, seed: int) -> None:
        self._loader, self._seed = loader, seed
        self._restart(0, 0)

    def _restart(self, epoch: int, next_: int) -> None:
        self._epoch, self._next, self._batches = epoch, next_, _seeded_batches(self._loader, self._seed, epoch)

    def __call__(self, step: int) -> Any:
        length = _length(self._loader)
        if step < self._next:
            self._restart(0, 0)
        if length and step // length > self._epoch:
            self._restart(step // length, step // length * length)
        while True:
            batch = next(self._batches, None)
            if batch is None:
                if self._next == 0:
                    raise DataError("the training loader gives no batch")
                self._restart(self._epoch + 1, self._next)
                batch = next(self._batches)
            self._next += 1
            if self._next > step:
                return batch


def _length(loader: Any) -> int | None:
    """The length, or None where there is none: a loader of a stream has the method `__len__`, but it raises."""
    try:
        return len(loader)
    except TypeError:
        return None


def _seeded_batches(loader: Iterable[Any], seed: int, epoch: int) -> Iterator[Any]:
    """The batches of an epoch; global generators are seeded by epoch and batch for each."""
    with seeded(seed, "loader", epoch):
        batches = iter(loader)
    position = 0
    while True:
        with seeded(seed, "loader", epoch, position):
            try:
                batch = next(batches)
            except StopIteration:
                return
        yield batch
        position += 1


def _moved(value: Any, device: torch.device) -> Any:
    def move(tensor: Tensor) -> Tensor:
        placed: Tensor = (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)
        return placed.float() if placed.dtype == torch.float64 else placed

    moved = map_tensors(move, value)
    return tuple(moved) if isinstance(moved, list) else moved


def _pair(value: Any, targets: bool) -> tuple[Any, Any]:
    if not targets:
        return value, None
    if not isinstance(value, tuple) or len(value) != 2:
        raise DataError("a batch is no pair (inputs, targets); say targets=False where there are none")
    if isinstance(value[1], Tensor) and count(value[0]) != len(value[1]):
        raise DataError(f"a batch has {count(value[0])} inputs and {len(value[1])} targets")
    return value
