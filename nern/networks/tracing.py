"""Runs a network once, without arithmetic, to see which modules it calls, what they give and which tensors it adds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nern.errors import ConfigError
from nern.networks.building import copied
from nern.outputs.nested import call, described, moved
from nern.support.messages import first_line

BATCH = 2  # more than one, so that a map of every image differs in shape from what all images share


@attrs.frozen(eq=False)
class Event:
    """A module gave an output, or two tensors were added."""

    name: str
    inputs: tuple[Any, ...]
    output: Any
    sum: bool = False

    @property
    def is_map(self) -> bool:
        """Whether the output can be compared as a feature map; of sums, whether both parts are maps of one shape."""
        whole = isinstance(self.output, Tensor) and self.output.is_floating_point() and self.output.dim() >= 2
        return whole and (not self.sum or (self.output.dim() >= 3 and self.inputs[0].shape == self.inputs[1].shape))


def hookable(network: nn.Module) -> dict[str, nn.Module]:
    """The modules of a network that tell when they run, by name: all but those inside TorchScript."""
    return {name: module for name, module in network.named_modules() if not isinstance(module, torch.jit.ScriptModule)}


class AdditionTracer(TorchFunctionMode):
    """Tells of every sum of two tensors while it is active, under the name of the module in which they are added.

    The first sum in a module `block` is `block.sum`, the next are `block.sum2`, `block.sum3`, …; a residual network
    adds its shortcuts there. A module of such a name goes before the sum.

    Args:
        seen: called with name, summands and sum.
    """

    _ADDITIONS = frozenset({"add", "add_", "__add__", "__iadd__", "__radd__"})

    def __init__(self, network: nn.Module, seen: Callable[[str, tuple[Tensor, Tensor], Tensor], None]) -> None:
        super().__init__()
        self._seen = seen
        self._inside: list[tuple[str, list[Tensor]]] = []  # modules that are running, each with its sums so far
        self._hooks = []
        for name, module in hookable(network).items():
            self._hooks.append(module.register_forward_pre_hook(partial(self._enter, name)))
            self._hooks.append(module.register_forward_hook(self._leave))

    def remove(self) -> None:
        """Take the hooks off the network."""
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
    """What happens in a forward pass in eval mode, in order; the network is left as it was.

    A copy runs whose parameters and inputs stand on the meta device, where only shapes are computed; where a network needs
    values, a copy with its own parameters runs on zeros.

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


def cannot_take(inputs: Any, error: Exception) -> ConfigError:
    """What to raise where a network fails on some inputs."""
    what = " × ".join(map(str, inputs.shape[1:])) if isinstance(inputs, Tensor) else described(inputs)
    return ConfigError(f"the network cannot take inputs of {what} ({first_line(error)}); set architecture.size")


def _moved(value: Tensor, device: torch.device | str) -> Tensor:
    """A copy on a device: a network that changes its buffers while it runs must not change those of the original."""
    return value.to(device, copy=True)


@contextmanager
def recorded(network: nn.Module, events: list[Event]) -> Iterator[None]:
    """Add what happens in forward passes to `events` while a block runs."""

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
