"""Noise in place of images: training without any data (Ashkenazi et al. 2023, sec. 4.4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar, Literal

import attrs
import torch
from torch import Tensor

from nern import Data, DataError, Preprocessing, Task, above, at_least, at_most, generator, hookimpl, option


class NoiseData(Data):
    """Endless noise; its held-out set has no labels, and there is no test set."""

    classes = None
    splits = frozenset({"train", "heldout"})

    def __init__(
        self, draw: Callable[[tuple[int, ...], torch.Generator], Tensor], size: tuple[int, int, int], seed: int, heldout: int
    ) -> None:
        self._draw, self._size, self._seed, self._heldout = draw, size, seed, heldout

    def inputs(self, batch: int, seed: int, device: torch.device) -> Callable[[int], Tensor]:
        return lambda step: self._draw((batch, *self._size), generator(seed, "noise", step, device=device))

    def batches(self, split: Literal["heldout", "test"], batch: int, device: torch.device) -> Iterable[tuple[Tensor, Tensor | None]]:
        if split == "test":
            raise DataError("noise has no test set; measure with another task: nern evaluate RUN task.name=cifar10 task.root=DIR")
        for start in range(0, self._heldout, batch):
            count = min(batch, self._heldout - start)
            yield self._draw((count, *self._size), generator(self._seed, "heldout", start, device=device)), None


@attrs.frozen
class Noise(Task):
    """What all noise has: a held-out set that is as large as the option says."""

    heldout_images: int = option(
        1024, help="images on which the network is measured to choose a checkpoint; fewer save time with a slow network", check=at_least(1)
    )
    gives_images: ClassVar[bool] = True


@attrs.frozen
class UniformNoise(Noise):
    """Normalised inputs drawn from U[-1, 1]."""

    scale: float = option(1.0, help="half the width of the interval", check=above(0))

    def open(self, preprocessing: Preprocessing, heldout: float, seed: int) -> Data:
        def draw(shape: tuple[int, ...], source: torch.Generator) -> Tensor:
            return (2 * torch.rand(shape, generator=source, device=source.device) - 1) * self.scale

        return NoiseData(draw, preprocessing.size, seed, self.heldout_images)


@attrs.frozen
class NormalNoise(Noise):
    """Normalised inputs drawn from N(0, 1)."""

    scale: float = option(1.0, help="standard deviation", check=above(0))

    def open(self, preprocessing: Preprocessing, heldout: float, seed: int) -> Data:
        def draw(shape: tuple[int, ...], source: torch.Generator) -> Tensor:
            return torch.randn(shape, generator=source, device=source.device) * self.scale

        return NoiseData(draw, preprocessing.size, seed, self.heldout_images)


@attrs.frozen
class ColouredNoise(Noise):
    """Normalised inputs that are smooth like photographs, each to another degree: normal noise in which slow waves are stronger.

    The amplitude of a wave falls with a power of its frequency, as it does in photographs (Field 1987; Baradad et al. 2021, sec. 3.2),
    and channels have a part of their noise in common. Every image has a power of its own, so that a network trained on them is not
    only right for images without detail. Inputs without height and width, such as vectors, are plain normal noise.
    """

    scale: float = option(1.0, help="standard deviation of each input", check=above(0))
    falloff: float = option(
        2.0,
        help="largest x with which the amplitude of waves falls as frequency to the power of −x; each image draws its x between 0 (white "
        "noise) and this number, and photographs have about 1",
        check=at_least(0),
    )
    shared: float = option(0.8, help="part of the variance that all channels have in common", check=[at_least(0), at_most(1)])

    def open(self, preprocessing: Preprocessing, heldout: float, seed: int) -> Data:
        def draw(shape: tuple[int, ...], source: torch.Generator) -> Tensor:
            if len(shape) < 3:
                return torch.randn(shape, generator=source, device=source.device) * self.scale
            common = torch.randn((shape[0], 1, *shape[2:]), generator=source, device=source.device)
            own = torch.randn(shape, generator=source, device=source.device)
            falloff = self.falloff * torch.rand(shape[0], generator=source, device=source.device)
            noise = smooth(math.sqrt(self.shared) * common + math.sqrt(1 - self.shared) * own, falloff)
            return self.scale * noise / noise.flatten(1).std(1).clamp_min(1e-12).reshape(-1, *[1] * (len(shape) - 1))

        return NoiseData(draw, preprocessing.size, seed, self.heldout_images)


def smooth(white: Tensor, falloff: Tensor) -> Tensor:
    """White noise [b, c, ...] whose waves along all axes after the second are weakened by |frequency|^−falloff, falloff [b]."""
    sizes, axes = list(white.shape[2:]), list(range(2, white.dim()))
    halves = [torch.fft.fftfreq(size) for size in sizes[:-1]] + [torch.fft.rfftfreq(sizes[-1])]
    squares = torch.stack([axis.square() for axis in torch.meshgrid(*halves, indexing="ij")]).sum(0).to(white.device)
    slowest = min((1 / size for size in sizes if size > 1), default=1.0)  # the constant wave is as strong as the slowest other one
    power = -0.5 * falloff.reshape(-1, *[1] * (white.dim() - 1))
    amplitudes = squares.clamp_min(slowest**2) ** power
    coloured: Tensor = torch.fft.irfftn(torch.fft.rfftn(white, dim=axes) * amplitudes, s=sizes, dim=axes)
    return coloured


@hookimpl
def nern_tasks() -> Mapping[str, type[Task]]:
    return {"uniform-noise": UniformNoise, "normal-noise": NormalNoise, "coloured-noise": ColouredNoise}
