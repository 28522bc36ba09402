"""A folder of images in any layout: with a folder for each class, or without classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal

import attrs
import torch
from torch import Tensor

from nern import Data, DataError, Preprocessing, Task, at_least, below, generator, hookimpl, option
from nern.toolkit.class_folders import say_left_out, walk_images
from nern.toolkit.image_decoding import image_suffixes
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
        "none", help="folders: the folders in root are the classes of the network, in alphabetical order; none: accuracy is not measured"
    )
    augment: Literal["none", "flip", "crop-flip"] = option("none", help="augmentation of training images")
    tested: float = option(0.1, help="fraction of the images that is the test set", check=[at_least(0), below(1)])

    def open(self, preprocessing: Preprocessing, heldout: float, seed: int) -> Data:
        if self.root is None:
            raise DataError("task.root is missing: name the folder of images (task.root=DIR)")
        files, names = images_below(Path(self.root))
        if self.classes == "folders" and not names:
            raise DataError(f"{self.root} has images beside its folders, so that folders cannot be the classes; set task.classes=none")
        labels = [names.index(file.relative_to(self.root).parts[0]) if self.classes == "folders" else 0 for file in files]
        # A fixed seed, so that all runs have the same test set
        order = torch.randperm(len(files), generator=generator(0, "photographs", "test")).tolist()
        apart = round(len(files) * self.tested)
        test, train = ([files[i] for i in part], [labels[i] for i in part]) if (part := order[:apart]) else None, order[apart:]
        data = FileData(
            ([files[i] for i in train], [labels[i] for i in train]), test, preprocessing,
            classes=len(names), heldout=heldout, seed=seed, augment=self.augment, missing=f"{self.root} has too few images ({len(files)})",
        )  # fmt: skip
        return data if self.classes == "folders" else Unlabelled(data)


def images_below(folder: Path) -> tuple[list[Path], list[str]]:
    """All images below a folder, and the names of its class folders; there are no class folders where images also lie beside the folders.

    Raises:
        DataError: the folder is missing, or holds no images.
    """
    if not folder.is_dir():
        raise DataError(f"image folder {folder} does not exist")
    left_out: Counter[str] = Counter()
    files = sorted(walk_images(folder, left_out))
    if not files:
        raise DataError(f"{folder} holds no images ({', '.join(sorted(image_suffixes()))})")
    say_left_out(folder, left_out)
    tops = [file.relative_to(folder).parts for file in files]
    return files, sorted({parts[0] for parts in tops}) if all(len(parts) > 1 for parts in tops) else []


@hookimpl
def nern_tasks() -> Mapping[str, type[Task]]:
    return {"photographs": Photographs}
