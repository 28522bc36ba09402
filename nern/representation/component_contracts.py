"""What a representation asks of the components that it is made from: architecture, embedding, predictor, base and smoother.

Each function says in one line what is wrong, or gives None where nothing is. A run checks these parts of the contracts before its
first step; `nern.testing` checks more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nern.errors import ConfigError
from nern.interfaces import Smoother
from nern.kernels.coordinates import LayerMapping
from nern.kernels.orders import LayerOrder
from nern.networks.feature_maps import sums_among
from nern.outputs.nested import call, tensors_of
from nern.representation.representation import Representation
from nern.support.contracts import described_value, is_own
from nern.support.messages import first_line


def problem_with_layers(layers: Any, network: nn.Module) -> str | None:
    """What is wrong with the result of `Architecture.layers`."""
    problem = _problem_with_list("layers()", layers, LayerMapping, "nern.LayerMapping")
    if problem:
        return problem
    if not layers:
        return "layers() must map at least one weight: there is nothing to represent"
    state, seen = network.state_dict(), set()
    for layer in layers:
        if layer.parameter not in state:
            return f"layers() maps '{layer.parameter}', which is no parameter of the network"
        problem = _problem_with_shape_of(layer, state[layer.parameter])
        if problem:
            return problem
        if layer.parameter in seen:
            return f"layers() maps '{layer.parameter}' twice"
        seen.add(layer.parameter)
    return None


def problem_with_second_call(layers: Sequence[LayerMapping], again: Sequence[LayerMapping]) -> str | None:
    """What is wrong with the results of two calls of `Architecture.layers`."""
    first, second = ([(layer.parameter, tuple(layer.shape), layer.layer) for layer in one] for one in (layers, again))
    return None if first == second else "layers() gives other layers, or another order, when it is called again"


def problem_with_mapping(layer: LayerMapping, weight: Tensor) -> str | None:
    """What is wrong with how a layer's weight becomes kernels, and kernels its weight."""
    problem = _problem_with_shape_of(layer, weight)
    if problem:
        return problem
    kernels = layer.split(weight)
    if list(kernels.shape) != [layer.count, *layer.kernel]:
        return f"split() of '{layer.parameter}' must give {[layer.count, *layer.kernel]}, gave {list(kernels.shape)}"
    if not torch.equal(layer.join(kernels), weight):
        return f"join() of '{layer.parameter}' must give back what split() was given, and gives another weight"
    return None


def problem_with_coordinates(coordinates: Tensor) -> str | None:
    """What is wrong with the coordinates of all kernels."""
    if coordinates.dtype != torch.int64 or coordinates.dim() != 2 or coordinates.shape[1] < 3:
        return f"coordinates() must give [kernels, 3] int64, gave {described_value(coordinates)}"
    if len(torch.unique(coordinates, dim=0)) != len(coordinates):
        return "coordinates() must differ from kernel to kernel, and two kernels have the same"
    return None


def problem_with_features(features: Any, network: nn.Module) -> str | None:
    """What is wrong with the result of `Architecture.features`."""
    problem = _problem_with_list("features()", features, str, "names")
    if problem:
        return problem
    try:
        sums_among(network, features)
    except ConfigError as error:
        return f"features() names what is not there: {error}"
    return None


def problem_with_example_inputs(inputs: Any, network: nn.Module) -> str | None:
    """What is wrong with the result of `Architecture.example_inputs`: the network is run on it."""
    if not tensors_of(inputs):
        return f"example_inputs() must give tensors, gave {described_value(inputs)}"
    try:
        with torch.no_grad():
            call(network, inputs)
    except Exception as error:
        given = ", ".join(map(described_value, tensors_of(inputs)))
        return f"example_inputs() must give inputs that the network takes, gave {given} ({first_line(error)})"
    return None


def problem_with_smoother(smoother: Smoother, kernels: Tensor) -> str | None:
    """What is wrong with how a smoother orders a layer's kernels [filters, channels, k²]."""
    before, order = kernels.clone(), smoother.order(kernels)
    problem = problem_with_order(order, *kernels.shape[:2])
    if problem is None and not torch.equal(kernels, before):
        problem = "order() changes the kernels that it is given"
    if problem is None and not torch.equal(smoother.order(kernels).indices(), order.indices()):
        problem = "order() must give the same order for the same kernels, and differs from call to call: a resumed run would be another one"
    return problem


def problem_with_order(order: Any, filters: int, channels: int) -> str | None:
    """What is wrong with the order of a layer."""
    if not isinstance(order, LayerOrder):
        return f"order() must give a LayerOrder, gave {described_value(order)}"
    indices, count = order.indices(), filters * channels
    if indices.dtype != torch.int64 or list(indices.shape) != [count]:
        return f"order() must give [{count}] int64, gave {described_value(indices)}"
    if not torch.equal(indices.sort().values, torch.arange(count)):
        return f"order() must give every kernel from 0 to {count - 1} once, and gives others"
    return None


