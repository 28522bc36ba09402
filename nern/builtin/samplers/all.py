"""Every kernel carries gradient in every step."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
from torch import Tensor

from nern import Draw, Sampler, hookimpl


@attrs.frozen
class All(Sampler):
    """All kernels in every step (Ashkenazi et al. 2023, Table 7)."""

    def start(self, norms: Tensor, layers: Tensor, seed: int) -> Draw:
        return lambda step: None


@hookimpl
def nern_samplers() -> Mapping[str, type[Sampler]]:
    return {"all": All}
