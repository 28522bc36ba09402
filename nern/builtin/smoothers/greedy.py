"""Greedy shortest paths through the kernels of a layer (Ashkenazi et al. 2023, sec. 3.3)."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
from torch import Tensor

from nern import FilterOrder, KernelOrder, LayerOrder, Smoother, greedy_path, hookimpl
from nern.toolkit.orders import greedy_paths


@attrs.frozen
class CrossFilter(Smoother):
    """One greedy path through all F·C kernels of a layer; stored in F·C·⌈log₂(F·C)⌉ bits."""

    def order(self, kernels: Tensor) -> LayerOrder:
        filters, channels = kernels.shape[:2]
        return KernelOrder(filters, channels, greedy_path(kernels.reshape(filters * channels, -1)))


@attrs.frozen
class InFilter(Smoother):
    """A greedy path inside each filter, then through the ordered filters; stored in F·C·⌈log₂ C⌉ + F·⌈log₂ F⌉ bits."""

    def order(self, kernels: Tensor) -> LayerOrder:
        filters, channels = kernels.shape[:2]
        inner = greedy_paths(kernels)
        ordered = kernels.take_along_dim(inner[:, :, None], dim=1)
        return FilterOrder(filters, channels, inner, greedy_path(ordered.reshape(filters, -1)))


@hookimpl
def nern_smoothers() -> Mapping[str, type[Smoother]]:
    return {"cross-filter": CrossFilter, "in-filter": InFilter}
