"""Image folders with one folder per class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs

from nern import Data, Preprocessing, Task, hookimpl, option
from nern.toolkit.image_folders import check_root, open_folders


@attrs.frozen
class ImageFolder(Task):
    """Images in `root/train/<class>/` and `root/test/<class>/` (or `val/`); small ones are held in memory."""

    root: str | None = option(None, help="folder that holds train/ and test/ or val/")
    augment: Literal["none", "flip", "crop-flip"] = option("crop-flip", help="what happens to training images")

    def check(self, preprocessing: Preprocessing) -> None:
        check_root(self.root)

    def open(self, preprocessing: Preprocessing, heldout: float, seed: int) -> Data:
        return open_folders(self.root, self.augment, preprocessing, heldout, seed)


@hookimpl
def nern_tasks() -> Mapping[str, type[Task]]:
    return {"image-folder": ImageFolder}
