"""Feature-map distillation: the reconstructed network's activations follow the original's (Romero et al. 2015)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import attrs
import torch
from torch import Tensor

from nern.hookspecs import hookimpl
from nern.interfaces import Loss
from nern.options import option

EPSILON = 1e-3


@attrs.frozen
class FeatureMapDistillation(Loss):
    """Distance of ℓ2-normalised feature maps, summed over layers (Ashkenazi et al. 2023, eq. 4)."""

    form: Literal["squared", "norm", "batch", "similarity"] = option(
        "squared",
        help="squared: ‖â − a‖² per sample, batch mean; norm: ‖â − a‖ per sample, eq. 4 as printed; batch: squared, maps "
        "normalised over the whole batch; similarity: similarity-preserving (Tung & Mori 2019)",
    )
    needs: ClassVar[Literal["weights", "logits", "features"]] = "features"

    def __call__(self, original: list[Tensor], reconstructed: list[Tensor]) -> Tensor:
        terms = [self._distance(a, b) for a, b in zip(original, reconstructed, strict=True)]
        return torch.stack(terms).sum()

    def _distance(self, original: Tensor, reconstructed: Tensor) -> Tensor:
        a, b = flat(original), flat(reconstructed)
        if self.form == "batch":
            return squared_distance(a.reshape(1, -1), b.reshape(1, -1)).sum()
        if self.form == "similarity":
            return similarity_distance(a, b)
        squared = squared_distance(a, b)
        return squared.mean() if self.form == "squared" else squared.clamp_min(1e-12).sqrt().mean()


def flat(maps: Tensor) -> Tensor:
    """[b, c, h, w] → [b, c·h·w], in memory order: distances do not depend on it, and channels-last maps need no copy."""
    if maps.dim() == 4 and not maps.is_contiguous():
        maps = maps.permute(0, 2, 3, 1)
    return maps.reshape(len(maps), -1)


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """‖a/(‖a‖ + ε) − b/(‖b‖ + ε)‖² for each row: [b, n], [b, n] → [b], from three dot products and no normalised copy."""
    aa, bb, ab = ((x * y).sum(1, dtype=torch.float32) for x, y in ((a, a), (b, b), (a, b)))
    na, nb = aa.sqrt() + EPSILON, bb.clamp_min(1e-20).sqrt() + EPSILON
    return (aa / na.square() + bb / nb.square() - 2 * ab / (na * nb)).clamp_min(0)


def similarity_distance(a: Tensor, b: Tensor) -> Tensor:
    """‖G(a) − G(b)‖² / batch², where G is the batch's row-normalised Gram matrix (Tung & Mori 2019, eq. 4)."""
    grams = [torch.nn.functional.normalize((x.float() @ x.float().T), dim=1) for x in (a, b)]
    return (grams[0] - grams[1]).square().sum() / len(a) ** 2


@hookimpl
def nern_losses() -> Mapping[str, type[Loss]]:
    return {"fmd": FeatureMapDistillation}
