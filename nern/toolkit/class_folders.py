"""Lists the images below a folder and their classes."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from nern.errors import DataError
from nern.support.messages import did_you_mean, first_line, some
from nern.toolkit.image_decoding import image_suffixes

log = logging.getLogger("nern")

#: Names, in lower case, of files and folders that operating systems and network drives create.
_SYSTEM_NAMES = frozenset({
    "__macosx", "__pycache__", "@eadir", "@recycle", "#recycle", "$recycle.bin", "desktop.ini", "lost+found",
    "system volume information", "thumbs.db",
})  # fmt: skip


def list_images(folder: Path, classes: Sequence[str] | None = None) -> tuple[list[Path], list[int], list[str]]:
    """Files, class indices and class names of a folder with one folder for each class.

    A class folder's images may lie in folders of their own, as torchvision's ImageFolder reads them. Hidden and system folders and
    files (`.ipynb_checkpoints`, `__MACOSX`, `._1.png`) are ignored; a warning counts other files that are no images.

    Args:
        classes: names of all classes in the order of the network's outputs; the folders may be some of them. Without
            it, the folders are the classes: in numerical order where all names are numbers, otherwise in alphabetical order.

    Raises:
        DataError: the folder is missing, a class folder holds no images, or a folder's name is no class.
    """
    if not folder.is_dir():
        raise DataError(f"image folder {folder} does not exist")
    names = _ordered(class_folders(folder))
    places = {name: index for index, name in enumerate(names)} if classes is None else _places(folder, names, classes)
    files, labels = [], []
    left_out: Counter[str] = Counter(_ending(entry) for entry in files_beside(folder))
    for name in names:
        images = list(walk_images(folder / name, left_out))
        if not images:
            raise DataError(f"class folder {folder / name} holds no images; remove it, or put images of its class in it")
        files += images
        labels += [places[name]] * len(images)
    if not files:
        raise DataError(f"{folder} has no class folders; images belong into {folder}/<class>/<name>.png")
    say_left_out(folder, left_out)
    return files, labels, list(names if classes is None else classes)


def walk_images(folder: Path, left_out: Counter[str]) -> Iterator[Path]:
    """Every image below a folder, folder by folder; `left_out` counts the endings of other files."""
    seen: set[str] = set()
    for place, inner, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link that leads back to a folder above
            inner.clear()
            continue
        seen.add(real)
        inner[:] = sorted(name for name in inner if not _passed_over(name))
        for name in sorted(names):
            if _passed_over(name):
                continue
            file = Path(place, name)
            if file.suffix.lower() in image_suffixes():
                yield file
            else:
                left_out[_ending(file)] += 1


def say_left_out(folder: Path, left_out: Counter[str]) -> None:
    """Warn of files that were left out because they are no images, with their endings."""
    count = left_out.total()
    if count:
        endings = some([f"{number} {ending}" for ending, number in left_out.most_common()], 5)
        log.warning("nern: %s: %d %s left out (%s)", folder, count, "file is" if count == 1 else "files are", endings)


def class_names(given: Sequence[str] | str | None) -> list[str] | None:
    """The names of the network's outputs in their order, from a list or the lines of a text file; None where there is neither.

    Raises:
        DataError: the file cannot be read, there are no names, or one appears twice.
    """
    if given is None:
        return None
    if isinstance(given, str):
        file = Path(os.path.expandvars(given)).expanduser()
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, ValueError) as error:
            raise DataError(
                f"task.classes: cannot read {file} ({first_line(error)}); name a text file with one class in each line"
            ) from error
        given = [line.strip() for line in lines if line.strip()]
    names = list(given)
    if not names:
        raise DataError("task.classes: there are no names; name the class of each output of the network, in order")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"task.classes: {some(twice)} appears more than once; every output of the network needs a name of its own")
    return names


def class_folders(folder: Path) -> list[str]:
    """Names of the folders that may be classes, in alphabetical order; `list_images` says which class each one is."""
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not _passed_over(entry.name))


def has_class_folders(folder: Path) -> bool:
    """Whether a folder holds folders that may be classes."""
    return bool(class_folders(folder))


def files_beside(folder: Path) -> list[Path]:
    """Files that lie in a folder itself, without those that operating systems create."""
    return sorted(entry for entry in folder.iterdir() if entry.is_file() and not _passed_over(entry.name))


def _places(folder: Path, names: Sequence[str], classes: Sequence[str]) -> dict[str, int]:
    """The position of each folder's name among the classes; of a class like `n01440764 tench`, the first word also counts."""
    places = {name: index for index, name in enumerate(classes)}
    words = {name.split()[0]: index for index, name in enumerate(classes) if name.split()}
    unknown = [name for name in names if name not in places and name not in words]
    if unknown:
        hint = did_you_mean(unknown[0], classes, f"; task.classes holds {some(classes)}")
        raise DataError(f"class folder {folder / unknown[0]} is none of the {len(classes)} names of task.classes{hint}")
    return {name: places.get(name, words.get(name, -1)) for name in names}


def _ordered(names: Sequence[str]) -> list[str]:
    """Sort names as numbers where all are numbers, otherwise alphabetically."""
    alphabetical = sorted(names)
    if not all(name.isascii() and name.isdecimal() for name in names):
        return alphabetical
    ordered = sorted(names, key=lambda name: (int(name), name))
    if ordered != alphabetical:
        log.warning(
            "nern: the class folders are numbers and are taken in the order of these (%s), not of the alphabet (%s) as torchvision's "
            "ImageFolder does; task.classes gives another order", some(ordered), some(alphabetical),
        )  # fmt: skip
    return ordered


def _passed_over(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def _ending(file: Path) -> str:
    return file.suffix.lower() or "without an ending"
