"""Runs a network once, without arithmetic, to see which modules it calls, their outputs, and which tensors it adds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from nern.errors import ConfigError
from nern.networks.copies import copied
from nern.outputs.nested import call, described, moved
from nern.support.messages import first_line

BATCH = 2  # images in the traced batch: more than one, so that a map with one entry per image can be told from a tensor shared by all


@attrs.frozen(eq=False)
class Event:
    """One event of a forward pass: a module returned an output, or two tensors were added."""

    name: str
    inputs: tuple[Any, ...]
    output: Any
    sum: bool = False

    @property
    def is_map(self) -> bool:
        """Whether the output can be compared as a feature map; for a sum, whether both summands are maps of the same shape."""
        whole = isinstance(self.output, Tensor) and self.output.is_floating_point() and self.output.dim() >= 2
        return whole and (not self.sum or (self.output.dim() >= 3 and self.inputs[0].shape == self.inputs[1].shape))


def hookable(network: nn.Module) -> dict[str, nn.Module]:
    """The modules of a network that can have hooks, by name: all except those inside TorchScript."""
    return {name: module for name, module in network.named_modules() if not isinstance(module, torch.jit.ScriptModule)}


class AdditionTracer(TorchFunctionMode):
    """Reports every sum of two tensors while it is active, under the name of the module in which they are added.

    The first sum in a module `block` is `block.sum`, the next are `block.sum2`, `block.sum3`, …; a residual network
    adds its shortcuts there. Where a module has such a name itself, the name means the module.

    Args:
        seen: function that is called with the name, the summands and the sum.
    """

    _ADDITIONS = frozenset({"add", "add_", "__add__", "__iadd__", "__radd__"})

    def __init__(self, network: nn.Module, seen: Callable[[str, tuple[Tensor, Tensor], Tensor], None]) -> None:
        super().__init__()
        self._seen = seen
        self._inside: list[tuple[str, list[Tensor]]] = []  # the modules that are running, each with the number of its sums so far
        self._hooks = []
        for name, module in hookable(network).items():
            self._hooks.append(module.register_forward_pre_hook(partial(self._enter, name)))
            self._hooks.append(module.register_forward_hook(self._leave))

    def remove(self) -> None:
        """Remove the hooks from the network."""
        for hook in self._hooks:
            hook.remove()

    def __enter__(self) -> Any:
        self._inside.clear()
        return super().__enter__()  # type: ignore[no-untyped-call]

    def _enter(self, name: str, module: nn.Module, inputs: Any) -> None:
        self._inside.append((name, []))

    def _leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self._inside:
            self._inside.pop()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") not in self._ADDITIONS or not self._inside:
            return result
        if len(args) != 2 or not all(isinstance(value, Tensor) for value in args):
            return result
        owner, sums = self._inside[-1]
        sums.append(result)
        name = f"{owner}{'.' if owner else ''}sum{len(sums) if len(sums) > 1 else ''}"
        self._seen(name, args, result)
        return result


def trace_forward(network: nn.Module, inputs: Any) -> list[Event]:
    """The events of one forward pass in eval mode, in order; the network itself is not changed.

    A copy is run whose parameters and inputs are on the meta device, where only shapes are computed. Where a network needs values,
    a copy with its real parameters is run on zeros.

    Args:
        inputs: inputs that the network can take (see `Architecture.example_inputs`), or the shape of one image.

    Raises:
        ConfigError: the network cannot take such inputs.
    """
    events: list[Event] = []
    reason = Exception()
    if isinstance(inputs, (tuple, list, torch.Size)) and all(isinstance(length, int) for length in inputs):
        inputs = torch.zeros(BATCH, *inputs)
    for device in ("meta", next(network.parameters()).device):
        events.clear()
        try:
            copy = copied(network, partial(_moved, device=device)).eval()
            with recorded(copy, events):
                call(copy, moved(inputs, device))
        except Exception as error:
            reason = error
            continue
        return events
    raise cannot_take(inputs, reason) from reason


def multiply_adds(network: nn.Module, inputs: Any) -> float:
    """The multiply-adds of one forward pass in eval mode, in convolutions and matrix products; the network itself is not changed."""

    def counted(device: torch.device | str) -> float:
        copy = copied(network, partial(_moved, device=device)).eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            call(copy, moved(inputs, device))
        return float(counter.get_total_flops()) / 2

    try:
        return counted("meta")
    except Exception:  # the network needs values
        return counted(next(network.parameters()).device)


def cannot_take(inputs: Any, error: Exception) -> ConfigError:
    """The error to raise where a network fails on its inputs."""
    what = " × ".join(map(str, inputs.shape[1:])) if isinstance(inputs, Tensor) else described(inputs)
    return ConfigError(f"the network cannot take inputs of {what} ({first_line(error)}); set architecture.size")


def _moved(value: Tensor, device: torch.device | str) -> Tensor:
    """A copy on a device in float32, as inputs are, with buffers of its own: running it must not change those of the original."""
    return value.to(device, torch.float32 if value.is_floating_point() else value.dtype, copy=True)


@contextmanager
def recorded(network: nn.Module, events: list[Event]) -> Iterator[None]:
    """Append the events of forward passes to `events` while a block runs."""

    def add(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        events.append(Event(name, inputs, output))

    def seen(name: str, parts: tuple[Tensor, Tensor], output: Tensor) -> None:
        if name not in modules:
            events.append(Event(name, parts, output, sum=True))

    modules = hookable(network)
    hooks = [module.register_forward_hook(partial(add, name)) for name, module in modules.items()]
    watcher = AdditionTracer(network, seen)
    try:
        with torch.no_grad(), watcher:
            yield
    finally:
        watcher.remove()
        for hook in hooks:
            hook.remove()
