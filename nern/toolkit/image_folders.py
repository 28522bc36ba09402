"""Folders of images with one folder for each class."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from nern.errors import DataError
from nern.interfaces import Data, Preprocessing
from nern.options import OptionError
from nern.support import cache
from nern.toolkit.images import Augment, FileData, ImageData, decode, to_tensor

TEST_FOLDERS = ("test", "val")
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".tif", ".tiff"}


# -- folders ---------------------------------------------------------------------------------------------------------
def list_images(folder: Path) -> tuple[list[Path], list[int], list[str]]:
    """Files, class indices and class names of a folder with one folder per class; classes in alphabetical order.

    Raises:
        DataError: the folder is missing, or no class folder holds images.
    """
    if not folder.is_dir():
        raise DataError(f"image folder {folder} does not exist")
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    files, labels = [], []
    for index, name in enumerate(names):
        found = sorted(file for file in (folder / name).iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        if not found:
            raise DataError(f"class folder {folder / name} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
        files += found
        labels += [index] * len(found)
    if not files:
        raise DataError(f"{folder} has no class folders; images belong into {folder}/<class>/<name>.png")
    return files, labels, names


def read_folder(folder: Path, preprocessing: Preprocessing) -> tuple[Tensor, Tensor, int]:
    """All images of a folder with one folder per class: uint8 [n, c, h, w], labels [n], number of classes.

    Decoded images are cached under a name made from the files' paths, sizes and times.

    Raises:
        DataError: the folder is missing or empty, or an image is broken or of another size than the network's inputs.
    """
    files, labels, names = list_images(folder)
    stats = [(str(file.relative_to(folder)), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]
    key = "images-" + hashlib.sha256(repr((preprocessing.size, stats)).encode()).hexdigest()[:32]
    cached = cache.load(key)
    if cached is None:
        with ThreadPoolExecutor() as pool:
            images = list(pool.map(lambda file: to_tensor(decode(file, preprocessing.size[0])), files))
        _, height, width = preprocessing.size
        for file, image in zip(files, images, strict=True):
            if tuple(image.shape) != preprocessing.size:
                raise DataError(f"{file} has {image.shape[2]} × {image.shape[1]} pixels, the network takes {width} × {height}")
        cached = {"images": torch.stack(images), "labels": torch.tensor(labels)}
        cache.store(key, cached)
    return cached["images"], cached["labels"], len(names)


def check_root(root: str | None) -> None:
    """Refuse a root that is not named or does not exist; for `Task.check`.

    Raises:
        OptionError: of the option `root`.
    """
    if root is None:
        raise OptionError("root", "is missing: name the folder that holds train/ and test/")
    if not Path(root).is_dir():
        raise OptionError("root", f"data folder {root} does not exist; images belong into {root}/train/<class>/ and {root}/test/<class>/")


def open_folders(root: str | None, augment: Augment, preprocessing: Preprocessing, heldout: float, seed: int) -> Data:
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
