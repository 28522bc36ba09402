"""Residual networks for small images (He et al. 2016, sec. 4.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import attrs
from torch import Tensor, nn
from torch.nn import functional as F

from nern import Architecture, LayerMapping, OptionError, Preprocessing, at_least, hookimpl, option


class Shortcut(nn.Module):
    """The paper's shortcut "option A", without parameters: takes every second pixel and fills additional channels with zeros."""

    def __init__(self, new_channels: int) -> None:
        super().__init__()
        self.new_channels = new_channels

    def forward(self, x: Tensor) -> Tensor:
        before = self.new_channels // 2
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, before, self.new_channels - before))


class Block(nn.Module):
    """Two 3 × 3 convolutions and a shortcut. `sum` is the residual sum before its activation."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Sequential()
        if stride != 1 or inputs != outputs:
            if shortcut == "A":
                self.shortcut = Shortcut(outputs - inputs)
            else:
                self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.sum = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.sum(self.bn2(self.conv2(y)) + self.shortcut(x)))


class ResNet(nn.Module):
    """A stem, three stages of (depth - 2) / 6 blocks, and a linear classifier; parameter names as commonly published."""

    def __init__(self, depth: int, shortcut: str, classes: int, channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        blocks = (depth - 2) // 6
        self.layer1 = self._stage(width, width, blocks, 1, shortcut)
        self.layer2 = self._stage(width, 2 * width, blocks, 2, shortcut)
        self.layer3 = self._stage(2 * width, 4 * width, blocks, 2, shortcut)
        self.linear = nn.Linear(4 * width, classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)

    @staticmethod
    def _stage(inputs: int, outputs: int, blocks: int, stride: int, shortcut: str) -> nn.Sequential:
        first = Block(inputs, outputs, stride, shortcut)
        return nn.Sequential(first, *(Block(outputs, outputs, 1, shortcut) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def _depth(instance: Any, attribute: Any, value: int) -> None:
    if value < 8 or (value - 2) % 6:
        raise OptionError(attribute.name, f"must be 6n + 2 (8, 14, 20, 26, 32, …, 56, …), got {value}")


@attrs.frozen
class CifarResNet(Architecture):
    """CIFAR ResNet of depth 6n + 2; every convolution is represented (He et al. 2016, sec. 4.2)."""

    depth: int = option(20, help="number of layers, 6n + 2", check=_depth)
    shortcut: Literal["A", "B"] = option("A", help="A: zero padding, no parameters; B: 1 × 1 convolution and batch norm")
    classes: int = option(10, help="number of classes", check=at_least(2))
    channels: int = option(3, help="channels of the input images", check=at_least(1))
    width: int = option(16, help="filters of the first stage", check=at_least(2))
    mean: list[float] = option(factory=lambda: [0.485, 0.456, 0.406], help="mean of each input channel, of values in [0, 1]")
    std: list[float] = option(factory=lambda: [0.229, 0.224, 0.225], help="standard deviation of each input channel")
    size: int = option(32, help="height and width of the input images in pixels", check=at_least(4))
    standalone: ClassVar[bool] = True

    def __attrs_post_init__(self) -> None:
        for name in ("mean", "std"):
            if len(getattr(self, name)) != self.channels:
                raise OptionError(name, f"must have one value per channel ({self.channels}), got {len(getattr(self, name))}")
        self.preprocessing()  # raises where mean or std are impossible

    def build(self) -> nn.Module:
        return ResNet(self.depth, self.shortcut, self.classes, self.channels, self.width)

    def layers(self, network: nn.Module) -> Sequence[LayerMapping]:
        weights = [(f"{name}.weight", module.weight) for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
        return [LayerMapping(name, tuple(weight.shape), index) for index, (name, weight) in enumerate(weights)]

    def features(self, network: nn.Module) -> Sequence[str]:
        """The outputs of every batch norm and every residual sum, before the activation."""
        return [name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d) or name.endswith(".sum")]

    def preprocessing(self) -> Preprocessing:
        return Preprocessing(tuple(self.mean), tuple(self.std), (self.channels, self.size, self.size))


@hookimpl
def nern_architectures() -> Mapping[str, type[Architecture]]:
    return {"cifar-resnet": CifarResNet}
