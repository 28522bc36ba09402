"""A folder of images in any layout: with a folder for each class, or without classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import ClassVar, Literal

import attrs
import torch
from torch import Tensor

from nern import Data, DataError, Preprocessing, Task, at_least, below, generator, hookimpl, option
from nern.toolkit.class_folders import files_beside, list_images, say_left_out, walk_images
from nern.toolkit.image_decoding import image_suffixes
from nern.toolkit.image_folders import check_channels
from nern.toolkit.images import FileData


class Unlabelled(Data):
    """Images of other data without their labels."""

    classes = None

    def __init__(self, data: Data) -> None:
        self._data, self.splits = data, data.splits

    def inputs(self, batch: int, seed: int, device: torch.device) -> Callable[[int], Tensor]:
        return self._data.inputs(batch, seed, device)

    def batches(self, split: Literal["heldout", "test"], batch: int, device: torch.device) -> Iterable[tuple[Tensor, Tensor | None]]:
        for images, _ in self._data.batches(split, batch, device):
            yield images, None


@attrs.frozen
class Photographs(Task):
    """All images below one folder, resized and cropped. One part is held out to choose the checkpoint, another is the test set."""

    root: str | None = option(None, help="the folder")
    classes: Literal["folders", "none"] = option(
        "none",
        help="folders: the folders in root are the classes of the network, in alphabetical order, or in that of their numbers where all "
        "names are numbers; none: accuracy is not measured",
    )
    augment: Literal["none", "flip", "crop-flip"] = option("none", help="augmentation of training images")
    tested: float = option(0.1, help="fraction of the images that is the test set", check=[at_least(0), below(1)])
    gives_images: ClassVar[bool] = True

    def check(self, preprocessing: Preprocessing) -> None:
        check_channels(preprocessing)

    def open(self, preprocessing: Preprocessing, heldout: float, seed: int) -> Data:
        if self.root is None:
            raise DataError("task.root is missing: name the folder of images (task.root=DIR)")
        files, labels, count = labelled(Path(self.root)) if self.classes == "folders" else unlabelled(Path(self.root))
        # A fixed seed, so that all runs have the same test set
        order = torch.randperm(len(files), generator=generator(0, "photographs", "test")).tolist()
        apart = round(len(files) * self.tested)
        test, train = ([files[i] for i in part], [labels[i] for i in part]) if (part := order[:apart]) else None, order[apart:]
        data = FileData(
            ([files[i] for i in train], [labels[i] for i in train]), test, preprocessing,
            classes=count, heldout=heldout, seed=seed, augment=self.augment, missing=f"{self.root} has too few images ({len(files)})",
        )  # fmt: skip
        return data if self.classes == "folders" else Unlabelled(data)


def labelled(folder: Path) -> tuple[list[Path], list[int], int]:
    """Images below class folders in the order of their paths, the index of each one's class, and the number of classes.

    Raises:
        DataError: the folder is missing, a class folder is empty, or images lie beside the class folders.
    """
    _must_exist(folder)
    beside = [file.name for file in files_beside(folder) if file.suffix.lower() in image_suffixes()]
    if beside:
        raise DataError(
            f"{folder} has images beside its folders ({beside[0]}), so that folders cannot be the classes; set task.classes=none"
        )
    files, labels, names = list_images(folder)
    ordered = sorted(zip(files, labels, strict=True))
    return [file for file, _ in ordered], [label for _, label in ordered], len(names)


def unlabelled(folder: Path) -> tuple[list[Path], list[int], int]:
    """All images below a folder in the order of their paths, with 0 in place of labels and of the number of classes.

    Raises:
        DataError: the folder is missing, or holds no images.
    """
    _must_exist(folder)
    left_out: Counter[str] = Counter()
    files = sorted(walk_images(folder, left_out))
    if not files:
        raise DataError(f"{folder} holds no images ({', '.join(sorted(image_suffixes()))})")
    say_left_out(folder, left_out)
    return files, [0] * len(files), 0


def _must_exist(folder: Path) -> None:
    if not folder.is_dir():
        raise DataError(f"image folder {folder} {'is a file' if folder.is_file() else 'does not exist'}")


@hookimpl
def nern_tasks() -> Mapping[str, type[Task]]:
    return {"photographs": Photographs}
