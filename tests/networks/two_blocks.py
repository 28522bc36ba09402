"""A small network whose state dict the tests of weights files write in other forms."""

import torch
from torch import Tensor, nn


class Net(nn.Module):
    """Two blocks of a convolution and a batch norm, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3))
        self.linear = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.features(x).relu().mean((2, 3)))
        return logits


def seeded(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net()
