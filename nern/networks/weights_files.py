"""Reads weights files of any ending without executing anything in them; of another file, the error says what it is."""

from __future__ import annotations

import argparse
import pathlib
import re
import struct
import types
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nern.errors import DataError
from nern.support.files import expand_path
from nern.support.messages import did_you_mean, first_line

#: How much longer than the file its content may be: torch and safetensors do not compress, other programs may do so a little.
SHORTEST = 20
SAVE = 'torch.save(model.state_dict(), "weights.pth")'

#: First bytes of files that hold no weights, and what such a file is.
_BEGINNINGS: list[tuple[bytes, str]] = [
    (b"version https://git-lfs", "is a Git LFS pointer, which stands for the weights; get them with: git lfs pull"),
    (b"\x89HDF", f"is an HDF5 file, as Keras writes them; load it there and save PyTorch's names and tensors: {SAVE}"),
    (b"\x1f\x8b", "is compressed with gzip; unpack it and name the file inside"),
    (b"BZh", "is compressed with bzip2; unpack it and name the file inside"),
    (b"\xfd7zXZ", "is compressed with xz; unpack it and name the file inside"),
    (b"7z\xbc\xaf", "is a 7z archive; unpack it and name the file inside"),
    (b"Rar!", "is a RAR archive; unpack it and name the file inside"),
    (b"\x93NUMPY", f"is a NumPy array; save a state dict in PyTorch: {SAVE}"),
    (b"GGUF", f"is a GGUF file; save a state dict in PyTorch: {SAVE}"),
]
#: The first bytes of what torch.save wrote before version 1.6, and can still write.
_OLDER_FORM = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
#: How Hugging Face's libraries call the files of a state dict that they have cut into parts.
_PART = re.compile(r"-(\d{5})-of-(?!00001)(\d{5})\.")
#: Harmless classes that checkpoints hold beside their tensors: they only hold values.
_HARMLESS: list[Any] = [argparse.Namespace, types.SimpleNamespace, pathlib.PosixPath, pathlib.PurePosixPath, np.dtype]
_HARMLESS += [np.float64(0).__reduce__()[0], *(type(np.dtype(kind)) for kind in "?bBhHiIlLqQefdFDSU")]


def read_weights_file(path: Path) -> Any:
    """The object in a safetensors or torch file, on the CPU.

    Torch files are read with weights-only loading: nothing in them is executed.

    Raises:
        DataError: the file is missing, unreadable or incomplete, declares more than it can hold, or holds no weights; the message
            says what it is and what to do.
    """
    path = Path(expand_path(str(path)))
    try:
        _refuse_other_kinds(path)
        with path.open("rb") as file:
            start, size = file.read(600), path.stat().st_size
    except ValueError as error:
        raise DataError(f"weights file {path!r} has a name that no file can have ({error})") from error
    except OSError as error:
        raise DataError(f"weights file {path} cannot be read ({error.strerror or error})") from error
    for beginning, what in _BEGINNINGS:
        if start.startswith(beginning):
            raise DataError(f"weights file {path} {what}")
    if re.match(rb"\s*<(!doctype|html|\?xml)", start, re.IGNORECASE):
        raise DataError(f"weights file {path} is a web page, not the weights; open its address in a browser to see what it says")
    part = _PART.search(path.name)
    if part or (start.startswith(b"{") and b'"weight_map"' in start):
        what = f"part {int(part[1])} of {int(part[2])} of" if part else "the list of the files with"
        raise DataError(f"weights file {path} is {what} a state dict in several files; save it in one file where it is at hand: {SAVE}")
    if start[257:262] == b"ustar":
        raise DataError(f"weights file {path} is a tar archive; unpack it and name the file inside")
    if not start:
        raise DataError(f"weights file {path} is empty; get it again")
    if (path.suffix == ".safetensors" and not start.startswith((b"PK\x03\x04", b"\x80"))) or _begins_as_safetensors(start, size):
        return _read_safetensors(path)
    if start.startswith(b"PK\x03\x04"):
        _check_zip(path, size)
    return _read_torch(path)


