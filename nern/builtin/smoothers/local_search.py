"""Paths that are shorter than the greedy ones and take as many bits."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import torch
from torch import Tensor

from nern import FilterOrder, KernelOrder, LayerOrder, Smoother, at_least, greedy_path, hookimpl, option
from nern.toolkit.orders import greedy_paths, shorter_path


@attrs.frozen
class LocalSearch(Smoother):
    """Options of the smoothers that improve a greedy path."""

    neighbours: int = option(8, help="how many nearest kernels are tried as neighbours on the path", check=at_least(1))
    rounds: int = option(50, help="most rounds of moves; the search ends earlier where no move is left", check=at_least(1))

    def shorter(self, vectors: Tensor, path: Tensor) -> Tensor:
        """A path [n] through vectors [n, d] that is not longer than `path` [n]."""
        return shorter_path(vectors, path, self.neighbours, self.rounds)


@attrs.frozen
class CrossFilter2Opt(LocalSearch):
    """A greedy path through all kernels of a layer, shortened by 2-opt and Or-opt moves; stored in F·C·⌈log₂(F·C)⌉ bits."""

    def order(self, kernels: Tensor) -> LayerOrder:
        filters, channels = kernels.shape[:2]
        vectors = kernels.reshape(filters * channels, -1)
        return KernelOrder(filters, channels, self.shorter(vectors, greedy_path(vectors)))


@attrs.frozen
class InFilter2Opt(LocalSearch):
    """Greedy paths inside each filter and through the filters, shortened; stored in F·C·⌈log₂ C⌉ + F·⌈log₂ F⌉ bits."""

    def order(self, kernels: Tensor) -> LayerOrder:
        filters, channels = kernels.shape[:2]
        greedy = greedy_paths(kernels)
        inner = torch.stack([self.shorter(kernels[f], greedy[f]) for f in range(filters)])
        ordered = kernels.take_along_dim(inner[:, :, None], dim=1).reshape(filters, -1)
        return FilterOrder(filters, channels, inner, self.shorter(ordered, greedy_path(ordered)))


@hookimpl
def nern_smoothers() -> Mapping[str, type[Smoother]]:
    return {"cross-filter-2opt": CrossFilter2Opt, "in-filter-2opt": InFilter2Opt}
