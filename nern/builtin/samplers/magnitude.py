"""A mixture of uniform sampling and sampling in proportion to the kernels' norm."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import torch
from torch import Tensor

from nern import Draw, Sampler, at_least, at_most, generator, hookimpl, option
from nern.toolkit.draws import distinct


@attrs.frozen
class Magnitude(Sampler):
    """Uniform steps mixed with steps in proportion to kernel norm (Ashkenazi et al. 2023, sec. 3.2)."""

    batch: int = option(4096, help="kernels that carry gradient in a step", check=at_least(1))
    uniform: float = option(0.8, help="probability p_uni that a step draws uniformly, without replacement", check=[at_least(0), at_most(1)])

    def start(self, norms: Tensor, layers: Tensor, seed: int) -> Draw:
        n, device = len(norms), norms.device
        cumulative = norms.double().cumsum(0)
        total = float(cumulative[-1])

        def draw(step: int) -> Tensor:
            if float(torch.rand((), generator=generator(seed, step, "kind"))) < self.uniform or not total > 0:
                return distinct(self.batch, n, generator(seed, step, device=device))
            points = torch.rand(self.batch, generator=generator(seed, step, device=device), device=device, dtype=torch.float64)
            return torch.searchsorted(cumulative, points * total, right=True).clamp_max(n - 1)

        return draw


@hookimpl
def nern_samplers() -> Mapping[str, type[Sampler]]:
    return {"magnitude": Magnitude}
