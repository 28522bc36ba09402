"""Finds the weights of a network that can be represented, by walking its modules, and maps them to kernels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal

import attrs
from torch import Tensor, nn

from nern.errors import ConfigError
from nern.kernels.coordinates import LayerMapping
from nern.networks.mappings import LineMapping, TileMapping, TransposedMapping, VolumeMapping, tile_of
from nern.networks.tracing import trace_forward
from nern.support.messages import did_you_mean, some

Kind = Literal["convolution", "linear", "table"]
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED)
#: Weight matrices of `nn.MultiheadAttention` that are no linear layers.
_PROJECTIONS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
#: Bounds of the height and width of tiles: at least 3 × 3, at most 16 × 16; and 4 × 4 where no convolution is represented.
SMALLEST_TILE, TILE_ALONE, LARGEST_TILE = 3, 4, 16


@attrs.define(eq=False)
class WeightLayer:
    """A weight that may be represented, with every module that holds it."""

    module: nn.Module
    kind: Kind
    names: list[str]  # names of the parameter, one for each module that holds it
    shape: tuple[int, ...]
    obstacle: str | None = None  # the reason why it cannot be represented; empty where it can
    calls: int = 0

    @property
    def possible(self) -> bool:
        """Whether the weight can be represented and a forward pass uses it."""
        return self.calls > 0 and self.obstacle is None

    def matches(self, pattern: str) -> bool:
        """Whether a name of the weight matches a pattern such as `layer1.*`."""
        return any(fnmatchcase(name, pattern) for name in self.names)

    @property
    def pointwise(self) -> bool:
        """Whether it is a convolution with kernels of one weight, [f, c, 1, 1], which multiplies by a matrix."""
        return self.kind == "convolution" and math.prod(self.shape[2:]) == 1

    def mapping(self, layer: int, tile: tuple[int, int], as_matrix: bool = False) -> LayerMapping:
        """The mapping of this weight as layer number `layer`; a matrix is cut into tiles of at most `tile`.

        Args:
            as_matrix: whether the weight of a pointwise convolution is cut into tiles, too.
        """
        name, shape = self.names[0], self.shape
        if self.kind != "convolution" or (as_matrix and self.pointwise):
            return TileMapping(name, shape, layer, tile=tile_of(shape, tile))
        if isinstance(self.module, _TRANSPOSED):
            return TransposedMapping(name, shape, layer, groups=self.module.groups)
        return {3: LineMapping, 4: LayerMapping, 5: VolumeMapping}[len(shape)](name, shape, layer)


def map_layers(network: nn.Module, size: Any, chosen: Literal["convolutions", "all"] | Sequence[str]) -> list[LayerMapping]:
    """Mappings of the weights that a forward pass uses, in the order of the network's modules.

    Grouped and depthwise convolutions have as many channels as their filters do; biases are copied; a weight that
    several modules share is represented once. Matrices are cut into tiles as large as the largest represented kernel; with
    `all`, a convolution with kernels of 1 × 1 is such a matrix, or a predictor of k² numbers would be asked for every weight.

    Args:
        size: shape of the network's inputs without the batch (channels, height and width), or inputs that it can take.
        chosen: `convolutions` for every convolution; `all` for linear layers as well, and to copy what cannot be
            represented; or patterns of parameter names, such as `layer?.*.weight`. A pattern that matches no convolution may
            name linear layers and tables of embeddings. What is never called, and what does not fit, is copied.

    Raises:
        ConfigError: a pattern matches nothing that can be represented, or (with `convolutions`) a convolution is of a kind
            that cannot; names the layer and the reason.
    """
    layers = find_layers(network, size)
    convolutions = [layer for layer in layers if layer.kind == "convolution"]
    if chosen == "convolutions":
        for layer in convolutions:
            if layer.calls and layer.obstacle:
                raise ConfigError(f"architecture.layers: '{layer.names[0]}' {layer.obstacle}; list the layers to represent")
        picked = [layer for layer in convolutions if layer.calls]
    elif chosen == "all":
        picked = [layer for layer in layers if layer.possible and layer.kind != "table"]
    else:
        named = {id(layer) for pattern in chosen for layer in _matching(pattern, convolutions, layers)}
        picked = [layer for layer in layers if id(layer) in named and layer.possible]
    matrices = chosen == "all"
    kernels = [layer.mapping(0, (1, 1)).kernel for layer in picked if layer.kind == "convolution" and not (matrices and layer.pointwise)]
    tile = _tile(kernels)
    return [layer.mapping(index, tile, matrices) for index, layer in enumerate(picked)]


def find_layers(network: nn.Module, size: Any) -> list[WeightLayer]:
    """Every weight of a convolution, a linear layer or a table of embeddings, whether or not it can be represented."""
    calls: dict[str, int] = {}
    for event in trace_forward(network, size):
        calls[event.name] = calls.get(event.name, 0) + (not event.sum)
    by_weight: dict[int, WeightLayer] = {}
    for name, module in network.named_modules():
        for attribute, kind, caller in _weights(name, module, network):
            weight = module._parameters.get(attribute, None)
            key = id(module if weight is None else weight)
            shape = tuple(weight.shape) if weight is not None else ()
            layer = by_weight.setdefault(key, WeightLayer(module, kind, [], shape, _obstacle(module, attribute)))
            layer.names.append(f"{name}{'.' if name else ''}{attribute}")
            layer.calls += calls.get(caller, 0)
    return list(by_weight.values())


def _weights(name: str, module: nn.Module, network: nn.Module) -> Iterator[tuple[str, Kind, str]]:
    """For every weight of a module: its attribute, its kind, and the name of the module whose call uses it."""
    if _is_convolution(module):
        yield "weight", "convolution", name
    elif isinstance(module, nn.MultiheadAttention):
        for attribute in _PROJECTIONS:
            if isinstance(module._parameters.get(attribute), Tensor):
                yield attribute, "linear", name
    elif isinstance(module, nn.Linear):
        parent = name.rpartition(".")[0]
        attention = isinstance(network.get_submodule(parent), nn.MultiheadAttention) if name else False
        yield "weight", "linear", parent if attention else name  # attention uses its output matrix without calling the linear layer
    elif isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        yield "weight", "table", name


def _is_convolution(module: nn.Module) -> bool:
    return isinstance(module, _CONVOLUTIONS) or ("conv" in type(module).__name__.lower() and "weight" in module._parameters)


def _obstacle(module: nn.Module, attribute: str) -> str | None:
    known = (*_CONVOLUTIONS, nn.Linear, nn.Embedding, nn.EmbeddingBag, nn.MultiheadAttention)
    if not isinstance(module, known):
        return f"belongs to a {type(module).__name__}, whose weight is not made of kernels for all that nern knows"
    if attribute not in module._parameters:
        return "is computed from other parameters (a parametrised weight) and cannot be predicted in their place"
    return None


def _tile(kernels: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Height and width of the tiles of matrices, in a network whose convolutions have these kernel sizes."""
    if not kernels:
        return TILE_ALONE, TILE_ALONE
    height, width = (min(LARGEST_TILE, max(SMALLEST_TILE, *sides)) for sides in zip(*kernels, strict=True))
    return height, width


def _matching(pattern: str, convolutions: Sequence[WeightLayer], layers: Sequence[WeightLayer]) -> list[WeightLayer]:
    """The weights that a pattern names; raises ConfigError where it names none, or none that can be represented."""
    matching = [layer for layer in convolutions if layer.matches(pattern)] or [layer for layer in layers if layer.matches(pattern)]
    if not matching:
        names = [name for layer in layers for name in layer.names]
        hint = did_you_mean(pattern, names, f"; there are: {some(names, 5) or 'none at all'}", before="; ")
        raise ConfigError(f"architecture.layers: '{pattern}' matches the weight of no convolution, linear layer or embedding{hint}")
    if not any(layer.possible for layer in matching):
        first = matching[0]
        reason = first.obstacle or "belongs to a layer that no forward pass calls"
        raise ConfigError(f"architecture.layers: '{first.names[0]}' {reason}; leave it out, and it is copied")
    return matching
