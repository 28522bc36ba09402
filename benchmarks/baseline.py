"""A straightforward version of the paper's training loop: eager, in float32, with all intermediate results in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F


def quadratic_path(vectors: Tensor) -> Tensor:
    """Greedy nearest-neighbour path from vector 0 by cosine distance, comparing with all vectors in every step."""
    points = vectors.double().numpy()
    norms = np.linalg.norm(points, axis=1)
    path, visited = [0], np.zeros(len(points), bool)
    visited[0] = True
    for _ in range(1, len(points)):
        here = path[-1]
        distances = 1 - points @ points[here] / np.maximum(norms * norms[here], 1e-12)
        distances[visited] = np.inf
        nearest = int(distances.argmin())
        visited[nearest] = True
        path.append(nearest)
    return torch.tensor(path)


def embed(coordinates: Tensor, base: float, frequencies: int) -> Tensor:
    """Eq. 1, concatenated over layer, filter and channel: [n, 3] → [n, 6N] float32."""
    powers = math.pi * base ** torch.arange(frequencies, dtype=torch.float64)
    angles = coordinates.double()[:, :, None] * powers
    return torch.stack([angles.sin(), angles.cos()], dim=3).flatten(1).float()


class BaselineLoop:
    """Trains a predictor of all convolutions, whose kernels must have the same size.

    Args:
        network: the original network, in eval mode.
        convolutions: names of its convolutions' weights, in order.
        orders: for each, the original kernel at each coordinate, [f · c] int64.
        features: names of the modules whose outputs are compared.
        predictor: from [n, 6N] to [n, k²].
        draw: function from the step to the rows that carry gradient, [m] int64.
        inputs: function from the step to images [b, c, h, w].
        weights: factors of the reconstruction loss, KD and FMD.
    """

    def __init__(
        self,
        network: nn.Module,
        convolutions: Sequence[str],
        orders: Sequence[Tensor],
        features: Sequence[str],
        predictor: nn.Module,
        optimizer: torch.optim.Optimizer,
        draw: Callable[[int], Tensor],
        inputs: Callable[[int], Tensor],
        weights: tuple[float, float, float],
        base: float = 0.76,
        frequencies: int = 40,
    ) -> None:
        self.network, self.predictor, self.optimizer = network, predictor, optimizer
        self.draw, self.inputs, self.factors = draw, inputs, weights
        self.originals = {name: network.get_parameter(name).detach() for name in convolutions}
        self.orders, coordinates = list(orders), []
        for layer, weight in enumerate(self.originals.values()):
            filters, channels = weight.shape[:2]
            index = torch.arange(filters * channels)
            coordinates.append(torch.stack([torch.full_like(index, layer), index // channels, index % channels], dim=1))
        self.embedded = embed(torch.cat(coordinates), base, frequencies)
        self.features: list[Tensor] = []
        for name in features:
            network.get_submodule(name).register_forward_hook(lambda module, inputs, output: self.features.append(output))

    def step(self, step: int) -> dict[str, float]:
        """One step; returns the unweighted losses."""
        terms = self.losses(step)
        total = sum(factor * term for factor, term in zip(self.factors, terms.values(), strict=True))
        self.optimizer.zero_grad()
        total.backward()
        self.optimizer.step()
        return {name: term.item() for name, term in terms.items()}

    def losses(self, step: int) -> dict[str, Tensor]:
        """Eqs. 3 (as a root mean square), 5 and 4."""
        rows = self.draw(step).unique()  # a kernel that was drawn twice counts once
        with torch.no_grad():
            kernels = self.predictor(self.embedded)
        kernels = kernels.index_put((rows,), self.predictor(self.embedded[rows]))
        predicted, start = {}, 0
        for (name, weight), order in zip(self.originals.items(), self.orders, strict=True):
            part = kernels[start : start + len(order)]
            predicted[name] = torch.empty_like(part).index_put((order,), part).reshape(weight.shape)
            start += len(order)
        images = self.inputs(step)
        with torch.no_grad():
            original, maps = self.run({}, images)
        reconstructed, own_maps = self.run(predicted, images)
        squares = sum((predicted[name] - weight).square().sum() for name, weight in self.originals.items())
        count = sum(weight.numel() for weight in self.originals.values())
        distances = []
        for a, b in zip(maps, own_maps, strict=True):
            a, b = a.flatten(1), b.flatten(1)
            a, b = (x / (x.norm(dim=1, keepdim=True) + 1e-3) for x in (a, b))
            distances.append((a - b).square().sum(1).mean())
        return {
            "reconstruction": (squares / count).sqrt(),
            "kd": F.kl_div(F.log_softmax(reconstructed, 1), F.softmax(original, 1), reduction="batchmean"),
            "fmd": torch.stack(distances).sum(),
        }

    def run(self, weights: dict[str, Tensor], images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits and feature maps of the network with some weights replaced."""
        self.features = []
        return functional_call(self.network, weights, (images,)), self.features
