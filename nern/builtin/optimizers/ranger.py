"""Ranger: RAdam and Lookahead (Wright 2019), the paper's optimiser."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import attrs
import torch
from torch import nn

from nern import Optimizer, above, at_least, at_most, hookimpl, option
from nern.toolkit.optimizers import two_decays


@attrs.frozen
class Ranger(Optimizer):
    """RAdam (Liu et al. 2020) inside Lookahead (Zhang et al. 2019), without gradient centralisation."""

    lr: float = option(5e-3, help="learning rate at the start of the schedule", check=above(0))
    final_lr: float = option(1e-6, help="learning rate at the end of the schedule", check=at_least(0))
    betas: list[float] = option(factory=lambda: [0.5, 0.999], help="decay of the moments", check=two_decays)
    eps: float = option(1e-5, help="added to the denominator", check=above(0))
    weight_decay: float = option(1e-3, help="decoupled weight decay", check=at_least(0))
    k: int = option(6, help="fast steps between two updates of the slow weights", check=at_least(1))
    alpha: float = option(
        0.5, help="step of the slow weights towards the fast ones, as a part of their distance", check=[above(0), at_most(1)]
    )

    def start(self, parameters: Sequence[tuple[str, nn.Parameter]]) -> list[torch.optim.Optimizer]:
        from torch_optimizer import Ranger as Implementation

        # the library calls add_ and addcmul_ with deprecated signatures, and torch warns at every call site
        warnings.filterwarnings("ignore", message="This overload of add", category=UserWarning)
        return [
            Implementation(
                [parameter for _, parameter in parameters],
                lr=self.lr, alpha=self.alpha, k=self.k, betas=(self.betas[0], self.betas[1]), eps=self.eps, weight_decay=self.weight_decay,
            )
        ]  # fmt: skip


@hookimpl
def nern_optimizers() -> Mapping[str, type[Optimizer]]:
    return {"ranger": Ranger}
