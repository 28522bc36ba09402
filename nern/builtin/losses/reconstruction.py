"""Distance between original and predicted weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import attrs
import torch
from torch import Tensor

from nern import Kernels, Loss, LossContext, at_least, hookimpl, option


@attrs.frozen
class Reconstruction(Loss):
    """Weight reconstruction loss (Ashkenazi et al. 2023, eq. 3)."""

    form: Literal["rms", "norm", "mse"] = option("rms", help="rms: √(‖W − Ŵ‖²/|W|); norm: ‖W − Ŵ‖/|W|, eq. 3 as printed; mse: ‖W − Ŵ‖²/|W|")
    balance: float = option(
        0.0,
        help="divides each layer's squared errors by its mean squared weight to this power, relative to the network's: 0 is eq. 3, "
        "1 counts relative errors, for networks whose layers differ in scale",
        check=at_least(0),
    )
    needs: ClassVar[Literal["weights", "logits", "features", "bits"]] = "weights"

    def start(self, context: LossContext) -> Callable[[Any, Any], Tensor]:
        if self.balance == 0:
            return self
        kernels = context.kernels
        rows = self._balanced(kernels, len(context.grid.layers))[kernels.layer].float()
        return lambda original, reconstructed: self._loss(original, reconstructed, rows)

    def _balanced(self, kernels: Kernels, layers: int) -> Tensor:
        """The factor of each layer, (m / m_l)^balance [layers], where m_l is the layer's mean square and m that of all layers."""
        squares, counts = (torch.zeros(layers, dtype=torch.float64, device=kernels.index.device) for _ in range(2))
        for part in kernels.parts():
            squares.index_add_(0, part.layer, part.values.double().square().sum(1))
            counts.index_add_(0, part.layer, part.count.double())
        means, mean = squares / counts.clamp_min(1), squares.sum() / counts.sum()
        # a layer that is all zero keeps the factor 1
        return torch.where(means > 0, (mean / means.clamp_min(1e-30)) ** self.balance, 1.0)

    def __call__(self, original: Kernels, reconstructed: Kernels) -> Tensor:
        return self._loss(original, reconstructed, None)

    def _loss(self, original: Kernels, reconstructed: Kernels, factors: Tensor | None) -> Tensor:
        terms, counts = [], []
        for real, predicted in original.beside(reconstructed):
            errors = (real.values - predicted.values).square()
            terms.append(errors.sum() if factors is None else (errors.sum(1) * factors[real.index]).sum())
            counts.append(real.count.sum())
        squares, count = torch.stack(terms).sum(), torch.stack(counts).sum()
        if self.form == "mse":
            return squares / count
        # the square root has no gradient at zero, where the weights are equal already
        root = squares.clamp_min(1e-30).sqrt()
        return root / count.sqrt() if self.form == "rms" else root / count


@hookimpl
def nern_losses() -> Mapping[str, type[Loss]]:
    return {"reconstruction": Reconstruction}
