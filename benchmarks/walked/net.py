"""A small classifier as one writes it for oneself: a class with an argument, made of blocks from the file beside it."""

from __future__ import annotations

from blocks import Block
from torch import Tensor, nn


class Net(nn.Module):
    """Three blocks and a linear layer; takes images [b, 3, 16, 16]."""

    def __init__(self, width: int = 8, classes: int = 10) -> None:
        super().__init__()
        self.body = nn.Sequential(Block(3, width), Block(width, 2 * width), Block(2 * width, 4 * width))
        self.head = nn.Linear(16 * width, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images).flatten(1))
