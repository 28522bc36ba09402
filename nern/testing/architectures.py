"""Checks an architecture."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from nern.artifact.artifact import Artifact
from nern.errors import ConfigError
from nern.hookspecs import hookimpl
from nern.interfaces import Architecture, Preprocessing
from nern.kernels.coordinates import KernelGrid, LayerMapping
from nern.kernels.orders import LayerOrder, Unordered
from nern.networks.pair import NetworkPair
from nern.networks.state_dicts import digest
from nern.networks.tracing import trace_forward
from nern.outputs.nested import call, described, map_tensors, moved, tensors_of
from nern.registry.discovery import create_registry
from nern.representation.assembling import assemble
from nern.representation.component_contracts import (
    problem_with_coordinates,
    problem_with_example_inputs,
    problem_with_features,
    problem_with_layers,
    problem_with_mapping,
    problem_with_second_call,
)
from nern.run.file_check import check_file
from nern.support.contracts import renamed_for_now
from nern.support.files import write_tensors
from nern.support.seeding import generator, seeded
from nern.testing.assertions import close, expect, expect_none, same
from nern.testing.modules import build_seeded, check_moves, device_of
from nern.testing.options import check_options


def check_architecture(architecture: Architecture) -> None:
    """Check that building is reproducible, the network runs, weights and kernels convert both ways, and weights can be loaded."""
    check_options("architecture", architecture)
    network, again = (build_seeded(architecture.built) for _ in range(2))
    expect(same(network.state_dict(), again.state_dict()), "build() gives other weights under the same seed")
    network.eval()
    layers = list(architecture.layers(network))
    expect_none(problem_with_layers(layers, network))
    expect_none(problem_with_second_call(layers, architecture.layers(network)))
    state = network.state_dict()
    for layer in layers:
        _check_mapping(layer, state[layer.parameter])
    grid = KernelGrid(tuple(layers))
    columns = {layer.coordinates().shape[1] for layer in layers}
    expect(len(columns) == 1, f"layers have coordinates of {' and '.join(map(str, sorted(columns)))} columns; give all of them the same")
    expect_none(problem_with_coordinates(grid.coordinates()))
    preprocessing = architecture.preprocessing()
    expect(isinstance(preprocessing, Preprocessing), "preprocessing() must return a nern.Preprocessing")
    expect_none(problem_with_example_inputs(architecture.example_inputs(2), network))
    inputs = _noisy(architecture.example_inputs(2))
    expect_none(problem_with_features(architecture.features(network), network))
    features = list(architecture.features(network))
    outputs = _check_features(network, features, inputs)
    expect(all(bool(value.isfinite().all()) for value in _floats(outputs)), "the network's outputs are not finite")
    _check_pair(network, layers, features, inputs, outputs)
    _check_weights(architecture, network)
    _check_file(architecture, network, grid)
    check_moves(network, lambda module: _floats(call(module, moved(inputs, device_of(module))))[0], "network")


def _check_mapping(layer: LayerMapping, weight: Tensor) -> None:
    name = layer.parameter
    expect(layer.filters * layer.channels == layer.count, f"layer '{name}': filters · channels must be count ({layer.count})")
    coordinates = layer.coordinates()
    expect_none(problem_with_coordinates(coordinates))
    expect(len(coordinates) == layer.count, f"layer '{name}': coordinates() must give one row for each of its {layer.count} kernels")
    expect(bool((coordinates >= 0).all()), f"layer '{name}': coordinates() must not be negative")
    distinct = 1 + torch.arange(weight.numel(), dtype=torch.float64).reshape(weight.shape)
    expect_none(problem_with_mapping(layer, distinct))
    kernels = layer.split(distinct)
    leaf = kernels.clone().requires_grad_()
    (layer.join(leaf) * distinct).sum().backward()  # type: ignore[no-untyped-call]
    reached = 0 if leaf.grad is None else int(leaf.grad.ne(0).sum())
    expect(reached == weight.numel(), f"layer '{name}': join() passes gradients for {reached} of {weight.numel()} weights")


def _check_features(network: nn.Module, features: Sequence[str], inputs: Any) -> Any:
    """Run the network and check its feature maps; returns its outputs."""
    with torch.no_grad():
        outputs: Any = call(network, inputs)
    floats = _floats(outputs)
    expect(len(floats) > 0, f"the network gives {described(outputs)}, in which there is no tensor of floating-point numbers")
    expect(all(len(value) == 2 for value in floats if value.dim()), "every output must have one entry for each image, [b, ...]")
    made = [event.name for event in trace_forward(network, inputs)]
    called = [name for name in made if name in features]
    expect(called == list(features), f"features() must be in forward order, each called once: {called} is what ran")
    with torch.no_grad():
        again = tensors_of(call(network, inputs))
    same_again = all(torch.equal(a, b) for a, b in zip(tensors_of(outputs), again, strict=True))
    expect(same_again, "the network in eval mode gives other outputs each time")
    return outputs


def _check_pair(network: nn.Module, layers: Sequence[LayerMapping], features: Sequence[str], inputs: Any, given: Any) -> None:
    pair = NetworkPair(network, features, device=torch.device("cpu"))
    _close(pair.original(inputs).logits, given, "the network gives other outputs when it is trained against")
    weights = {layer.parameter: network.state_dict()[layer.parameter].clone().requires_grad_() for layer in layers}
    outputs = pair.reconstructed(inputs, weights, features=True)
    _close(outputs.logits, given, "the network gives other outputs when its own weights are handed in")
    torch.stack([value.square().sum() for value in _floats(outputs.logits)]).sum().backward()  # type: ignore[no-untyped-call]
    for name, weight in weights.items():
        expect(weight.grad is not None, f"layer '{name}' does not reach the outputs: its convolution is never called")


def _noisy(inputs: Any) -> Any:
    """Inputs whose floating-point tensors are replaced by noise; integers, such as tokens, stay as they are."""
    numbers = iter(range(1000))

    def noise(value: Tensor) -> Tensor:
        if not value.is_floating_point():
            return value
        number = next(numbers)
        return torch.randn(value.shape, generator=generator(0, "inputs", *([number] if number else [])))

    return map_tensors(noise, inputs)


def _floats(outputs: Any) -> list[Tensor]:
    return [value for value in tensors_of(outputs) if value.is_floating_point()]


def _close(a: Any, b: Any, message: str) -> None:
    for x, y in zip(_floats(a), _floats(b), strict=True):
        close(x, y, message, 1e-3)


def _check_weights(architecture: Architecture, network: nn.Module) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        write_tensors(path, network.state_dict())
        fresh = architecture.built().eval()
        dtypes = attrs.evolve(architecture, weights=str(path)).load(fresh)
    expect(same(fresh.state_dict(), network.state_dict()), "load() does not give back the weights of a file")
    expect(set(dtypes) == set(network.state_dict()), "load() must return the dtype of every entry of the state dict")


def _check_file(architecture: Architecture, network: nn.Module, grid: KernelGrid) -> None:
    """Check that an untrained representation of the network can be written and read back."""

    class Plugin:
        @hookimpl
        def nern_architectures(self) -> Mapping[str, type[Architecture]]:
            return {"checked": type(architecture)}

    registry = create_registry(entry_points=False)
    if type(architecture) not in [entry.cls for entry in registry.entries("architecture")]:
        with renamed_for_now(type(architecture)):
            registry.register(Plugin(), "checked")
    embedding, predictor = registry.find("embedding", "positional").cls(), registry.find("predictor", "mlp").cls(hidden=4)
    orders: list[LayerOrder] = [Unordered(layer.filters, layer.channels) for layer in grid.layers]
    with seeded(0, "predictor"):
        representation = assemble(grid, orders, embedding, predictor)
    state = network.state_dict()
    dtypes = {name: value.dtype for name, value in state.items()}
    artifact = Artifact(representation, architecture, embedding, predictor, network, dtypes, registry, digest(state), {})
    with tempfile.TemporaryDirectory() as folder:
        try:
            check_file(artifact, Path(folder))
        except ConfigError as error:
            raise AssertionError(str(error)) from error
