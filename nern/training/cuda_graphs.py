"""Records a training step as a CUDA graph and replays it, since starting its thousand GPU kernels one by one takes longer than they run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from nern.support.messages import first_line

#: Records a computation: returns its result, and a function that runs it again on the same memory.
Record = Callable[[Callable[[], Tensor]], tuple[Tensor, Callable[[], None]]]


class CudaGraphs:
    """Records CUDA graphs, after a few warm-up runs in which libraries choose their algorithms and allocate their workspaces.

    All graphs share the memory of their intermediate results, since they never run at the same time. The results and gradients of a
    recording are held by it, so that no later recording overwrites them.
    """

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, compute: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                compute()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            result = compute()
        self._pool = graph.pool()
        return result, graph.replay


@attrs.frozen(eq=False)
class Recording:
    """A recorded computation with the memory that it reads from and writes to."""

    inputs: tuple[Tensor, ...]
    result: Tensor
    gradients: tuple[Tensor | None, ...]
    replay: Callable[[], None]


class Replayer:
    """Runs forward and backward passes. From the second call with the same key and shapes on, it replays a recording.

    Args:
        parameters: the parameters whose `grad` the pass sets.
        record: makes the recordings; None runs every pass normally.
        most: how many recordings are kept; passes of further shapes are run normally.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], record: Record | None, most: int = 16) -> None:
        self.parameters, self.record, self.most = list(parameters), record, most
        self._recordings: dict[Hashable, Recording] = {}
        self._seen: set[Hashable] = set()

    def __call__(self, key: Hashable, compute: Callable[..., Tensor], *inputs: Tensor | None) -> Tensor:
        """Run `compute(*inputs)`, which must depend on nothing but its inputs, the parameters and `key`.

        Returns:
            A copy of the result of `compute`; the parameters' `grad` hold its gradients until the next call.
        """
        given = [value for value in inputs if value is not None]
        place = (key, *(None if value is None else (tuple(value.shape), value.dtype) for value in inputs))
        if self.record is None or (place not in self._recordings and not self._worth(place)):
            return self._fresh(compute, inputs)
        if place not in self._recordings:
            try:
                self._recordings[place] = self._recorded(self.record, compute, inputs)
            except RuntimeError as error:
                self.record, reason = None, first_line(error)
                warnings.warn(f"the step cannot be recorded ({reason}); it runs without CUDA graphs", RuntimeWarning, stacklevel=2)
                return self._fresh(compute, inputs)
        recording = self._recordings[place]
        for own, value in zip(recording.inputs, given, strict=True):
            own.copy_(value)
        recording.replay()
        for parameter, gradient in zip(self.parameters, recording.gradients, strict=True):
            parameter.grad = gradient
        return recording.result.clone()

    def _worth(self, place: Hashable) -> bool:
        """Whether to record: this is the second call with the same key and shapes, and there is room for a recording."""
        if place in self._seen:
            return len(self._recordings) < self.most
        self._seen.add(place)
        return False

    def _fresh(self, compute: Callable[..., Tensor], inputs: Sequence[Tensor | None]) -> Tensor:
        for parameter in self.parameters:
            parameter.grad = None
        return compute(*inputs)

    def _recorded(self, record: Record, compute: Callable[..., Tensor], inputs: Sequence[Tensor | None]) -> Recording:
        own = [None if value is None else value.clone() for value in inputs]
        result, replay = record(lambda: self._fresh(compute, own))
        gradients = tuple(parameter.grad for parameter in self.parameters)
        return Recording(tuple(value for value in own if value is not None), result, gradients, replay)
