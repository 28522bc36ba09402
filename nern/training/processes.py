"""Several processes that train one representation together, as `torchrun` starts them (data parallel).

Every process holds the whole predictor and both networks. In a step, each process predicts its part of the kernels and runs the
networks on its part of the images; the kernels are gathered, and the gradients added. At the end of the step every process has the
parameters that a single process would have, up to rounding, with any losses:

- The objectives of the processes add up to the whole objective. A loss that is a mean over images is weighted by a process's number
  of images. Any other loss is computed on all images in every process and divided by the number of processes.
- In the backward pass, gathered values return the sum of all processes' gradients to the process that they came from.

In a step, the processes exchange the predicted kernels twice: those outside the sample, and those of the sample with their gradients.
They exchange the predictor's gradients once, and outputs or feature maps only for losses that are not a mean over images. Every
process prepares the whole batch of images. Only the first process writes files, reports and evaluates.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import attrs
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nern.errors import ConfigError, TrainingError
from nern.interfaces import Loss
from nern.outputs.nested import map_tensors, part
from nern.representation.representation import Representation
from nern.support.contracts import at_work, broken
from nern.support.messages import first_line
from nern.training.component_contracts import problem_with_loss

T = TypeVar("T")


@attrs.frozen
class Processes:
    """The processes of a run; a single process never communicates."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes, reports and evaluates."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether this process shares its work with no other."""
        return self.size == 1

    def share(self, count: int) -> slice:
        """The slice of `count` things that this process works on; the sizes of two slices differ by at most one."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def gather(self, part: Tensor, count: int) -> Tensor:
        """Gather all parts [count, ...] from the parts of the processes (see `share`); gradients are summed over the processes."""
        if self.size == 1:
            return part
        gathered: Tensor = _Gather.apply(part, count, self)  # type: ignore[no-untyped-call]
        return gathered

    def predict(self, predict: Callable[[Tensor | None], Tensor], rows: Tensor | None, every: Tensor) -> Tensor:
        """Predictions [m, k²] of some rows, or of all rows, of which every process computes its part.

        Args:
            predict: function from rows [m] int64, or None for all, to predictions.
            every: all rows, [n] int64.
        """
        if self.size == 1:
            return predict(rows)
        rows = every if rows is None else rows
        return self.gather(predict(rows[self.share(len(rows))]), len(rows))

    def predict_weights(self, representation: Representation, every: Tensor) -> Tensor:
        """Every predicted weight [weights], kernel after kernel, without gradient; every process computes its part.

        Args:
            every: all rows, [n] int64.
        """
        if self.alone:
            return representation.predict_weights()
        return representation.grid.unpadded(self.predict(representation.predict_in_chunks, None, every))

    def part(self, component: Loss, loss: Callable[..., Tensor], compared: tuple[Any, Any], images: int, targets: Any = None) -> Tensor:
        """The part of a loss that belongs to this process; the parts of all processes add up to the loss.

        Args:
            loss: the function that `component` started.
            compared: the loss's arguments: all weights of the step, or outputs or feature maps of this process's images.
            images: number of images in all processes together.
            targets: targets of the whole batch, for a loss that needs them.
        """
        fraction = 1.0
        outputs = component.needs in ("logits", "outputs", "features")
        if self.size > 1 and outputs and component.is_mean:
            own = self.share(images)
            targets = part(targets, own)
            fraction = (own.stop - own.start) / images
        elif self.size > 1:
            if outputs:
                compared = self._whole(compared[0], images), self._whole(compared[1], images)
            fraction = 1 / self.size
        with at_work(component, "loss", loss):
            value = loss(*compared, targets) if component.needs_targets else loss(*compared)
        problem = problem_with_loss(value)
        if problem:
            raise broken(component, "loss", problem, loss)
        return value if self.size == 1 else torch.mul(value, fraction)

    def _whole(self, outputs: Any, images: int) -> Any:
        """Gather outputs in any nesting, or a list of feature maps, for the whole batch."""
        return map_tensors(lambda values: self.gather(values, images), outputs)

    def sum(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.size > 1:
            values = values.clone()
            _together(dist.all_reduce, values)
        return values

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Replace every gradient by its sum over all processes."""
        if self.size == 1:
            return
        gradients = [torch.zeros_like(value) if value.grad is None else value.grad for value in parameters]
        flat = self.sum(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        for value, gradient in zip(parameters, torch.split(flat, [gradient.numel() for gradient in gradients]), strict=True):
            value.grad = gradient.view_as(value)

    def any(self, flag: bool) -> bool:
        """Whether a flag is set in any process."""
        return flag if self.size == 1 else any(self.all_objects(flag))

    def all_objects(self, value: T) -> list[T]:
        """The values that all processes pass, in the order of the processes."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        _together(dist.all_gather_object, values, value)
        return values

    def wait(self) -> None:
        """Wait until every process has called this."""
        self.all_objects(None)

    @contextmanager
    def first_goes_first(self) -> Iterator[None]:
        """Run a block in the first process, and then in the others, which find the first one's results in the cache."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()

    def check(self, representation: nn.Module, batches: Mapping[str, int]) -> None:
        """Refuse what several processes cannot share.

        Args:
            batches: images per step, by the option that sets them.

        Raises:
            ConfigError: a batch has fewer images than there are processes, or a kernel's prediction depends on the kernels that are
                predicted with it.
        """
        for name, batch in batches.items():
            if batch < self.size:
                raise ConfigError(f"{name} is {batch}, fewer images than the {self.size} processes")
        if self.size > 1 and getattr(representation, "wants", "rows") != "rows":
            raise ConfigError(f"predictor: kernels that are predicted together need one process, there are {self.size}")
        if self.size > 1 and has_batch_norm(representation):
            raise ConfigError(f"predictor: batch norm needs all kernels in one process, there are {self.size}; use another normalisation")

    def same(self, parameters: Iterable[Tensor]) -> None:
        """Overwrite parameters with those of the first process."""
        if self.size > 1:
            for value in parameters:
                _together(dist.broadcast, value.detach(), 0)


def has_batch_norm(representation: nn.Module) -> bool:
    """Whether what is predicted for a kernel depends on the kernels that are predicted with it."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in representation.modules())


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, count: int, group: Processes) -> Tensor:
        ctx.group, ctx.count = group, count
        shares = [Processes(rank, group.size).share(count) for rank in range(group.size)]
        longest = max(share.stop - share.start for share in shares)
        padded = part.new_zeros(longest, *part.shape[1:], dtype=torch.float32)
        padded[: len(part)] = part
        received = [torch.empty_like(padded) for _ in shares]
        _together(dist.all_gather, received, padded)
        parts = [values[: share.stop - share.start] for values, share in zip(received, shares, strict=True)]
        return torch.cat(parts).to(part.dtype)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        total = ctx.group.sum(gradient.float().contiguous())
        return total[ctx.group.share(ctx.count)].to(gradient.dtype), None, None


