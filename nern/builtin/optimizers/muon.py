"""Muon on matrices, AdamW on the rest (Jordan et al. 2024).

An update at AdamW's scale has a spectral norm that grows with the square root of the matrix's width. At the learning rate that suits
a predictor of a hundred or two units, a predictor of a thousand therefore learns nothing. The option `width` keeps the norm where
it is for matrices of that width (as in the spectral condition of Yang, Simon and Bernstein 2023).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter

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
    width: int | None = option(
        360, help="rows or columns up to which a matrix takes the whole learning rate; one of n takes √(width / n) of it; null: all of it",
        check=at_least(1),
    )  # fmt: skip
    other_lr: float = option(0.1, help="learning rate of everything else, as a multiple of lr", check=above(0))

    def start(self, parameters: Sequence[tuple[str, nn.Parameter]]) -> list[torch.optim.Optimizer]:
        matrices = [parameter for _, parameter in parameters if parameter.dim() == 2]
        others = [parameter for _, parameter in parameters if parameter.dim() != 2]
        started: list[torch.optim.Optimizer] = []
        if matrices:
            groups: dict[float, list[nn.Parameter]] = {}
            for matrix in matrices:
                groups.setdefault(self.lr * self._part(max(matrix.shape)), []).append(matrix)
            started.append(
                torch.optim.Muon(
                    [{"params": alike, "lr": lr} for lr, alike in sorted(groups.items(), key=itemgetter(0), reverse=True)],
                    lr=self.lr,
                    momentum=self.momentum,
                    weight_decay=self.weight_decay,
                    adjust_lr_fn="match_rms_adamw",
                )
            )
        if others:
            started.append(torch.optim.AdamW(others, lr=self.lr * self.other_lr, weight_decay=0.0, fused=on_gpu(others)))
        return started

    def _part(self, size: int) -> float:
        """The part of the learning rate that a matrix takes whose longer side has this size."""
        return 1.0 if self.width is None else min(1.0, (self.width / size) ** 0.5)


@hookimpl
def nern_optimizers() -> Mapping[str, type[Optimizer]]:
    return {"muon": Muon}
