"""Residual networks for ImageNet (He et al. 2016), as torchvision builds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import attrs

from nern import Architecture, hookimpl, option
from nern.toolkit.torchvision_networks import TorchvisionNetwork


@attrs.frozen
class ImageNetResNet(TorchvisionNetwork):
    """ResNet18, 34, 50, 101 or 152; the 3 × 3 convolutions of the four stages are represented (Ashkenazi et al. 2023, sec. 4.3)."""

    depth: Literal[18, 34, 50, 101, 152] = option(18, help="number of layers")
    _layers: list[str] | Literal["stages", "convolutions", "all"] = option(  # type: ignore[assignment]
        "stages",
        help="represented layers: stages for the 3 × 3 convolutions of the four stages, convolutions, all, or patterns of parameter names",
    )

    @property
    def builder(self) -> str:
        return f"resnet{self.depth}"

    def _chosen(self) -> Literal["convolutions", "all"] | Sequence[str]:
        if self._layers != "stages":
            return super()._chosen()
        return ["layer[1-4].*.conv[12].weight"] if self.depth < 50 else ["layer[1-4].*.conv2.weight"]


@hookimpl
def nern_architectures() -> Mapping[str, type[Architecture]]:
    return {"imagenet-resnet": ImageNetResNet}
