"""Folders of training and test images with one folder for each class."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from nern.errors import DataError, OptionError
from nern.interfaces import Data, Preprocessing
from nern.support import cache
from nern.support.messages import some
from nern.toolkit.class_folders import class_folders, class_names, files_beside, has_class_folders, list_images, say_left_out, walk_images
from nern.toolkit.image_decoding import decode, shape_of, to_tensor
from nern.toolkit.images import Augment, FileData, ImageData, stacked

log = logging.getLogger("nern")

TEST_FOLDERS = ("test", "val", "valid", "validation")
BLOCK = 256  # files that one thread reads in a row; a thread's start costs more than a small file
_DECODING = 2  # version of the decoding: cache entries of another version are not used


def check_root(root: str | None) -> None:
    """Check that the option `root` is set and that the folder exists; for `Task.check`.

    Raises:
        OptionError: `root` is not set, or there is no such folder.
    """
    if root is None:
        raise OptionError("root", "is missing: name the folder that holds train/ and test/")
    if not Path(root).is_dir():
        raise OptionError("root", f"data folder {root} {_no_splits(Path(root))}")


def check_channels(preprocessing: Preprocessing) -> None:
    """Check that a network takes images of as many channels as files have.

    Raises:
        DataError: it takes neither 1 nor 3.
    """
    if preprocessing.size[0] not in (1, 3):
        raise DataError(
            f"image files have 1 or 3 channels, the network takes {preprocessing.size[0]}; give such inputs in Python "
            "(nern.represent(model, data=…)), or write a task for them (nern new-plugin NAME --kind task)"
        )


def check_images(root: Path, preprocessing: Preprocessing) -> None:
    """Check the channels of the images below `root`, and the size of the first training image; for `Task.check`.

    Raises:
        DataError: the network takes other images.
    """
    check_channels(preprocessing)
    first = next(walk_images(root / "train", Counter()), None)
    shape = None if first is None or preprocessing.resize is not None else shape_of(first)
    if first is not None and shape is not None and shape != preprocessing.size[1:]:
        raise other_size(first, shape, preprocessing)


def other_size(file: Path, shape: tuple[int, int], preprocessing: Preprocessing) -> DataError:
    """The error to report for an image whose height and width are not those that the network takes."""
    _, height, width = preprocessing.size
    return DataError(
        f"{file} has {shape[1]} × {shape[0]} pixels, the network takes {width} × {height}; "
        "resize the images, or set architecture.size (and architecture.resize, which resizes photographs)"
    )


def decoded(files: Sequence[Path], preprocessing: Preprocessing) -> Tensor:
    """Decode images of the network's own size: uint8 [n, c, h, w], or float32 from 0 to 255 where one has more than 8 bits.

    They are cached under a name computed from the content of the files.

    Raises:
        DataError: an image is broken, or of another size than the network's inputs.
    """
    size = preprocessing.size
    with ThreadPoolExecutor() as pool:
        blocks = [files[start : start + BLOCK] for start in range(0, len(files), BLOCK)]
        contents = b"".join(pool.map(_fingerprints, blocks))
        key = "images-" + hashlib.sha256(repr((_DECODING, size)).encode() + contents).hexdigest()[:32]
        images = (cache.load(key) or {}).get("images")
        if images is not None and tuple(images.shape) == (len(files), *size):
            return images
        images_read = list(pool.map(lambda file: to_tensor(decode(file, size[0]), size[0]), files))
    for file, image in zip(files, images_read, strict=True):
        if tuple(image.shape[1:]) != size[1:]:
            raise other_size(file, (image.shape[1], image.shape[2]), preprocessing)
    images = stacked(images_read)
    cache.store(key, {"images": images})
    return images


def open_folders(
    root: str | None,
    augment: Augment,
    preprocessing: Preprocessing,
    heldout: float,
    seed: int,
    *,
    classes: Sequence[str] | str | None = None,
    labels: bool = True,
    test: str | None = None,
) -> Data:
    """Open the images below `root/train/<class>/` and `root/test/<class>/`; a missing folder is only an error when it is needed.

    Args:
        classes: names of the network's outputs in their order, or a text file with one in each line; None where the
            folders are the classes, which train and test images must then both have.
        labels: False for images without classes, which lie anywhere below `train/` and `test/`.
        test: the folder of the test images; None for the first of `test/`, `val/`, `valid/` and `validation/` that
            holds class folders.

    Raises:
        DataError: a folder is missing, or its classes are not those of the other folder or of `classes`.
    """
    if root is None:
        raise DataError("task.root is missing: name the folder that holds train/ and test/ (task.root=DIR)")
    place, names = Path(root), class_names(classes)
    folders = _splits(place, labels, test)
    if not folders:
        raise DataError(f"data folder {place} {_no_splits(place)}")
    missing = f"data folder {place} has no {'train/' if 'train' not in folders else 'test/'} folder"
    listed: dict[str, tuple[list[Path], list[int] | None]] = {}
    named_classes: dict[str, list[str]] = {}
    for split, folder in folders.items():
        if labels:
            files, targets, named_classes[split] = list_images(folder, names)
            listed[split] = files, targets
        else:
            listed[split] = _unlabelled(folder), None
    if len(named_classes) == 2:
        _same_classes(place, folders, named_classes)
    count = len(next(iter(named_classes.values()))) if named_classes else None
    if preprocessing.resize is not None:
        return FileData(
            listed.get("train"), listed.get("test"), preprocessing,
            classes=count, heldout=heldout, seed=seed, augment=augment, missing=missing,
        )  # fmt: skip
    read = {
        split: (decoded(files, preprocessing), None if targets is None else torch.tensor(targets))
        for split, (files, targets) in listed.items()
    }
    return ImageData(
        read.get("train"), read.get("test"), preprocessing,
        classes=count, heldout=heldout, seed=seed, augment=augment, missing=missing,
    )  # fmt: skip


def _no_splits(place: Path) -> str:
    """Why a path has no folders of training and test images, and where these belong."""
    belong = f"images belong into {place}/train/<class>/ and {place}/test/<class>/"
    if not place.is_dir():
        return "is a file; name a folder" if place.is_file() else f"does not exist; {belong}"
    inside = [f"{name}/" for name in class_folders(place)] + [file.name for file in files_beside(place)]
    return f"holds neither train/ nor test/ (nor {', '.join(TEST_FOLDERS[1:])}), but {some(inside) if inside else 'nothing'}; {belong}"


def _splits(place: Path, labels: bool, test: str | None) -> dict[str, Path]:
    """The folders of training and test images that exist."""
    if test is not None and not (place / test).is_dir():
        raise DataError(f"task.test: there is no folder {place / test}")
    candidates = [place / name for name in ((test,) if test is not None else TEST_FOLDERS) if (place / name).is_dir()]
    usable = [folder for folder in candidates if not labels or test is not None or has_class_folders(folder)]
    train = {"train": place / "train"} if (place / "train").is_dir() else {}
    flat = [f"{folder.name}/" for folder in candidates if folder not in usable]
    if flat and (usable or train):
        log.warning("nern: %s: %s left out, which holds no class folders", place, some(flat))
    if usable[1:]:
        unused = some([f"{folder.name}/" for folder in usable[1:]])
        log.warning("nern: %s: test images are those of %s/; %s is not used (task.test=NAME)", place, usable[0].name, unused)
    chosen = usable or ([] if train else candidates)
    return {**train, **({"test": chosen[0]} if chosen else {})}


def _unlabelled(folder: Path) -> list[Path]:
    left_out: Counter[str] = Counter()
    files = list(walk_images(folder, left_out))
    if not files:
        raise DataError(f"{folder} holds no images")
    say_left_out(folder, left_out)
    return files


def _same_classes(place: Path, folders: dict[str, Path], classes: dict[str, list[str]]) -> None:
    train, test = classes["train"], classes["test"]
    if train == test:
        return
    only = [(split, [name for name in classes[split] if name not in other]) for split, other in (("train", test), ("test", train))]
    differences = "; ".join(f"only {folders[split].name}/ has {some(names)}" for split, names in only if names)
    raise DataError(
        f"data folder {place} has {len(train)} classes in train/ and {len(test)} in {folders['test'].name}/: {differences}. "
        "Name the class of each output of the network, in order, with task.classes"
    )


def _fingerprints(files: Sequence[Path]) -> bytes:
    """The joined fingerprints of the contents of files, 16 bytes for each."""
    fingerprints = []
    for file in files:
        try:
            fingerprints.append(hashlib.blake2b(file.read_bytes(), digest_size=16).digest())
        except OSError as error:
            raise DataError(f"cannot read {file} ({error.strerror or error})") from error
    return b"".join(fingerprints)
