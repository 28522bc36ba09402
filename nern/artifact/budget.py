"""Limits on memory and work while a network is built as a file describes it: a small file must not make nern allocate gigabytes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

from nern.errors import ArtifactError
from nern.support.seeding import seeded

LEAST_BYTES = 1 << 26  # bytes of weights that any file may declare, however short it is
EACH_BYTE = 500  # bytes of weights that a file may declare for each of its bytes; even the smallest predictors need under 20
MOST_OPERATIONS = 20_000  # operations of torch; building the largest networks of torchvision and timm takes under 5,000
PRODUCTS = frozenset({"mm", "addmm", "bmm", "baddbmm"})
#: Operations that never give more entries than they take.
NEVER_MORE = frozenset({"sum", "mean", "amax", "amin", "prod", "all", "any", "var", "std", "norm", "_unsafe_view"})


class TooMuch(ArtifactError):
    """A file declares more weights than a file of its length can describe."""


def largest(file_bytes: int) -> int:
    """The most bytes of weights that a file of this length may declare."""
    return max(LEAST_BYTES, EACH_BYTE * file_bytes)


@contextmanager
def bounded(file_bytes: int, what: str) -> Iterator[None]:
    """While a block runs on this thread, refuse each operation of torch whose result would be too large, before it is computed.

    The state of torch's own random generator is left as it was.

    Args:
        file_bytes: length of the file that declares what the block builds.
        what: what is built, for the message.

    Raises:
        TooMuch: a result would be larger than `largest`, all new tensors together would be twice as large, or there are too
            many operations.
    """
    with seeded(0, "file"), _Budget(largest(file_bytes), what):  # the seed does not matter: the file's weights replace the random ones
        yield


class _Budget(TorchDispatchMode):
    def __init__(self, most: int, what: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._most, self._what = most, what
        self._made, self._operations = 0, 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled inside the block, and the default would import the compiler, which takes a second

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self._operations += 1
        if self._operations > MOST_OPERATIONS:
            raise TooMuch(f"{self._what} takes more than {MOST_OPERATIONS:,} operations; no network that is known takes as many")
        if not func._schema.is_mutable and not func.is_view:
            tensors = [value for value in tree_iter((args, kwargs)) if isinstance(value, Tensor)]
            size = _bytes_of_result(func, args, kwargs, tensors, self._most) if tensors else _bytes_of_new(func, args, kwargs)
            self._made += 0 if tensors else size
            if size > self._most or self._made > 2 * self._most:
                raise TooMuch(
                    f"{self._what} needs more than {self._most:,} bytes of memory; a file of this length cannot stand for that much"
                )
        return func(*args, **kwargs)


def _bytes_of_new(func: Any, args: Any, kwargs: Any) -> int:
    """Bytes of a tensor that an operation makes from sizes alone, such as torch.zeros."""
    if str(kwargs.get("device")) == "meta":
        return 0
    name, sizes = func._schema.name.partition("::")[2], [value for value in args if isinstance(value, (list, tuple))]
    numbers = [float(value) for value in args if isinstance(value, (int, float)) and not isinstance(value, bool)]
    count = 1.0
    if sizes and all(isinstance(size, int) for size in sizes[0]):
        count = math.prod(map(float, sizes[0]))
    elif name == "arange" and numbers:
        start, end, step = (0.0, numbers[0], 1.0) if len(numbers) == 1 else (*numbers, 1.0)[:3]
        count = abs(end - start) / (abs(step) or 1)
    elif name == "eye":
        count = numbers[0] * numbers[-1]
    elif name in ("linspace", "logspace"):
        count = numbers[2]
    elif name == "randperm" or name.endswith("_window"):
        count = numbers[0]
    return int(min(count, 1 << 60)) * (kwargs.get("dtype") or torch.get_default_dtype()).itemsize


def _bytes_of_result(func: Any, args: Any, kwargs: Any, tensors: list[Tensor], most: int) -> int:
    """Bytes of an operation's result, computed from shapes alone; 0 where that needs values, or where the result cannot be large."""
    counts, name = [max(value.numel(), 1) for value in tensors], func._schema.name.partition("::")[2]
    if name in ("cat", "stack"):
        return 16 * sum(counts)
    # These are known without the shape functions of torch, which take a second to import.
    if name in PRODUCTS:
        left, right = tensors[-2:]
        return math.prod(left.shape[:-1]) * right.shape[-1] * left.element_size()
    if name in NEVER_MORE:
        return 16 * max(counts)
    if name in ("new_zeros", "new_ones", "new_empty", "new_full"):
        return 16 * int(math.prod(args[1]))
    if name == "constant_pad_nd":
        padded, pad = list(tensors[0].shape), args[1]
        for dim in range(len(pad) // 2):
            padded[-1 - dim] += pad[2 * dim] + pad[2 * dim + 1]
        return math.prod(padded) * tensors[0].element_size()
    same = len({value.shape for value in tensors if value.dim()}) <= 1 and not name.endswith("mm")
    sized = any(isinstance(size, int) for value in args[1:] if isinstance(value, (list, tuple)) for size in value)
    if not sized and 16 * (max(counts) if same else math.prod(counts)) <= most:
        return 0  # broadcasting, matrix products and look-ups give at most as many entries as the product of their inputs' sizes
    try:
        shapes = tree_map(lambda value: value.to("meta") if isinstance(value, Tensor) else value, (args, kwargs))
        if "device" in kwargs:
            shapes[1]["device"] = torch.device("meta")
        result = func(*shapes[0], **shapes[1])
    except (RuntimeError, NotImplementedError, TypeError, ValueError, ImportError):
        # The shape of its result depends on values; these exist already, so the result cannot be much larger
        return 0
    return sum(value.numel() * value.element_size() for value in tree_iter(result) if isinstance(value, Tensor))
