"""Finds the convolutions of any network by walking its modules, and maps their weights to kernels."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase

import attrs
from torch import Tensor, nn

from nern.errors import ConfigError
from nern.kernels.coordinates import LayerMapping
from nern.networks.tracing import trace_forward


@attrs.frozen
class LineMapping(LayerMapping):
    """A one-dimensional convolution, weight [f, c, k]: kernels of 1 × k."""

    @property
    def kernel(self) -> tuple[int, int]:
        return 1, self.shape[2]


@attrs.frozen
class TransposedMapping(LayerMapping):
    """A transposed convolution, weight [c · groups, f / groups, (kh,) kw]: its filters are its output channels, too."""

    groups: int = 1

    @property
    def filters(self) -> int:
        return self.shape[1] * self.groups

    @property
    def channels(self) -> int:
        return self.shape[0] // self.groups

    @property
    def kernel(self) -> tuple[int, int]:
        return (1, self.shape[2]) if len(self.shape) == 3 else (self.shape[2], self.shape[3])

    def split(self, weight: Tensor) -> Tensor:
        grouped = weight.reshape(self.groups, self.channels, self.shape[1], *self.kernel)
        return grouped.transpose(1, 2).reshape(self.count, *self.kernel)

    def join(self, kernels: Tensor) -> Tensor:
        return kernels.reshape(self.groups, self.shape[1], self.channels, *self.kernel).transpose(1, 2).reshape(self.shape)


@attrs.define(eq=False)
class Convolution:
    """A convolution's weight, with every module that holds it."""

    module: nn.Module
    names: list[str]  # of the parameter, one for each module
    obstacle: str | None  # why it cannot be represented
    calls: int = 0

    def mapping(self, layer: int) -> LayerMapping:
        weight = self.module.weight
        assert isinstance(weight, Tensor)
        name, shape = self.names[0], tuple(weight.shape)
        if isinstance(self.module, (nn.ConvTranspose1d, nn.ConvTranspose2d)):
            return TransposedMapping(name, shape, layer, groups=self.module.groups)
        return (LineMapping if len(shape) == 3 else LayerMapping)(name, shape, layer)

    def fits(self, pattern: str) -> bool:
        return any(fnmatchcase(name, pattern) for name in self.names)


def map_convolutions(network: nn.Module, size: Sequence[int], patterns: Sequence[str] | None = None) -> list[LayerMapping]:
    """Mappings of the convolutions that a forward pass calls, in the order of the network's modules.

    Grouped and depthwise convolutions have as many channels as their filters do; biases are copied; a weight that
    several modules share is represented once.

    Args:
        size: channels, height and width of the network's inputs.
        patterns: of parameter names, such as `layer?.*.weight`; None for every convolution. Convolutions that are
            never called, and those that do not fit, are copied.

    Raises:
        ConfigError: a pattern fits nothing that can be represented, or (with None) a convolution is of a kind that
            cannot; names the layer and the reason.
    """
    found = find_convolutions(network, size)
    if patterns is None:
        for convolution in found:
            if convolution.calls and convolution.obstacle:
                raise ConfigError(f"architecture.layers: '{convolution.names[0]}' {convolution.obstacle}; list the layers to represent")
        chosen = [convolution for convolution in found if convolution.calls]
    else:
        for pattern in patterns:
            _check(pattern, found)
        fitting = [convolution for convolution in found if any(convolution.fits(pattern) for pattern in patterns)]
        chosen = [convolution for convolution in fitting if convolution.calls and not convolution.obstacle]
    return [convolution.mapping(layer) for layer, convolution in enumerate(chosen)]


def find_convolutions(network: nn.Module, size: Sequence[int]) -> list[Convolution]:
    """Every convolution of `network`, whether or not it can be represented."""
    calls: dict[str, int] = {}
    for event in trace_forward(network, size):
        calls[event.name] = calls.get(event.name, 0) + (not event.sum)
    found: dict[int, Convolution] = {}
    for name, module in network.named_modules():
        if not _is_convolution(module):
            continue
        parameter = f"{name}{'.' if name else ''}weight"
        key = id(module._parameters.get("weight", module))
        convolution = found.setdefault(key, Convolution(module, [], _obstacle(module)))
        convolution.names.append(parameter)
        convolution.calls += calls.get(name, 0)
    return list(found.values())


def _is_convolution(module: nn.Module) -> bool:
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        return True
    return "conv" in type(module).__name__.lower() and "weight" in module._parameters


def _obstacle(module: nn.Module) -> str | None:
    if isinstance(module, (nn.Conv3d, nn.ConvTranspose3d)):
        return "is a three-dimensional convolution, whose kernels have no height and width alone"
    if not isinstance(module, (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)):
        return f"belongs to a {type(module).__name__}, whose weight is not made of kernels for all that nern knows"
    if "weight" not in module._parameters:
        return "is computed from other parameters (a parametrised weight) and cannot be predicted in their place"
    return None


def _check(pattern: str, found: Sequence[Convolution]) -> None:
    fitting = [convolution for convolution in found if convolution.fits(pattern)]
    if not fitting:
        names = [name for convolution in found for name in convolution.names]
        near = difflib.get_close_matches(pattern, names, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are: {_some(names)}"
        raise ConfigError(f"architecture.layers: '{pattern}' fits the weight of no convolution; {hint}")
    if not any(convolution.calls and not convolution.obstacle for convolution in fitting):
        first = fitting[0]
        reason = first.obstacle or "belongs to a layer that no forward pass calls"
        raise ConfigError(f"architecture.layers: '{first.names[0]}' {reason}; leave it out, and it is copied")


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "") if names else "none at all"
