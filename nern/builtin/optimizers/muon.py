"""Muon on matrices, AdamW on the rest (Jordan et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import torch
from torch import nn

from nern import Optimizer, above, at_least, below, hookimpl, option
from nern.toolkit.optimizers import on_gpu


@attrs.frozen
class Muon(Optimizer):
    """Momentum with orthogonalised updates on matrices (Jordan et al. 2024), AdamW on everything else."""

    lr: float = option(5e-3, help="learning rate of the matrices, at AdamW's scale of updates", check=above(0))
    momentum: float = option(0.95, help="momentum of the matrices", check=[at_least(0), below(1)])
    weight_decay: float = option(0.0, help="decoupled weight decay of the matrices", check=at_least(0))
    other_lr: float = option(0.1, help="learning rate of everything else, as a multiple of lr", check=above(0))

    def start(self, parameters: Sequence[tuple[str, nn.Parameter]]) -> list[torch.optim.Optimizer]:
        matrices = [parameter for _, parameter in parameters if parameter.dim() == 2]
        others = [parameter for _, parameter in parameters if parameter.dim() != 2]
        started: list[torch.optim.Optimizer] = []
        if matrices:
            started.append(
                torch.optim.Muon(
                    matrices, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay, adjust_lr_fn="match_rms_adamw"
                )
            )
        if others:
            started.append(torch.optim.AdamW(others, lr=self.lr * self.other_lr, weight_decay=0.0, fused=on_gpu(others)))
        return started


@hookimpl
def nern_optimizers() -> Mapping[str, type[Optimizer]]:
    return {"muon": Muon}
