"""The original network, and everything that is derived from it before training starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from nern.config.experiment import Experiment
from nern.config.structuring import unstructure
from nern.errors import ConfigError
from nern.interfaces import Architecture
from nern.kernels.coordinates import KernelGrid
from nern.kernels.orders import ORDER_KINDS, BitReader, LayerOrder, Unordered, pack_orders
from nern.networks.batch_norm import Pair, absorb_batch_norms, absorbable, constant_entries
from nern.networks.state_dicts import digest, load_weights, trained_copies, with_weights
from nern.options import located
from nern.registry.registry import Registry
from nern.representation.component_contracts import problem_with_order
from nern.representation.quantization import rounded_copy
from nern.representation.representation import Representation
from nern.run.folder import RunFolder
from nern.support import cache
from nern.support.contracts import at_work, broken, described_value
from nern.support.seeding import fingerprint, seeded
from nern.support.threads import advance, in_parallel


class OriginalSource:
    """The source of a run's original network: a weights file, or training that the run does itself."""

    def __init__(self, experiment: Experiment, folder: RunFolder) -> None:
        self.experiment, self.folder = experiment, folder

    @property
    def available(self) -> bool:
        """Whether original weights exist already, in a file or from the run's own training."""
        return self.experiment.architecture.has_weights or self.folder.original.exists()

    def build(self) -> nn.Module:
        """The network with which its training starts."""
        return starting_network(self.experiment)

    def load(self) -> tuple[nn.Module, dict[str, torch.dtype]]:
        """Load the original network, in eval mode on the CPU; also returns the dtype of each state dict entry in the file.

        Raises:
            DataError: the weights are missing, or belong to another network.
        """
        network = _fresh(self.experiment).eval()
        if self.experiment.architecture.has_weights:
            return network, _loaded(self.experiment.architecture, network)
        return network, load_weights(network, self.folder.original)


def starting_network(experiment: Experiment) -> nn.Module:
    """The network with which the training of an experiment's original starts: fresh, or with the weights of `pretrain.weights`.

    Raises:
        DataError: these weights cannot be read, or belong to another network.
    """
    network = _fresh(experiment)
    if experiment.pretrain is not None and experiment.pretrain.weights is not None:
        with located("architecture"):
            _loaded(attrs.evolve(experiment.architecture, weights=experiment.pretrain.weights), network)
    return network


def _fresh(experiment: Experiment) -> nn.Module:
    with seeded(experiment.seed, "original"):
        return experiment.architecture.built()


def _loaded(architecture: Architecture, network: nn.Module) -> dict[str, torch.dtype]:
    """Load the weights that an architecture names; returns the dtype of each state dict entry in the file."""
    with at_work(architecture, "architecture"):
        dtypes: Any = architecture.load(network)
    if not isinstance(dtypes, Mapping):
        raise broken(
            architecture, "architecture",
            f"load() must give the dtype in the file of every entry of the state dict, gave {described_value(dtypes)}",
        )  # fmt: skip
    return dict(dtypes)


def original_fingerprint(experiment: Experiment, registry: Registry) -> str:
    """A fingerprint of how an experiment trains its original network: experiments that train equal networks have equal fingerprints."""
    resolved = unstructure(experiment, registry)
    start = (resolved["pretrain"] or {}).pop("weights", None)
    if start is None:
        for key in ("entry", "rename"):  # options for reading a weights file, which does not exist here
            resolved["architecture"].pop(key, None)
    else:
        resolved["pretrain"]["weights"] = digest(starting_network(experiment).state_dict())  # its content, wherever it lies
    return fingerprint(*(resolved[key] for key in ("architecture", "task", "pretrain", "heldout", "seed")))


@attrs.define
class Original:
    """An original network, its represented kernels and their order."""

    network: nn.Module
    dtypes: dict[str, torch.dtype]  # dtype of each entry in the weights file
    sha256: str
    grid: KernelGrid
    orders: list[LayerOrder]
    absorbed: list[Pair]  # batch norms whose scale is part of a represented convolution
    trained: list[str]  # copied parameters that are trained along
    copied: str = "exact"  # how the file stores copied entries

    @classmethod
    def of(
        cls,
        network: nn.Module,
        dtypes: dict[str, torch.dtype],
        experiment: Experiment,
        registry: Registry,
        report: Callable[[int, int], None] | None = None,
        roughly: bool = False,
    ) -> Original:
        """Map and order the kernels of a loaded network.

        Args:
            report: called during the ordering with the number of kernels done and their total; an exception from it ends the
                ordering.
            roughly: order the kernels by the first weight of each alone, which takes no time. Such an order gives the size of the
                file and the time of a step; it is of no use in training.

        Raises:
            ConfigError: the architecture's mapping does not match the network.
        """
        original = cls.unordered(network, dtypes, experiment)
        place = f"{original.sha256} folded" if experiment.fold_batch_norms else original.sha256
        original.orders = order_layers(original.grid, original.state, place, experiment, registry, report, roughly)
        return original

    @classmethod
    def unordered(cls, network: nn.Module, dtypes: dict[str, torch.dtype], experiment: Experiment) -> Original:
        """Map the kernels of a loaded network, and leave them in their own order.

        Raises:
            ConfigError: the architecture's mapping does not match the network.
        """
        grid, sha256 = represented_kernels(network, experiment), digest(dict(network.state_dict()))
        names = [layer.parameter for layer in grid.layers]
        absorbed, constants = [], list[str]()
        if experiment.fold_batch_norms:
            absorbed = absorbable(network, names)
            absorb_batch_norms(network, absorbed)
            constants = list(constant_entries(network, absorbed))
        trained = trained_copies(network, experiment.train, names, constants)
        orders: list[LayerOrder] = [Unordered(layer.filters, layer.channels) for layer in grid.layers]
        return cls(network, dtypes, sha256, grid, orders, absorbed, trained, experiment.copied)

    def with_stored_copies(self) -> nn.Module:
        """The network with copied entries rounded as the file stores them; the network itself where these are stored exactly."""
        if self.copied == "exact":
            return self.network
        represented = {layer.parameter for layer in self.grid.layers}
        left_out = represented | set(constant_entries(self.network, self.absorbed))
        entries = {name: value for name, value in self.state.items() if name not in left_out and value.is_floating_point()}
        return with_weights(self.network, {name: rounded_copy(value, self.copied) for name, value in entries.items()})

    def rebuilt(self, representation: Representation) -> nn.Module:
        """The network that the file of a representation gives."""
        return with_weights(self.with_stored_copies(), representation.reconstruct())

    def masks(self) -> dict[str, Tensor]:
        """Bool masks of the weights that are not zero, by parameter name, for represented layers that contain exact zeros."""
        weights = {layer.parameter: self.state[layer.parameter] for layer in self.grid.layers}
        return {name: weight != 0 for name, weight in weights.items() if bool((weight == 0).any())}

    @property
    def state(self) -> dict[str, Tensor]:
        """The original state dict."""
        return dict(self.network.state_dict())


