"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), as image folders or as published."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs
import torch

from nern import Data, DataError, Preprocessing, Task, hookimpl, option
from nern.toolkit.image_folders import check_images, check_root, open_folders
from nern.toolkit.images import ImageData


@attrs.frozen
class Cifar10(Task):
    """CIFAR-10: `root` holds train/ and test/ class folders, or the published `cifar-10-batches-py`."""

    root: str | None = option(None, help="folder that holds the data set")
    augment: Literal["none", "flip", "crop-flip"] = option("crop-flip", help="augmentation of training images")
    download: bool = option(False, help="fetch the published archive into root where it is missing")
    gives_images: ClassVar[bool] = True
    published: ClassVar[tuple[str, str, int]] = ("CIFAR10", "cifar-10-batches-py", 10)

    def check(self, preprocessing: Preprocessing) -> None:
        if self.root is None or not self.download:
            check_root(self.root)
        if self.root is not None and (self.download or (Path(self.root) / self.published[1]).is_dir()):
            if preprocessing.size != (3, 32, 32):
                size = " × ".join(map(str, preprocessing.size))
                raise DataError(f"{self.published[0]} has images of 3 × 32 × 32, the network takes {size}: set architecture.size=32")
        elif self.root is not None:
            check_images(Path(self.root), preprocessing)

    def open(self, preprocessing: Preprocessing, heldout: float, seed: int) -> Data:
        name, folder, classes = self.published
        if self.root is None:
            raise DataError("task.root is missing: name the folder that holds the data set (task.root=DIR)")
        if not self.download and not (Path(self.root) / folder).is_dir():
            data = open_folders(self.root, self.augment, preprocessing, heldout, seed)
            if data.classes != classes:
                raise DataError(f"data folder {self.root} has {data.classes} classes, {name} has {classes}")
            return data
        import torchvision.datasets

        splits = {}
        for train in (True, False):
            try:
                dataset: Any = getattr(torchvision.datasets, name)(self.root, train=train, download=self.download)
            except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
                raise DataError(f"{Path(self.root) / folder} is not a complete {name} ({error}); get it again") from error
            splits[train] = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(dataset.targets)
        return ImageData(splits[True], splits[False], preprocessing, classes=classes, heldout=heldout, seed=seed, augment=self.augment)


@attrs.frozen
class Cifar100(Cifar10):
    """CIFAR-100: `root` holds train/ and test/ class folders, or the published `cifar-100-python`."""

    published: ClassVar[tuple[str, str, int]] = ("CIFAR100", "cifar-100-python", 100)


@hookimpl
def nern_tasks() -> Mapping[str, type[Task]]:
    return {"cifar10": Cifar10, "cifar100": Cifar100}
