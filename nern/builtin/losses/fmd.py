"""Feature-map distillation: the reconstructed network's activations follow the original's (Romero et al. 2015)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatch
from typing import Any, ClassVar, Literal

import attrs
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nern import Loss, LossContext, OptionError, hookimpl, option

EPSILON = 1e-3


@attrs.frozen
class FeatureMapDistillation(Loss):
    """Distance of ℓ2-normalised feature maps, summed over layers (Ashkenazi et al. 2023, eq. 4)."""

    form: Literal["squared", "norm", "batch", "similarity"] = option(
        "squared",
        help="squared: ‖â − a‖² per sample, batch mean; norm: ‖â − a‖ per sample, eq. 4 as printed; batch: squared, maps "
        "normalised over the whole batch; similarity: similarity-preserving (Tung & Mori 2019)",
    )
    maps: list[str] | None = option(None, help="patterns of the feature maps to compare, such as *.sum; null for all")
    needs: ClassVar[Literal["weights", "logits", "features", "bits"]] = "features"

    def start(self, context: LossContext) -> Callable[[Any, Any], Tensor]:
        if self.maps is None:
            return self
        names = context.networks.features
        for pattern in self.maps or [""]:
            if not any(fnmatch(name, pattern) for name in names):
                raise OptionError("maps", f"'{pattern}' matches none of the feature maps ({', '.join(names)})")
        chosen = [i for i, name in enumerate(names) if any(fnmatch(name, pattern) for pattern in self.maps)]
        return lambda original, reconstructed: self([original[i] for i in chosen], [reconstructed[i] for i in chosen])

    @property
    def is_mean(self) -> bool:
        return self.form in ("squared", "norm")

    def __call__(self, original: list[Tensor], reconstructed: list[Tensor]) -> Tensor:
        terms = [self._distance(a, b) for a, b in zip(original, reconstructed, strict=True)]
        return torch.stack(terms).sum()

    def _distance(self, original: Tensor, reconstructed: Tensor) -> Tensor:
        a, b = flat(original, reconstructed)
        if self.form == "batch":
            return squared_distance(a.reshape(1, -1), b.reshape(1, -1)).sum()
        if self.form == "similarity":
            return similarity_distance(a, b)
        squared = squared_distance(a, b)
        return squared.mean() if self.form == "squared" else squared.clamp_min(1e-12).sqrt().mean()


def flat(*maps: Tensor) -> list[Tensor]:
    """[b, c, h, w] each → [b, c·h·w] in one order for all: distances do not depend on it, and channels-last maps need no copy."""
    if maps[0].dim() == 4 and not all(values.is_contiguous() for values in maps):
        maps = tuple(values.permute(0, 2, 3, 1) for values in maps)
    return [values.reshape(len(values), -1) for values in maps]


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """‖a/(‖a‖ + ε) − b/(‖b‖ + ε)‖² of each row, differentiable in `b`: [m, n], [m, n] → [m] float32 or wider."""
    distance: Tensor = _SquaredDistance.apply(a, b)  # type: ignore[no-untyped-call]
    return distance


class _SquaredDistance(torch.autograd.Function):
    """With â = s_a·a, s_a = 1/(‖a‖ + ε), and d = ‖â − b̂‖²: ∂d/∂b = s_b·[(‖â‖² − ‖b̂‖² − d)/‖b‖ · b − 2(â − b̂)].

    The gradient is written out by hand, so that the difference is the only intermediate that is kept and one pass computes the
    gradient. A CPU computes everything for one block of rows at a time, while the block is in its cache.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        wide = torch.promote_types(a.dtype, torch.float32)
        distance, scale, along = (b.new_empty(len(b), 1, dtype=wide) for _ in range(3))
        difference = torch.empty_like(b)
        for rows in _blocks(b):
            x, y = a[rows].to(wide), b[rows].to(wide)
            norms = [torch.linalg.vector_norm(value, dim=1, keepdim=True) for value in (x, y)]
            scales = [1 / (norm + EPSILON) for norm in norms]
            apart = (x * scales[0]).addcmul_(y, scales[1], value=-1)
            squares = torch.linalg.vector_norm(apart, dim=1, keepdim=True).square()
            across = (norms[0] * scales[0]).square() - (norms[1] * scales[1]).square() - squares
            distance[rows], scale[rows], along[rows] = squares, scales[1], scales[1] * across / norms[1].clamp_min(1e-12)
            difference[rows] = apart
        ctx.save_for_backward(b, difference, scale, along)
        return distance.squeeze(1)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        b, difference, scale, along = ctx.saved_tensors
        along, scale = along * gradient.unsqueeze(1), scale * gradient.unsqueeze(1)
        gradient_of_b = torch.empty_like(b)
        for rows in _blocks(b):
            gradient_of_b[rows] = (b[rows].to(along.dtype) * along[rows]).addcmul_(difference[rows].to(along.dtype), scale[rows], value=-2)
        return None, gradient_of_b


def _blocks(rows: Tensor) -> list[slice]:
    """Slices of the rows of [m, n]: all rows at once, or on a CPU blocks of about 2¹⁷ numbers."""
    step = len(rows) if rows.device.type != "cpu" else max(1, (1 << 17) // max(1, rows.shape[1]))
    return [slice(start, start + step) for start in range(0, len(rows), max(1, step))]


def similarity_distance(a: Tensor, b: Tensor) -> Tensor:
    """‖G(a) − G(b)‖² / batch², where G is the batch's row-normalised Gram matrix (Tung & Mori 2019, eq. 4)."""
    grams = [torch.nn.functional.normalize((x.float() @ x.float().T), dim=1) for x in (a, b)]
    return (grams[0] - grams[1]).square().sum() / len(a) ** 2


@hookimpl
def nern_losses() -> Mapping[str, type[Loss]]:
    return {"fmd": FeatureMapDistillation}
