"""In each step all kernels of one layer carry gradient: of a random layer, or of the layers one after the other."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import torch
from torch import Tensor

from nern import Draw, Sampler, generator, hookimpl


def _rows_by_layer(layers: Tensor) -> list[Tensor]:
    return [(layers == layer).nonzero().squeeze(1) for layer in sorted(set(layers.tolist()))]


@attrs.frozen
class RandomLayer(Sampler):
    """All kernels of one random layer (Ashkenazi et al. 2023, sec. 3.2)."""

    def start(self, norms: Tensor, layers: Tensor, seed: int) -> Draw:
        rows = _rows_by_layer(layers)
        return lambda step: rows[int(torch.randint(len(rows), (), generator=generator(seed, step)))]


@attrs.frozen
class LayersInTurn(Sampler):
    """All kernels of one layer, which is the next layer in every step."""

    def start(self, norms: Tensor, layers: Tensor, seed: int) -> Draw:
        rows = _rows_by_layer(layers)
        return lambda step: rows[step % len(rows)]


@hookimpl
def nern_samplers() -> Mapping[str, type[Sampler]]:
    return {"random-layer": RandomLayer, "layers-in-turn": LayersInTurn}
