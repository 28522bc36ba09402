"""A uniform batch of kernels, with or without replacement."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import torch
from torch import Tensor

from nern import Draw, Sampler, at_least, generator, hookimpl, option
from nern.toolkit.draws import distinct


@attrs.frozen
class Uniform(Sampler):
    """A uniform batch of kernels (Ashkenazi et al. 2023, sec. 3.2)."""

    batch: int = option(4096, help="kernels that carry gradient in a step", check=at_least(1))
    replacement: bool = option(False, help="whether a kernel may be drawn twice in a step")

    def start(self, norms: Tensor, layers: Tensor, seed: int) -> Draw:
        n, device = len(norms), norms.device

        def draw(step: int) -> Tensor:
            source = generator(seed, step, device=device)
            if self.replacement:
                return torch.randint(n, (self.batch,), generator=source, device=device)
            return distinct(self.batch, n, source)

        return draw


@hookimpl
def nern_samplers() -> Mapping[str, type[Sampler]]:
    return {"uniform": Uniform}
