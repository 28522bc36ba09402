"""Writes files so that a crash leaves the old one or the new one, never half of one.

torch is imported when tensors are written: commands that write text alone start without it.
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
    """A path with `~`, `~user`, `$NAME` or `${NAME}` at its beginning replaced, as a shell would; other text stays.

    A home folder or variable that does not exist stays as it is, too: see `unknown_start`.
    """
    return os.path.expandvars(os.path.expanduser(text)) if _START.match(text) else text


def unknown_start(text: str) -> str | None:
    """The `~user` or `$NAME` that a path begins with and that `expand_path` could not replace."""
    start = _START.match(expand_path(text))
    return start[1] if start else None


def is_file(path: Path) -> bool:
    """Whether an ordinary file is there; a name that no file can have counts as a file that is not there."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a new file beside `path`, flush it to the disk, then rename it to `path`.

    Raises:
        OSError: the folder is missing, full or read-only; what `path` held is untouched.
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
        content[name] = plain.clone() if place in places else plain  # tied weights share a storage, which the format does not know
        places.add(place)
    write_atomically(path, lambda file: file.write(save(content, metadata)))


def write_object(path: Path, value: Any) -> None:
    """Write with `torch.save`, atomically. It is laid out in memory first: torch hides errors of the file it writes to."""
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