def squared_errors(grid: KernelGrid, original: Mapping[str, Tensor], rebuilt: Mapping[str, Tensor]) -> dict[str, tuple[float, float]]:
    """‖W − Ŵ‖² and ‖W‖² of every layer of a grid, in double precision, from two state dicts."""
    errors = {}
    for name in (layer.parameter for layer in grid.layers):  # one layer at a time: all of them in double precision take much memory
        weight = original[name].double().cpu()
        errors[name] = float((weight - rebuilt[name].double().cpu()).square().sum()), float(weight.square().sum())
    return errors


def relative_error(errors: Mapping[str, tuple[float, float]]) -> float:
    """‖W − Ŵ‖² / ‖W‖² over all layers of `squared_errors`: 0 for exact weights, and 1 where the predictor gives zeros."""
    apart, norm = map(sum, zip(*errors.values(), strict=True))
    return apart / max(norm, torch.finfo(torch.float64).tiny)


def represented_kernels(network: nn.Module, experiment: Experiment) -> KernelGrid:
    """The kernels that the architecture maps to coordinates.

    Raises:
        ConfigError: there are none, or the architecture names a parameter that the network does not have.
    """
    state, layers = network.state_dict(), tuple(experiment.architecture.layers(network))
    for layer in layers:
        if layer.parameter not in state:
            raise ConfigError(f"architecture maps '{layer.parameter}', which is no parameter of the network")
    if not layers:
        raise ConfigError("architecture maps no convolution: there is nothing to represent")
    return KernelGrid(layers, experiment.small_kernels)


def order_layers(
    grid: KernelGrid,
    state: Mapping[str, Tensor],
    sha256: str,
    experiment: Experiment,
    registry: Registry,
    report: Callable[[int, int], None] | None = None,
    roughly: bool = False,
) -> list[LayerOrder]:
    """Order every layer, several at a time; the cache keeps orders by weights and smoother.

    Args:
        roughly: see `Original.of`; the cache does not keep such orders.
    """
    smoother = experiment.smoother
    layout = [(layer.parameter, layer.filters, layer.channels, layer.kernel) for layer in grid.layers]
    key = f"order-{fingerprint(sha256, unstructure(smoother, registry), layout)}"
    names = list(ORDER_KINDS)
    stored = cache.load(key)
    if stored is not None:
        with suppress(KeyError, IndexError, ValueError):  # the cache entry has another layout: order the layers again
            kinds = [names[index] for index in stored["kinds"].tolist()]
            reader = BitReader(stored["packed"])
            orders = [
                ORDER_KINDS[kind].from_bits(layer.filters, layer.channels, reader) for kind, layer in zip(kinds, grid.layers, strict=True)
            ]
            reader.finish()
            return orders

    def order(index: int) -> LayerOrder:
        layer = grid.layers[index]
        kernels = layer.split(state[layer.parameter].float()).reshape(layer.filters, layer.channels, -1)
        kernels = kernels[..., :1] if roughly else kernels
        with located("smoother"):
            layer_order = smoother.order(kernels)
        problem = problem_with_order(layer_order, layer.filters, layer.channels)
        if problem:
            raise broken(smoother, "smoother", f"{problem} ('{layer.parameter}')")
        advance(0)
        return layer_order

    largest_first = sorted(range(len(grid.layers)), key=lambda index: -grid.layers[index].count)
    done = in_parallel(
        [partial(order, index) for index in largest_first], report and (lambda kernels: report(min(kernels, grid.rows), grid.rows))
    )
    orders = [layer_order for _, layer_order in sorted(zip(largest_first, done, strict=True), key=lambda pair: pair[0])]
    if roughly:
        return orders
    cache.store(key, {"packed": pack_orders(orders), "kinds": torch.tensor([names.index(order.kind) for order in orders])})
    return orders
