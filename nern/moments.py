"""How much a kernel's error weighs in what a network computes, from the second moments of its activations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nern.coordinates import KernelGrid, LayerMapping
from nern.errors import ConfigError
from nern.networks import NetworkPair
from nern.ordering import LayerOrder

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)


def kernel_moments(pair: NetworkPair, grid: KernelGrid, orders: Sequence[LayerOrder], batches: Iterable[Tensor]) -> Tensor:
    """E[x²] · s² of every row of the grid, [rows] float64 on the CPU.

    x is what the kernel's channel is multiplied with, over images and places; s is the factor that a batch norm behind the
    convolution puts on the kernel's filter, where `nern.networks.fold_batch_norms` folds it, and 1 elsewhere. An error Δ of
    independent weights then changes the map behind the norm by E[x²] · s² · ‖Δ‖² in the mean square. Several calls of a
    layer add up.

    Args:
        orders: of every layer; empty for the original order.
        batches: normalised inputs [b, c, h, w].

    Raises:
        ConfigError: a represented weight is not that of a convolution, or the network never calls it.
    """
    network, scales = pair.network, pair.scales
    holders: dict[int, list[nn.Module]] = {}
    for module in network.modules():
        if isinstance(module, CONVOLUTIONS):
            holders.setdefault(id(module.weight), []).append(module)
    parameters = dict(network.named_parameters())
    sums: dict[str, Tensor] = {}
    handles, images = [], 0
    try:
        for layer in grid.layers:
            if id(parameters[layer.parameter]) not in holders:
                raise ConfigError(f"'{layer.parameter}' is not the weight of a convolution: what it meets is not known")
            for module in holders[id(parameters[layer.parameter])]:
                handles.append(module.register_forward_pre_hook(partial(_add, sums, layer.parameter)))
        for inputs in batches:
            pair.original(inputs)
            images += len(inputs)
    finally:
        for handle in handles:
            handle.remove()
    rows = []
    for index, layer in enumerate(grid.layers):
        if layer.parameter not in sums:
            raise ConfigError(f"'{layer.parameter}' meets no activations: nothing in the network calls it")
        moments = _of_kernels(layer, sums[layer.parameter] / images)
        if layer.parameter in scales:
            moments = moments * scales[layer.parameter].reshape(-1, 1).cpu().double().square()
        moments = moments.reshape(-1)
        rows.append(moments[orders[index].indices()] if orders else moments)
    return torch.cat(rows)


def _add(sums: dict[str, Tensor], name: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
    found = inputs[0].detach().float().square().flatten(2).mean(2).sum(0).double().cpu()
    sums[name] = sums[name] + found if name in sums else found


def _of_kernels(layer: LayerMapping, channels: Tensor) -> Tensor:
    """A number for each input channel [channels · groups] → for each kernel [filters, channels]."""
    groups = len(channels) // layer.channels
    if groups * layer.channels != len(channels) or layer.filters % groups:
        raise ConfigError(f"'{layer.parameter}' maps {layer.channels} channels of a layer that is given {len(channels)}")
    return channels.reshape(groups, 1, layer.channels).expand(-1, layer.filters // groups, -1).reshape(layer.filters, layer.channels)
