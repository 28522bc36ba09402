"""Image folders with one folder per class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import attrs

from nern.data import FileData, ImageData, list_images, read_folder
from nern.errors import DataError
from nern.hookspecs import hookimpl
from nern.interfaces import Data, Preprocessing, Task
from nern.options import option

TEST_FOLDERS = ("test", "val")


def open_folders(
    root: str | None, augment: Literal["none", "flip", "crop-flip"], preprocessing: Preprocessing, heldout: float, seed: int
) -> Data:
    """The images below `root/train/<class>/` and `root/test/<class>/` (or `val/`); either may be missing until it is needed."""
    if root is None:
        raise DataError("task.root is missing: name the folder that holds train/ and test/ (task.root=DIR)")
    place = Path(root)
    folders = {"train": place / "train", "test": next((place / name for name in TEST_FOLDERS if (place / name).is_dir()), place / "test")}
    if not any(folder.is_dir() for folder in folders.values()):
        there = "does not exist" if not place.is_dir() else "holds neither train/ nor test/ (nor val/)"
        raise DataError(f"data folder {place} {there}; images belong into {place}/train/<class>/ and {place}/test/<class>/")
    missing = f"data folder {place} has no {'train/' if not folders['train'].is_dir() else 'test/'} folder"
    sizes = {}
    if preprocessing.resize is None:
        read = {}
        for split, folder in folders.items():
            if folder.is_dir():
                images, labels, sizes[split] = read_folder(folder, preprocessing)
                read[split] = images, labels
        data: Data = ImageData(
            read.get("train"), read.get("test"), preprocessing,
            classes=max(sizes.values()), heldout=heldout, seed=seed, augment=augment, missing=missing,
        )  # fmt: skip
    else:
        listed = {}
        for split, folder in folders.items():
            if folder.is_dir():
                files, targets, names = list_images(folder)
                listed[split], sizes[split] = (files, targets), len(names)
        data = FileData(
            listed.get("train"), listed.get("test"), preprocessing,
            classes=max(sizes.values()), heldout=heldout, seed=seed, augment=augment, missing=missing,
        )  # fmt: skip
    if len(set(sizes.values())) > 1:
        raise DataError(f"data folder {place} has {sizes['train']} classes in train/ and {sizes['test']} in {folders['test'].name}/")
    return data


@attrs.frozen
class ImageFolder(Task):
    """Images in `root/train/<class>/` and `root/test/<class>/` (or `val/`); small ones are held in memory."""

    root: str | None = option(None, help="folder that holds train/ and test/ or val/")
    augment: Literal["none", "flip", "crop-flip"] = option("crop-flip", help="what happens to training images")

    def open(self, preprocessing: Preprocessing, heldout: float, seed: int) -> Data:
        return open_folders(self.root, self.augment, preprocessing, heldout, seed)


@hookimpl
def nern_tasks() -> Mapping[str, type[Task]]:
    return {"image-folder": ImageFolder}