@contextmanager
def processes(device: torch.device) -> Iterator[Processes]:
    """The processes that torchrun started, or this single one. At the end of the block, a process group that was joined here is left."""
    if dist.is_available() and dist.is_initialized():
        yield Processes(dist.get_rank(), dist.get_world_size())
        return
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Processes()
        return
    # The others wait while the first trains an original network or evaluates: torchrun ends them if it dies
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(days=7))
    try:
        yield Processes(dist.get_rank(), size)
        _together(dist.barrier)  # no process may leave while another still communicates with it: that sometimes aborts the other one
    finally:
        dist.destroy_process_group()


def leave_at_once(code: int) -> None:
    """End a process that torchrun started without the interpreter's tear-down; does nothing in a single process.

    In the tear-down, threads of the group's backend are sometimes destroyed while they run, which aborts a process whose results
    are already saved.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def local_rank() -> int | None:
    """The position of this process on its machine where torchrun started several, else None."""
    return int(os.environ["LOCAL_RANK"]) if int(os.environ.get("WORLD_SIZE", "1")) > 1 and "LOCAL_RANK" in os.environ else None


def is_first() -> bool:
    """Whether this process is the first or the only one of a run; works also while no process group is joined."""
    return int(os.environ.get("RANK", "0")) == 0


def _together(operation: Callable[..., Any], *arguments: Any) -> None:
    """Run a block with a collective operation, which fails where another process has ended.

    Raises:
        TrainingError: another process has ended; the message names this process.
    """
    try:
        operation(*arguments)
    except RuntimeError as error:
        raise TrainingError(
            f"process {dist.get_rank()} lost the others ({first_line(error)}); the message of the one that ended first says why"
        ) from error