def problem_with_embedding(representation: Representation, rows: Tensor) -> str | None:
    """What is wrong with the vectors that a representation's embedding, in eval mode, gives for some rows [n] int64."""
    coordinates = representation.table.coordinates(rows)
    before = coordinates.clone()
    vectors: Any = representation.embedding(coordinates)
    if not torch.equal(coordinates, before):
        return "forward() changes the coordinates that it is given"
    dim: Any = representation.embedding.dim
    problem = problem_with_numbers(vectors, [len(rows), dim], "forward(coordinates)")
    if problem is None and not _alike(representation.embedding(coordinates), vectors):
        problem = "forward(coordinates) must give the same vectors again, and gives others: the file would hold another network"
    return problem


def problem_with_predictor(representation: Representation, rows: Tensor) -> str | None:
    """What is wrong with the kernels that a representation's predictor, in eval mode, gives for some rows [n] int64.

    Where it predicts whole filters or layers, the first of them stands for the rows.
    """
    groups = representation.groups
    rows = rows if groups is None else groups.rows(torch.zeros(1, dtype=torch.int64, device=rows.device))
    coordinates = representation.table.coordinates(rows)
    if not _alike(representation.embedding(coordinates), representation.embedding(coordinates)):
        return None  # the embedding is to blame for what is predicted from it
    kernels: Any = representation.predict(rows)
    problem = problem_with_numbers(kernels, [len(rows), representation.grid.outputs], "forward(embedded)")
    if problem is None:
        with torch.no_grad():
            again = representation.predict(rows)
        if not _alike(again, kernels):
            problem = (
                "forward(embedded) must give the same kernels again in eval mode, and gives others: the file would hold another network"
            )
    return problem or _problem_with_whole(representation) or _problem_with_gradients(representation)


def _problem_with_whole(representation: Representation) -> str | None:
    """What is wrong with all weights at once, where a predictor of a plugin gives them."""
    whole, weights = getattr(representation.predictor, "whole", None), representation.grid.weights
    if whole is None or representation.base is not None or is_own(representation.predictor):
        return None
    with torch.no_grad():
        flat: Any = whole(representation.embedding)
    return None if flat is None else problem_with_numbers(flat, [weights], "whole(embedding)")


def _problem_with_gradients(representation: Representation) -> str | None:
    """Find a trained parameter of the predictor on which no kernel depends. First a few kernels of each layer are tried, then all."""
    trained = {name: value for name, value in representation.predictor.named_parameters() if value.requires_grad}
    table, groups = representation.table, representation.groups
    some = table.starts if groups is None else groups.rows(groups.of(table.starts))
    for rows in (some, None):
        if not trained:
            return None
        kernels = representation.predict(rows)
        if not kernels.requires_grad:
            return "no gradient reaches its parameters: forward(embedded) must be differentiable in them"
        gradients = torch.autograd.grad(kernels.sum(), list(trained.values()), allow_unused=True)
        trained = {name: value for (name, value), gradient in zip(trained.items(), gradients, strict=True) if gradient is None}
    unused = next(iter(trained), None)
    return unused and (
        f"no kernel depends on parameter '{unused}', which every file would hold: use it in forward(), "
        "or make it no parameter that is trained (requires_grad_(False))"
    )


@torch.no_grad()
def problem_with_base(representation: Representation, rows: Tensor) -> str | None:
    """What is wrong with the kernels that a representation's base, where it has one, gives for some rows [n] int64."""
    base = representation.base
    if base is None:
        return None
    added = base(rows)
    problem = problem_with_numbers(added, [len(rows), representation.grid.outputs], "forward(rows)")
    if problem is None and not torch.allclose(base(rows[-1:]), added[-1:], rtol=1e-3, atol=1e-6):
        problem = "forward(rows) must give a row the same among any others, and gives others"
    return problem


def problem_with_shape(value: Any, shape: list[int], what: str) -> str | None:
    """What is wrong with a value that must be a floating-point tensor of a shape; `what` names the method that gave it."""
    if isinstance(value, Tensor) and list(value.shape) == shape and value.is_floating_point() and not value.is_meta:
        return None
    return f"{what} must give {shape} float32, gave {described_value(value)}"


def problem_with_numbers(value: Any, shape: list[int], what: str) -> str | None:
    """The same for a value whose numbers must be finite, too."""
    problem = problem_with_shape(value, shape, what)
    return problem or (None if bool(value.isfinite().all()) else f"{what} must give finite numbers, and gives others")


def _problem_with_list(what: str, value: Any, of: type, called: str) -> str | None:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return f"{what} must give a list of {called}, gave {described_value(value)}"
    other = next((item for item in value if not isinstance(item, of)), None)
    return None if other is None else f"{what} must give a list of {called}, gave {described_value(other)} in it"


def _problem_with_shape_of(layer: LayerMapping, weight: Tensor) -> str | None:
    if tuple(weight.shape) == tuple(layer.shape):
        return None
    return f"layers() maps '{layer.parameter}' with shape {list(layer.shape)}, and the network's has {list(weight.shape)}"


def _alike(again: Tensor, before: Tensor) -> bool:
    """Whether two results of the same computation are equal, as far as a device computes the same twice."""
    return torch.allclose(again, before, rtol=1e-3, atol=1e-6 * max(1.0, float(before.detach().abs().max())))
