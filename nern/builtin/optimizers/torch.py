"""Optimisers of torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import torch
from torch import nn

from nern import Optimizer, OptionError, above, at_least, below, hookimpl, option
from nern.toolkit.optimizers import on_gpu, two_decays


@attrs.frozen
class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    lr: float = option(1e-3, help="learning rate at the start of the schedule", check=above(0))
    betas: list[float] = option(factory=lambda: [0.9, 0.999], help="decay of the moments", check=two_decays)
    weight_decay: float = option(0.0, help="decoupled weight decay", check=at_least(0))
    eps: float = option(1e-8, help="added to the denominator", check=above(0))

    def start(self, parameters: Sequence[tuple[str, nn.Parameter]]) -> list[torch.optim.Optimizer]:
        values = [parameter for _, parameter in parameters]
        return [
            torch.optim.AdamW(
                values,
                lr=self.lr,
                betas=(self.betas[0], self.betas[1]),
                weight_decay=self.weight_decay,
                eps=self.eps,
                fused=on_gpu(values),
            )
        ]


@attrs.frozen
class SGD(Optimizer):
    """Stochastic gradient descent with momentum."""

    lr: float = option(0.1, help="learning rate at the start of the schedule", check=above(0))
    momentum: float = option(0.9, help="momentum", check=[at_least(0), below(1)])
    nesterov: bool = option(False, help="Nesterov momentum")
    weight_decay: float = option(0.0, help="ℓ2 penalty", check=at_least(0))

    def __attrs_post_init__(self) -> None:
        Optimizer.__attrs_post_init__(self)
        if self.nesterov and self.momentum == 0:
            raise OptionError("nesterov", "must be false where momentum is 0")

    def start(self, parameters: Sequence[tuple[str, nn.Parameter]]) -> list[torch.optim.Optimizer]:
        values = [parameter for _, parameter in parameters]
        return [
            torch.optim.SGD(
                values, lr=self.lr, momentum=self.momentum, nesterov=self.nesterov, weight_decay=self.weight_decay, fused=on_gpu(values)
            )
        ]


@hookimpl
def nern_optimizers() -> Mapping[str, type[Optimizer]]:
    return {"adamw": AdamW, "sgd": SGD}