def _refuse_other_kinds(path: Path) -> None:
    """Raise DataError unless `path` is an ordinary file."""
    if path.is_dir():
        inside = sorted(entry.name for entry in path.iterdir() if entry.suffix in (".safetensors", ".pt", ".pth", ".th", ".bin", ".tar"))
        hint = f"; name the file in it, such as {path / inside[0]}" if inside else "; name a file (.safetensors, .pt, .pth)"
        raise DataError(f"weights file {path} is a folder{hint}")
    if path.exists() and not path.is_file():
        raise DataError(f"weights file {path} is no ordinary file, but a {'pipe' if path.is_fifo() else 'device or socket'}; name a file")
    if not path.is_file():
        raise DataError(f"weights file {path} does not exist" + _neighbours(path))


def _begins_as_safetensors(start: bytes, size: int) -> bool:
    """Whether a file begins with the length of a JSON header that it has room for."""
    return len(start) > 9 and struct.unpack("<Q", start[:8])[0] <= size - 8 and start[8:9] == b"{"


def _read_safetensors(path: Path) -> Any:
    from safetensors.torch import load_file

    try:
        return load_file(str(path))
    except Exception as error:  # safetensors, the file system, or a type that torch does not have
        raise DataError(f"weights file {path} is not a complete safetensors file ({plain(error)}); get it again") from error


def _check_zip(path: Path, size: int) -> None:
    """Refuse an archive that is no state dict, or whose records unpack to far more than the file's length."""
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
    except Exception as error:  # a damaged directory can raise anything
        raise DataError(f"weights file {path} is truncated or not a torch state dict ({plain(error)}); get it again") from error
    declared = sum(record.file_size for record in records)
    if declared > SHORTEST * size:
        raise DataError(
            f"weights file {path} has {size:,} bytes and declares {declared:,} bytes of content; such a file is made to fill the memory"
        )
    names = {record.filename.partition("/")[2] for record in records}
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        line = f"torch.save(torch.jit.load({str(path)!r}).state_dict(), 'weights.pth')"
        raise DataError(f"weights file {path} is TorchScript, which holds a program; save its weights alone: {line}")
    if "data.pkl" not in names:
        kind = (
            "a NumPy archive" if any(name.filename.endswith(".npy") for name in records) else "a zip archive that torch.save did not write"
        )
        raise DataError(f"weights file {path} is {kind}; save a state dict in PyTorch: {SAVE}")


def _read_torch(path: Path) -> Any:
    try:
        # An open file, because torch judges a path by its ending
        with torch.serialization.safe_globals(_HARMLESS), path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the error, where there is one, says more
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything
        wanted = re.search(r"GLOBAL ([\w.]+) was not an allowed global", str(error)) or re.search(
            r"(?:Unsupported class|instantiate|Unsupported global: GLOBAL) ([\w.]+)", str(error)
        )
        if wanted:
            raise DataError(
                f"weights file {path} holds a Python object beside or around the tensors ({wanted[1]}), whose code nern does not run; "
                f"where that code is at hand, save the weights alone: {SAVE}"
            ) from error
        reason = _seen(path) or plain(error)
        raise DataError(
            f"weights file {path} is truncated or not a torch state dict ({reason}); get it again, or save it anew: {SAVE}"
        ) from error


def _seen(path: Path) -> str:
    """What a file that is neither a zip archive nor of torch's older form looks like; empty for those two."""
    with path.open("rb") as file:
        start = file.read(40)
    if start.startswith((b"PK\x03\x04", _OLDER_FORM)):
        return ""
    if start.startswith(b"\x80"):
        return "it is a pickle that torch.save did not write"
    text = start.decode("utf-8-sig", "ignore").split("\n")[0].strip()
    if len(text) > 3 and text.isprintable():
        return f"it is text that begins with '{text}'"
    return f"it begins with the bytes {start[:4].hex(' ')}, as no file of torch or safetensors does"


def plain(error: Exception) -> str:
    """The first sentence of an error, without torch's advice and without terminal codes."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", first_line(error)).strip()
    if "Unsupported operand" in str(error):
        return "its pickle is of another protocol than torch.save's own"
    text = re.split(r"\. |\. ?$|: expected %|, do those steps|Weights only load failed", text)[0].strip()
    return text or type(error).__name__


def _neighbours(path: Path) -> str:
    if not path.parent.is_dir():
        return f" (nor does the folder {path.parent})"
    return did_you_mean(path.name, [other.name for other in path.parent.iterdir()])
