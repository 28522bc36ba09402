"""The smoothness of a network's kernels (Ashkenazi et al. 2023, eq. 6)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nern.kernels.coordinates import KernelGrid, LayerMapping
from nern.kernels.distances import pair_distances
from nern.kernels.orders import LayerOrder


def layer_smoothness(kernels: Tensor) -> Tensor:
    """The term of one layer in eq. 6: distances of each kernel to its neighbours in the next filter and channel.

    Args:
        kernels: [filters, channels, kh·kw]; cosine distance, ℓ2 for 1 × 1 kernels.

    Returns:
        A scalar, differentiable; 0 where a layer has one filter or one channel.
    """
    here = kernels[:-1, :-1]
    total: Tensor = (pair_distances(here, kernels[1:, :-1]) + pair_distances(here, kernels[:-1, 1:])).sum()
    return total


def grid_smoothness(grid: KernelGrid, parameters: dict[str, Tensor], orders: list[LayerOrder] | None = None) -> float:
    """Eq. 6 over all represented layers, in float64, with the kernels in their original or in a given order."""
    total = 0.0
    for index, layer in enumerate(grid.layers):
        kernels = layer.split(parameters[layer.parameter].detach().double()).flatten(1)
        if orders is not None:
            kernels = kernels[orders[index].indices().to(kernels.device)]
        total += float(layer_smoothness(kernels.reshape(layer.filters, layer.channels, -1)))
    return total


def weights_smoothness(layers: Sequence[LayerMapping], weights: Sequence[Tensor]) -> Tensor:
    """Eq. 6 for the weights of layers, differentiable: the regularisation term of sec. 3.3."""
    terms = []
    for layer, weight in zip(layers, weights, strict=True):
        terms.append(layer_smoothness(layer.split(weight).reshape(layer.filters, layer.channels, -1)))
    return torch.stack(terms).sum()
