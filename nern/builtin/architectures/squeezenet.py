"""SqueezeNet (Iandola et al. 2016), as torchvision builds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import attrs

from nern import Architecture, hookimpl, option
from nern.toolkit.torchvision_networks import TorchvisionNetwork


@attrs.frozen
class SqueezeNet(TorchvisionNetwork):
    """SqueezeNet 1.0 or 1.1; every convolution but the classifier is represented (Ashkenazi et al. 2023, sec. 4.3)."""

    model: Literal["squeezenet1_0", "squeezenet1_1"] = option(
        "squeezenet1_0", help="1.0: 96 filters of 7 × 7 at the start; 1.1: 64 of 3 × 3, faster"
    )
    _layers: list[str] | Literal["features", "convolutions", "all"] = option(  # type: ignore[assignment]
        "features", help="represented layers: features for all convolutions but the classifier, convolutions, all, or patterns of names"
    )

    @property
    def builder(self) -> str:
        return self.model

    def _chosen(self) -> Literal["convolutions", "all"] | Sequence[str]:
        return ["features.*.weight"] if self._layers == "features" else super()._chosen()


@hookimpl
def nern_architectures() -> Mapping[str, type[Architecture]]:
    return {"squeezenet": SqueezeNet}
