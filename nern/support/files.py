"""Writes files atomically: a crash leaves either the old or the new file, never a part of one.

torch is imported only when tensors are written, so that commands which write text start quickly.
"""

from __future__ import annotations

import io
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import torch

_START = re.compile(r"(~[\w.-]*|\$\w+|\$\{\w+\})(?=/|$)")


def expand_path(text: str) -> str:
    """A path in which `~`, `~user`, `$NAME` or `${NAME}` at the beginning is replaced, as a shell does.

    The name of a user or variable that does not exist stays as it is: see `unknown_start`.
    """
    return os.path.expandvars(os.path.expanduser(text)) if _START.match(text) else text


def unknown_start(text: str) -> str | None:
    """The `~user` or `$NAME` at the beginning of a path that `expand_path` could not replace; empty where there is none."""
    start = _START.match(expand_path(text))
    return start[1] if start else None


def is_file(path: Path) -> bool:
    """Whether an ordinary file exists; false also for a name that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a new file beside `path`, flush it to the disk, then rename it to `path`.

    Raises:
        OSError: the folder is missing, full or read-only; an old file at `path` is unchanged.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_atomically(path, lambda file: file.write(text.encode()))


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file atomically."""
    from safetensors.torch import save

    content: dict[str, torch.Tensor] = {}
    places: set[int] = set()
    for name, value in tensors.items():
        plain = value.detach().cpu().contiguous()
        place = plain.untyped_storage().data_ptr()
        # The format cannot store tensors that share memory, such as tied weights
        content[name] = plain.clone() if place in places else plain
        places.add(place)
    write_atomically(path, lambda file: file.write(save(content, metadata)))


def write_object(path: Path, value: Any) -> None:
    """Write with `torch.save`, atomically. The content is made in memory first, because torch hides errors of its file."""
    import torch

    content = io.BytesIO()
    torch.save(value, content)
    write_atomically(path, lambda file: file.write(content.getbuffer()))


def remove_leftovers(folder: Path) -> None:
    """Remove the unfinished files that an interrupted `write_atomically` left in a folder."""
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _flush_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
