"""The block of `net.py`."""

from __future__ import annotations

from torch import nn


class Block(nn.Sequential):
    """A convolution with batch norm, which halves the height and the width."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2))
