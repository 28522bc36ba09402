"""Chooses the feature maps of a network that are compared, and captures them while it runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nern.errors import ConfigError
from nern.kernels.coordinates import LayerMapping
from nern.networks.tracing import AdditionTracer, Event, trace_forward
from nern.support.messages import did_you_mean


def choose_feature_maps(network: nn.Module, layers: Sequence[LayerMapping], size: Any, patterns: Sequence[str] | None = None) -> list[str]:
    """Names of feature maps in forward order: modules, and sums by the names that `AdditionTracer` gives them.

    Without patterns these are the output of the batch norm behind each represented convolution, or the convolution's
    own where none follows, and every sum of two maps of one shape (residual sums, before the activation).

    Args:
        size: channels, height and width of the network's inputs, or inputs that it can take.
        patterns: of names, such as `layer?.*.sum`; a map must be made exactly once in a forward pass.

    Raises:
        ConfigError: a pattern matches no map; names it and the nearest one.
    """
    events = trace_forward(network, size)
    made: dict[str, list[Event]] = {}
    modules = dict(network.named_modules())
    for event in events:
        if event.name:
            made.setdefault(event.name, []).append(event)
    maps = {name: calls[0] for name, calls in made.items() if len(calls) == 1 and calls[0].is_map}
    if patterns is not None:
        chosen: set[str] = set()
        for pattern in patterns:
            fitting = {name for name in maps if fnmatchcase(name, pattern)}
            if not fitting:
                raise ConfigError(f"architecture.features: {_unfit(pattern, made, maps, modules)}")
            chosen |= fitting
    else:
        chosen = {name for name, event in maps.items() if event.sum} | _behind(layers, modules, maps)
    return [event.name for event in events if event.name in chosen and event is maps[event.name]]


def _behind(layers: Sequence[LayerMapping], modules: dict[str, nn.Module], maps: dict[str, Event]) -> set[str]:
    """The name of the map after each represented convolution: the output of its batch norm, or else its own output."""
    weights = {id(_weight(modules[layer.parameter.rpartition(".")[0]])) for layer in layers}
    norms = {id(event.inputs[0]): name for name, event in maps.items() if isinstance(modules.get(name), _BatchNorm)}
    chosen = set()
    for name, event in maps.items():
        if not event.sum and id(_weight(modules[name])) in weights:
            norm = norms.get(id(event.output))
            chosen.add(name if norm is None else _before_activation(norm, modules, maps))
    return chosen


def _before_activation(norm: str, modules: dict[str, nn.Module], maps: dict[str, Event]) -> str:
    """`norm`, or its first part where it contains an activation: timm's norm layers apply `drop` and `act` to their output."""
    inner = [name for name in maps if name.startswith(f"{norm}.") and not maps[name].sum]
    return inner[0] if inner and isinstance(modules[inner[0]], nn.Identity) else norm


def _weight(module: nn.Module) -> object:
    return module._parameters.get("weight", module)


def _unfit(pattern: str, made: dict[str, list[Event]], maps: dict[str, Event], modules: dict[str, nn.Module]) -> str:
    if len(made.get(pattern, [])) > 1:
        return f"'{pattern}' is made {len(made[pattern])} times in a forward pass; name maps that are made once"
    if pattern in made:
        return f"'{pattern}' gives no map [b, ...] of floating-point numbers"
    if pattern in modules:
        return f"'{pattern}' is not called in a forward pass"
    return f"'{pattern}' matches no feature map" + did_you_mean(pattern, maps)


def sums_among(network: nn.Module, names: Sequence[str]) -> frozenset[str]:
    """The names of feature maps that are sums; all other names are modules.

    Raises:
        ConfigError: a name is neither a module nor the sum of one.
    """
    modules, sums = dict(network.named_modules()), set()
    for name in names:
        if name in modules:
            continue
        owner, _, last = name.rpartition(".")
        if not re.fullmatch(r"sum([2-9]|[1-9]\d+)?", last) or owner not in modules:
            raise ConfigError(f"feature map '{name}' is no module of the network and no sum in one")
        sums.add(name)
    return frozenset(sums)


class FeatureCapture:
    """Keeps the outputs of modules and sums of a network while it runs.

    Args:
        network: its modules get hooks, which stay.
        names: the maps to keep.

    Raises:
        ConfigError: a name is neither a module nor the sum of one.
    """

    def __init__(self, network: nn.Module, names: Sequence[str]) -> None:
        modules = dict(network.named_modules())
        self.names = list(names)
        self._kept: dict[str, list[tuple[Any, int]]] | None = None
        self._copied: set[str] = set()  # names of maps that the network changes in place later on
        self._sums = sums_among(network, names)
        for name in self.names:
            if name not in self._sums:
                if isinstance(modules[name], torch.jit.ScriptModule):
                    raise ConfigError(f"feature map '{name}' belongs to TorchScript, which does not show its maps; name another module")
                modules[name].register_forward_hook(partial(self._module, name))
        self._watcher = AdditionTracer(network, self._sum) if self._sums else None

    @contextmanager
    def running(self) -> Iterator[list[Tensor]]:
        """Capture maps while a block runs; at its end, the list that it was given holds them in the order of the names.

        Where the network has changed a map in place, `spoiled` is true afterwards, and the next run captures a copy of that map.

        Raises:
            ConfigError: a map was not made exactly once, or is no tensor.
        """
        maps: list[Tensor] = []
        self._kept = {name: [] for name in self.names}
        try:
            if self._watcher is None:
                yield maps
            else:
                with self._watcher:
                    yield maps
            kept = self._kept
        finally:
            self._kept = None
        self.spoiled = False
        for name, copies in kept.items():
            if len(copies) != 1:
                times = f"{len(copies)} times" if copies else "never"
                raise ConfigError(f"feature map '{name}' is made {times} in a forward pass; name maps that are made once")
            value, version = copies[0]
            if not isinstance(value, Tensor):
                raise ConfigError(f"feature map '{name}' is a {type(value).__name__}, no tensor; name another module")
            if value._version != version:
                self._copied.add(name)
                self.spoiled = True
            maps.append(value)

    def _module(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        self._keep(name, output)

    def _sum(self, name: str, parts: tuple[Tensor, Tensor], output: Tensor) -> None:
        if name in self._sums:
            self._keep(name, output)

    def _keep(self, name: str, output: Any) -> None:
        if self._kept is not None:
            value = output.clone() if name in self._copied else output
            self._kept[name].append((value, value._version if isinstance(value, Tensor) else 0))
