"""Image files become tensors: every format that Pillow reads, with the values that the file holds."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nern.errors import DataError
from nern.support.messages import first_line

#: Formats for which Pillow knows the name only, and one that it hands to another program.
_UNREADABLE = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})


@functools.cache
def image_suffixes() -> frozenset[str]:
    """Endings of the files that Pillow can decode here, in lower case, with their dot."""
    from PIL import Image

    Image.init()
    return frozenset(
        suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN and kind not in _UNREADABLE
    )  # fmt: skip


def decode(file: Path, channels: int) -> Any:
    """A PIL image in mode "L" (1 channel), "RGB" (3 channels) or "F".

    Pillow cuts images of 16 bits or of floats down to 8 bits. Those become "F" instead: floats from 0 to 255, of which
    `to_tensor` makes as many equal channels as the network takes. Sixteen bits are divided by 257, floats from 0 to 1
    multiplied by 255, and other floats up to 255 stay as they are.

    Raises:
        DataError: the file is no complete image, is too large to be decoded, or holds numbers whose range is unknown.
    """
    from PIL import Image

    try:
        with Image.open(file) as image:
            if image.mode.startswith(("I", "F")):
                return Image.fromarray(_in_range(np.asarray(image), image.mode, image.format))
            return image.convert("L" if channels == 1 else "RGB")
    except Image.DecompressionBombError as error:
        raise DataError(_too_large(file, error)) from error
    except _Unscaled as error:
        raise DataError(f"{file} holds {error}; save it with 8 or 16 bits, or as floats from 0 to 1") from error
    except Exception as error:  # a damaged file fails in as many ways as there are formats
        raise DataError(f"{file} is not a complete image ({first_line(error)}); get it again or remove it") from error


def to_tensor(image: Any, channels: int | None = None) -> Tensor:
    """A PIL image as [c, h, w]: uint8, or float32 from 0 to 255 for mode "F".

    Args:
        channels: how many equal ones an "F" image gives; None for 1.
    """
    pixels = torch.from_numpy(np.array(image))
    if pixels.dim() == 3:
        return pixels.permute(2, 0, 1).contiguous()
    return pixels[None] if image.mode != "F" else pixels.expand(channels or 1, *pixels.shape).contiguous()


def check_image(file: Path, channels: int) -> None:
    """See that a file will decode, mostly without decoding it: a JPEG by its header and its end, any other file in full.

    Raises:
        DataError: see `decode`.
    """
    from PIL import Image

    try:
        with Image.open(file) as image:
            whole = image.format == "JPEG" and image.mode in ("L", "RGB") and _has_end(file)
    except Image.DecompressionBombError as error:
        raise DataError(_too_large(file, error)) from error
    except Exception as error:
        raise DataError(f"{file} is not a complete image ({first_line(error)}); get it again or remove it") from error
    if not whole:
        decode(file, channels)


class _Unscaled(Exception):
    """The numbers of an image say nothing about which of them is white."""


def _in_range(values: np.ndarray, mode: str, kind: str | None) -> np.ndarray:
    """Numbers of more than eight bits as float32 from 0 to 255."""
    if mode.startswith("I;16") or kind in ("PNG", "PPM"):
        return values.astype(np.float32) / 257
    low, high = float(values.min()), float(values.max())
    if mode != "F" or not (low >= 0 and high <= 255):
        what = "floats" if mode == "F" else "integers of 32 bits"
        raise _Unscaled(f"{what} from {low:g} to {high:g}, which says nothing about what is white")
    return values.astype(np.float32) * (255 if high <= 1 else 1)


def _has_end(file: Path) -> bool:
    """Whether the end-of-image marker stands among the last bytes of a JPEG."""
    with file.open("rb") as opened:
        opened.seek(0, 2)
        opened.seek(max(0, opened.tell() - 1024))
        return b"\xff\xd9" in opened.read()


def _too_large(file: Path, error: Exception) -> str:
    return f"{file} has too many pixels to be decoded ({first_line(error).rstrip('.')}); make it smaller or remove it"
