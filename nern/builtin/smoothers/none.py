"""No ordering: every kernel keeps its own coordinate."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
from torch import Tensor

from nern import LayerOrder, Smoother, Unordered, hookimpl


@attrs.frozen
class NoSmoother(Smoother):
    """Kernels stay in place, and nothing is stored (Ashkenazi et al. 2023, sec. 4.5)."""

    def order(self, kernels: Tensor) -> LayerOrder:
        return Unordered(kernels.shape[0], kernels.shape[1])


@hookimpl
def nern_smoothers() -> Mapping[str, type[Smoother]]:
    return {"none": NoSmoother}
