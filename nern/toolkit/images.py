"""Data of images in memory and images on disk, as tasks return them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from nern.errors import DataError
from nern.interfaces import Data, Preprocessing
from nern.support.seeding import derive, generator
from nern.toolkit.image_decoding import check_image, decode, to_tensor


def upload(values: Tensor, device: torch.device) -> Tensor:
    """Copy values to a device without waiting for work that the device has not finished."""
    return (values.pin_memory() if device.type == "cuda" else values).to(device, non_blocking=True)


Augment = Literal["none", "flip", "crop-flip"]


def split_heldout(count: int, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the images to train on and of those held out, both ascending."""
    order = torch.randperm(count, generator=generator(seed, "heldout"))
    kept = round(count * fraction)
    return order[kept:].sort().values, order[:kept].sort().values


class EpochOrder:
    """The indices of a step's batch: every image once per epoch, in an order that differs from epoch to epoch."""

    def __init__(self, count: int, batch: int, seed: int) -> None:
        self.count, self.batch, self.seed = count, batch, seed
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)

    def __call__(self, step: int) -> Tensor:
        """The indices of a step's batch, [batch] int64."""
        positions = torch.arange(step * self.batch, (step + 1) * self.batch)
        parts = []
        for epoch in range(step * self.batch // self.count, ((step + 1) * self.batch - 1) // self.count + 1):
            if epoch != self._epoch:
                self._epoch = epoch
                self._order = torch.randperm(self.count, generator=generator(self.seed, "epoch", epoch))
            parts.append(self._order[positions[positions // self.count == epoch] - epoch * self.count])
        return torch.cat(parts)


class ImageData(Data):
    """Images held in memory as uint8 (or float32 from 0 to 255) [n, c, h, w], with labels [n] int64 or None."""

    def __init__(
        self,
        train: tuple[Tensor, Tensor | None] | None,
        test: tuple[Tensor, Tensor | None] | None,
        preprocessing: Preprocessing,
        *,
        classes: int | None,
        heldout: float,
        seed: int,
        augment: Augment = "none",
        missing: str = "the task has no such images",
    ) -> None:
        self.classes, self._preprocessing, self._augment, self._missing = classes, preprocessing, augment, missing
        self._test = test
        self._train: tuple[Tensor, Tensor | None] | None = None
        self._heldout: tuple[Tensor, Tensor | None] | None = None
        if train is not None:
            images, labels = train
            keep, hold = split_heldout(len(images), heldout, seed)
            self._train = images[keep], None if labels is None else labels[keep]
            self._heldout = images[hold], None if labels is None else labels[hold]
        self._on: dict[torch.device, Tensor] = {}
        self.examples = 0 if self._train is None else len(self._train[0])
        held = {"train": self._train, "heldout": self._heldout, "test": self._test}
        self.splits = frozenset(name for name, images in held.items() if images is not None and len(images[0]))

    def labelled(self) -> tuple[Tensor, Tensor]:
        """Training images and labels, for training an original network.

        Raises:
            DataError: there are no training images, or no labels.
        """
        if self._train is None or self._train[1] is None:
            raise DataError(self._missing)
        return self._train[0], self._train[1]

    def inputs(self, batch: int, seed: int, device: torch.device) -> Callable[[int], Tensor]:
        if self._train is None or not len(self._train[0]):
            raise DataError(self._missing)
        images = self._on.setdefault(device, self._train[0].to(device))
        order = EpochOrder(len(images), batch, derive(seed, "order"))

        def inputs(step: int) -> Tensor:
            return self.prepare(images[upload(order(step), device)], derive(seed, "augment", step))

        return inputs

    def pairs(self, batch: int, seed: int, device: torch.device) -> Callable[[int], tuple[Tensor, Tensor]]:
        _, labels = self.labelled()
        inputs, order = self.inputs(batch, seed, device), EpochOrder(len(labels), batch, derive(seed, "order"))
        return lambda step: (inputs(step), upload(labels[order(step)], device))

    def prepare(self, images: Tensor, seed: int) -> Tensor:
        """Augment and normalise images: uint8 [b, c, h, w] → float32."""
        return self._preprocessing.normalise(augmented(images, self._augment, seed))

    def batches(self, split: Literal["heldout", "test"], batch: int, device: torch.device) -> Iterable[tuple[Tensor, Tensor | None]]:
        held = self._heldout if split == "heldout" else self._test
        if held is None:
            raise DataError(self._missing)
        images, labels = held
        for start in range(0, len(images), batch):
            part = self._preprocessing.normalise(images[start : start + batch].to(device))
            yield part, None if labels is None else labels[start : start + batch].to(device)


def augmented(images: Tensor, augment: Augment, seed: int, margin: int = 4) -> Tensor:
    """Mirror half of the images, and with "crop-flip" also shift each by up to `margin` pixels over a black border."""
    if augment == "none":
        return images
    device, (count, channels, height, width) = images.device, images.shape
    source = generator(seed, "augment", device=device)
    columns = torch.arange(width, device=device).expand(count, width)
    mirrored = torch.rand(count, 1, generator=source, device=device) < 0.5
    columns = torch.where(mirrored, width - 1 - columns, columns)
    rows = torch.arange(height, device=device).expand(count, height)
    if augment == "crop-flip":
        shift = torch.randint(2 * margin + 1, (2, count, 1), generator=source, device=device)
        images = torch.nn.functional.pad(images, (margin,) * 4)
        rows, columns = rows + shift[0], columns + shift[1]
    batch = torch.arange(count, device=device)[:, None, None, None]
    plane = torch.arange(channels, device=device)[None, :, None, None]
    return images[batch, plane, rows[:, None, :, None], columns[:, None, None, :]]


class FileData(Data):
    """Images decoded when they are needed, resized and cropped to the network's input: for photographs."""

    def __init__(
        self,
        train: tuple[Sequence[Path], Sequence[int] | None] | None,
        test: tuple[Sequence[Path], Sequence[int] | None] | None,
        preprocessing: Preprocessing,
        *,
        classes: int | None,
        heldout: float,
        seed: int,
        augment: Augment,
        missing: str,
    ) -> None:
        self.classes, self._preprocessing, self._augment, self._missing = classes, preprocessing, augment, missing
        self._test = test
        self._train: tuple[Sequence[Path], Sequence[int] | None] | None = None
        self._heldout: tuple[Sequence[Path], Sequence[int] | None] | None = None
        if train is not None:
            files, labels = train
            keep, hold = (part.tolist() for part in split_heldout(len(files), heldout, seed))
            self._train, self._heldout = (
                ([files[i] for i in part], None if labels is None else [labels[i] for i in part]) for part in (keep, hold)
            )
        self._pool = ThreadPoolExecutor()
        self.examples = 0 if self._train is None else len(self._train[0])
        lists = {"train": self._train, "heldout": self._heldout, "test": self._test}
        self.splits = frozenset(name for name, files in lists.items() if files is not None and len(files[0]))

    def check(self) -> None:
        """Check that every training image can be decoded; held-out and test images are decoded before training anyway."""
        if self._train is not None:
            list(self._pool.map(lambda file: check_image(file, self._preprocessing.size[0]), self._train[0]))

    def inputs(self, batch: int, seed: int, device: torch.device) -> Callable[[int], Tensor]:
        if self._train is None or not self._train[0]:
            raise DataError(self._missing)
        files = self._train[0]
        order = EpochOrder(len(files), batch, derive(seed, "order"))
        pending: dict[int, list[Any]] = {}

        def submit(step: int) -> list[Any]:
            return [
                self._pool.submit(self._random_crop, files[i], derive(seed, "crop", step, n)) for n, i in enumerate(order(step).tolist())
            ]

        def inputs(step: int) -> Tensor:
            jobs = pending.pop(step, None) or submit(step)
            pending.clear()
            pending[step + 1] = submit(step + 1)  # decodes the next step's images while this step computes
            return self._preprocessing.normalise(upload(stacked([job.result() for job in jobs]), device))

        return inputs

    def pairs(self, batch: int, seed: int, device: torch.device) -> Callable[[int], tuple[Tensor, Tensor]]:
        inputs, labels = self.inputs(batch, seed, device), torch.tensor(self._train[1] if self._train else [])
        order = EpochOrder(len(labels), batch, derive(seed, "order"))
        return lambda step: (inputs(step), upload(labels[order(step)], device))

    def batches(self, split: Literal["heldout", "test"], batch: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor | None]]:
        held = self._heldout if split == "heldout" else self._test
        if held is None:
            raise DataError(self._missing)
        files, labels = held
        for start in range(0, len(files), batch):
            images = list(self._pool.map(self._centre_crop, files[start : start + batch]))
            part = self._preprocessing.normalise(stacked(images).to(device))
            yield part, None if labels is None else torch.tensor(labels[start : start + batch], device=device)

    def _centre_crop(self, file: Path) -> Tensor:
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms import functional as tv

        channels, height, width = self._preprocessing.size
        image = decode(file, channels)
        side = self._preprocessing.resize or height
        target = [side, side] if self._preprocessing.squash else [side]
        interpolation = InterpolationMode(self._preprocessing.interpolation)
        cropped = image.map(lambda plane: tv.center_crop(tv.resize(plane, target, interpolation), [height, width]))
        return to_tensor(cropped, channels)

    def _random_crop(self, file: Path, seed: int) -> Tensor:
        """The centre, or a crop of 25 % to 100 % of the area with the aspect ratio unchanged, mirrored half of the time."""
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms import functional as tv

        scale, x, y, mirror = torch.rand(4, generator=generator(seed)).tolist()
        if self._augment == "crop-flip":
            channels, height, width = self._preprocessing.size
            image = decode(file, channels)
            side = (0.25 + 0.75 * scale) ** 0.5
            crop = max(1, round(side * min(image.height, image.width * height / width)))
            crop_width = max(1, round(crop * width / height))
            top, left = round(y * (image.height - crop)), round(x * (image.width - crop_width))
            interpolation = InterpolationMode(self._preprocessing.interpolation)
            cropped = image.map(lambda plane: tv.resized_crop(plane, top, left, crop, crop_width, [height, width], interpolation))
            pixels = to_tensor(cropped, channels)
        else:
            pixels = self._centre_crop(file)
        return pixels.flip(2) if self._augment != "none" and mirror < 0.5 else pixels


def stacked(images: Sequence[Tensor]) -> Tensor:
    """Stack images [c, h, w] to [b, c, h, w]: uint8, or float32 where one of them has more than 8 bits."""
    dtype = torch.uint8 if all(image.dtype == torch.uint8 for image in images) else torch.float32
    return torch.stack([image.to(dtype) for image in images])
