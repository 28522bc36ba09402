"""MobileNets as torchvision builds them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import attrs
from torch import Tensor, nn

from nern import Architecture, DataError, LayerMapping, OptionError, Preprocessing, above, at_least, option
from nern.toolkit.mappings import DepthwiseMapping
from nern_mobilenet.mappings import Pointwise


class Copy(nn.Module):
    """MobileNetV3 adds a block's input to its last feature map in place; this hands it another tensor to do so."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clone()


def _block(instance: Any, attribute: Any, value: int | None) -> None:
    if value is not None and value < 1:
        raise OptionError(attribute.name, f"must be 1 or more, got {value}")


@attrs.frozen
class MobileNet(Architecture):
    """MobileNetV2 (Sandler et al. 2018) and MobileNetV3 (Howard et al. 2019); every convolution is represented."""

    model: Literal["mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"] = option("mobilenet_v2", help="torchvision's name")
    width: float = option(1.0, help="multiple of the channels of every layer", check=above(0))
    classes: int = option(1000, help="number of classes", check=at_least(2))
    channels: int = option(3, help="channels of the input images", check=at_least(1))
    size: int = option(224, help="height and width of the input images in pixels", check=at_least(8))
    resize: int | None = option(None, help="shorter side before the centre crop in pixels; null where images have the size already")
    stem_stride: int = option(2, help="stride of the first convolution; 1 suits small images", check=at_least(1))
    mean: list[float] = option(factory=lambda: [0.485, 0.456, 0.406], help="mean of each input channel, of values in [0, 1]")
    std: list[float] = option(factory=lambda: [0.229, 0.224, 0.225], help="standard deviation of each input channel")
    block: int | None = option(
        None,
        help="pointwise kernels hold block² channels; null takes the largest depthwise kernel, 1 leaves one weight to a kernel",
        check=_block,
    )

    def __attrs_post_init__(self) -> None:
        for name in ("mean", "std"):
            if len(getattr(self, name)) != self.channels:
                raise OptionError(name, f"must have one value per channel ({self.channels}), got {len(getattr(self, name))}")

    def build(self) -> nn.Module:
        try:
            from torchvision import models  # type: ignore[import-untyped, unused-ignore]
        except (ImportError, RuntimeError) as error:
            raise DataError(f"torchvision cannot be used ({error}); install torch and torchvision from one index") from error
        network: nn.Module = getattr(models, self.model)(num_classes=self.classes, width_mult=self.width)
        first: Any = network.get_submodule("features.0")
        if self.channels != 3 or self.stem_stride != 2:
            first[0] = nn.Conv2d(self.channels, first[0].out_channels, 3, self.stem_stride, 1, bias=False)
            nn.init.kaiming_normal_(first[0].weight, mode="fan_out")
        parts: list[Any] = list(network.modules())
        for module in parts:
            if getattr(module, "inplace", False):
                module.inplace = False  # would change the feature maps that are compared
            if type(module).__name__ == "InvertedResidual" and hasattr(module, "block"):
                module.block.append(Copy())
        return network

    def layers(self, network: nn.Module) -> Sequence[LayerMapping]:
        """The stem as usual, depthwise kernels by their channel, pointwise kernels in blocks."""
        convolutions = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
        block = self.block or max(module.kernel_size[0] for _, module in convolutions)
        layers: list[LayerMapping] = []
        for index, (name, module) in enumerate(convolutions):
            parameter, shape = f"{name}.weight", tuple(module.weight.shape)
            if module.kernel_size == (1, 1):
                layers.append(Pointwise(parameter, shape, index, block=block))
            else:
                layers.append((DepthwiseMapping if module.groups > 1 else LayerMapping)(parameter, shape, index))
        return layers

    def features(self, network: nn.Module) -> Sequence[str]:
        """After each batch norm, before the activation."""
        return [name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)]

    def preprocessing(self) -> Preprocessing:
        return Preprocessing(tuple(self.mean), tuple(self.std), (self.channels, self.size, self.size), self.resize)
