"""Distance between original and predicted weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import attrs
from torch import Tensor

from nern.hookspecs import hookimpl
from nern.interfaces import Kernels, Loss
from nern.options import option


@attrs.frozen
class Reconstruction(Loss):
    """Weight reconstruction loss (Ashkenazi et al. 2023, eq. 3)."""

    form: Literal["rms", "norm", "mse"] = option("rms", help="rms: √(‖W − Ŵ‖²/|W|); norm: ‖W − Ŵ‖/|W|, eq. 3 as printed; mse: ‖W − Ŵ‖²/|W|")
    needs: ClassVar[Literal["weights", "logits", "features"]] = "weights"

    def __call__(self, original: Kernels, reconstructed: Kernels) -> Tensor:
        squares = (original.values - reconstructed.values).square().sum()
        count = original.count.sum()
        if self.form == "mse":
            return squares / count
        # the root has no gradient at zero, where nothing is left to learn
        root = squares.clamp_min(1e-30).sqrt()
        return root / count.sqrt() if self.form == "rms" else root / count


@hookimpl
def nern_losses() -> Mapping[str, type[Loss]]:
    return {"reconstruction": Reconstruction}
