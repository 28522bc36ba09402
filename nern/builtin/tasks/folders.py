"""Image folders with one folder per class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

import attrs

from nern import Data, OptionError, Preprocessing, Task, hookimpl, option
from nern.toolkit.image_folders import check_images, check_root, open_folders


@attrs.frozen
class ImageFolder(Task):
    """Images in `root/train/<class>/` and `root/test/<class>/` (or `val/`); small ones are held in memory."""

    root: str | None = option(None, help="folder that holds train/ and test/, val/, valid/ or validation/")
    augment: Literal["none", "flip", "crop-flip"] = option("crop-flip", help="augmentation of training images")
    classes: list[str] | str | None = option(
        None,
        help="names of the network's outputs in their order, or a text file with one in each line, such as ImageNet's WordNet ids; null "
        "where the folders are the classes, in the order of the alphabet, or of their numbers where all names are numbers",
    )
    labels: bool = option(True, help="false for images without classes, anywhere below train/ and test/; there is no accuracy then")
    test: str | None = option(None, help="folder in root that holds the test images; null for the first of test, val, valid, validation")
    gives_images: ClassVar[bool] = True

    def __attrs_post_init__(self) -> None:
        if self.classes is not None and not self.labels:
            raise OptionError("classes", "must be null where labels is false")

    def check(self, preprocessing: Preprocessing) -> None:
        check_root(self.root)
        check_images(Path(self.root or ""), preprocessing)

    def open(self, preprocessing: Preprocessing, heldout: float, seed: int) -> Data:
        return open_folders(
            self.root, self.augment, preprocessing, heldout, seed, classes=self.classes, labels=self.labels, test=self.test
        )  # fmt: skip


@hookimpl
def nern_tasks() -> Mapping[str, type[Task]]:
    return {"image-folder": ImageFolder}
