"""Trains a small network that marks discs and squares in noisy pictures pixel by pixel, and represents it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import nern


class Segmenter(nn.Module):
    """Pictures [b, 1, 32, 32] → logits of ground, disc and square at every pixel [b, 3, 32, 32]."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.width = width
        self.fine = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.coarse = nn.Sequential(
            nn.MaxPool2d(2), nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(),
            nn.MaxPool2d(2), nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(),
            nn.ConvTranspose2d(2 * width, width, 4, stride=4),
        )  # fmt: skip
        self.head = nn.Conv2d(2 * width, 3, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        fine = self.fine(pictures)
        return self.head(torch.cat([fine, self.coarse(fine)], dim=1))


def drawn(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pictures with a disc and a square in noise [count, 1, 32, 32], and the class of every pixel [count, 32, 32]."""
    random = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    classes = torch.zeros(count, 32, 32, dtype=torch.int64)
    for shape in (1, 2):
        centre = torch.randint(6, 26, (count, 2, 1, 1), generator=random)
        size = torch.randint(3, 7, (count, 1, 1), generator=random)
        away = (rows - centre[:, 0]).abs(), (columns - centre[:, 1]).abs()
        inside = away[0] ** 2 + away[1] ** 2 <= size**2 if shape == 1 else torch.maximum(*away) <= size
        classes[inside] = shape
    noise = torch.randn(count, 32, 32, generator=random)
    return ((classes > 0).float() + 0.5 * noise)[:, None], classes


def main() -> None:
    torch.manual_seed(0)
    pictures, classes = drawn(1500, seed=0)
    model = Segmenter()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(400):
        batch = torch.randint(1500, (32,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(pictures[batch]), classes[batch]).backward()
        optimizer.step()
    target = nern.TargetBytes(100_000)
    result = nern.represent(model, (pictures, classes), test=drawn(300, seed=1), target=target, steps=0.05, output="run")
    result.save("net.nern")


if __name__ == "__main__":
    main()
