"""Noise in place of images: training without any data (Ashkenazi et al. 2023, sec. 4.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import attrs
import torch
from torch import Tensor

from nern import Data, DataError, Preprocessing, Task, above, generator, hookimpl, option

HELDOUT_IMAGES = 1024


class NoiseData(Data):
    """Endless noise; its held-out set has no labels, and there is no test set."""

    classes = None
    splits = frozenset({"train", "heldout"})

    def __init__(self, draw: Callable[[tuple[int, ...], torch.Generator], Tensor], size: tuple[int, int, int], seed: int) -> None:
        self._draw, self._size, self._seed = draw, size, seed

    def inputs(self, batch: int, seed: int, device: torch.device) -> Callable[[int], Tensor]:
        return lambda step: self._draw((batch, *self._size), generator(seed, "noise", step, device=device))

    def batches(self, split: Literal["heldout", "test"], batch: int, device: torch.device) -> Iterable[tuple[Tensor, Tensor | None]]:
        if split == "test":
            raise DataError("noise has no test set; measure with another task: nern evaluate RUN task.name=cifar10 task.root=DIR")
        for start in range(0, HELDOUT_IMAGES, batch):
            count = min(batch, HELDOUT_IMAGES - start)
            yield self._draw((count, *self._size), generator(self._seed, "heldout", start, device=device)), None


@attrs.frozen
class UniformNoise(Task):
    """Normalised inputs drawn from U[-1, 1]."""

    scale: float = option(1.0, help="half the width of the interval", check=above(0))

    def open(self, preprocessing: Preprocessing, heldout: float, seed: int) -> Data:
        def draw(shape: tuple[int, ...], source: torch.Generator) -> Tensor:
            return (2 * torch.rand(shape, generator=source, device=source.device) - 1) * self.scale

        return NoiseData(draw, preprocessing.size, seed)


@attrs.frozen
class NormalNoise(Task):
    """Normalised inputs drawn from N(0, 1)."""

    scale: float = option(1.0, help="standard deviation", check=above(0))

    def open(self, preprocessing: Preprocessing, heldout: float, seed: int) -> Data:
        def draw(shape: tuple[int, ...], source: torch.Generator) -> Tensor:
            return torch.randn(shape, generator=source, device=source.device) * self.scale

        return NoiseData(draw, preprocessing.size, seed)


@hookimpl
def nern_tasks() -> Mapping[str, type[Task]]:
    return {"uniform-noise": UniformNoise, "normal-noise": NormalNoise}
