"""Decodes image files to tensors: every format that Pillow reads, with the full precision of the file."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from nern.errors import DataError
from nern.support.messages import first_line

#: Formats that Pillow knows by name but cannot decode, and one that it passes to another program.
_UNREADABLE = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
#: Shares of red, green and blue in grey (ITU-R 601-2), as Pillow takes them.
_LUMA = (0.299, 0.587, 0.114)


@functools.cache
def image_suffixes() -> frozenset[str]:
    """Endings of the files that Pillow can decode here, in lower case, with their dot."""
    from PIL import Image

    Image.init()
    return frozenset(
        suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN and kind not in _UNREADABLE
    )  # fmt: skip


@attrs.frozen(eq=False)
class Picture:
    """A decoded image: one Pillow image in mode "L" or "RGB", or one in mode "F" for each channel, with numbers from 0 to 255."""

    planes: list[Any]
    """The Pillow images: one in mode "L" or "RGB", or one in mode "F" for each channel."""

    @property
    def width(self) -> int:
        """Width of the image in pixels."""
        width: int = self.planes[0].width
        return width

    @property
    def height(self) -> int:
        """Height of the image in pixels."""
        height: int = self.planes[0].height
        return height

    def map(self, change: Callable[[Any], Any]) -> Picture:
        """The same change of every plane, such as a crop."""
        return Picture([change(plane) for plane in self.planes])


def decode(file: Path, channels: int) -> Picture:
    """The image in a file, in grey for 1 channel and in colours for 3.

    Pillow cuts images of 16 bits or of floats down to 8 bits. Those become "F" instead: floats from 0 to 255, of which
    `to_tensor` makes as many channels as the network takes. Sixteen bits are divided by 257, floats from 0 to 1
    multiplied by 255, and other floats up to 255 stay as they are.

    Raises:
        DataError: the file is no complete image, is too large to be decoded, holds numbers whose range is unknown, or has more
            bits than can be read.
    """
    from PIL import Image

    try:
        with Image.open(file) as image:
            if image.mode.startswith(("I", "F")):
                return Picture([Image.fromarray(_in_range(np.asarray(image), image.mode, image.format))])
            if _is_deep(image):
                return Picture([Image.fromarray(plane) for plane in _of_channels(_deep(image, file), channels)])
            return Picture([image.convert("L" if channels == 1 else "RGB")])
    except Image.DecompressionBombError as error:
        raise DataError(_too_large(file, error)) from error
    except _Unscaled as error:
        raise DataError(f"{file} holds {error}; save it with 8 or 16 bits, or as floats from 0 to 1") from error
    except _TooDeep as error:
        way = "save it with 8 bits" + ("" if str(error) == "PNG" else ", or as PNG, which keeps them")
        raise DataError(f"{file} has colours of 16 bits, of which {error} files give 8 here; {way}") from error
    except Exception as error:  # a damaged file can raise anything, depending on its format
        raise DataError(f"{file} is not a complete image ({first_line(error)}); get it again or remove it") from error


def to_tensor(picture: Picture, channels: int | None = None) -> Tensor:
    """An image as [c, h, w]: uint8, or float32 from 0 to 255 where it has planes of floats.

    Args:
        channels: how many equal channels are made of a single plane of floats; None for one.
    """
    if picture.planes[0].mode == "F":
        pixels = torch.stack([torch.from_numpy(np.array(plane)) for plane in picture.planes])
        return pixels.expand(channels or 1, -1, -1).contiguous() if len(pixels) == 1 else pixels
    pixels = torch.from_numpy(np.array(picture.planes[0]))
    return pixels.permute(2, 0, 1).contiguous() if pixels.dim() == 3 else pixels[None]


def check_image(file: Path, channels: int) -> None:
    """Check that a file can be decoded: of a JPEG only the header and the end are read, any other file is decoded.

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


def shape_of(file: Path) -> tuple[int, int] | None:
    """Height and width of an image as its header says them; None where it cannot be read."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            return image.height, image.width
    except Exception:  # a damaged file can raise anything, depending on its format
        return None


class _Unscaled(Exception):
    """The range of an image's values is unknown: nothing says which value is white."""


def _in_range(values: np.ndarray, mode: str, kind: str | None) -> np.ndarray:
    """Scale values of more than eight bits to float32 from 0 to 255."""
    if mode.startswith("I;16") or kind in ("PNG", "PPM"):
        return values.astype(np.float32) / 257
    low, high = float(values.min()), float(values.max())
    if mode != "F" or not (low >= 0 and high <= 255):
        what = "floats" if mode == "F" else "integers of 32 bits"
        raise _Unscaled(f"{what} from {low:g} to {high:g}, which says nothing about what is white")
    return values.astype(np.float32) * (255 if high <= 1 else 1)


class _TooDeep(Exception):
    """Colours have more than eight bits in a format of which only eight are read."""


def _is_deep(image: Any) -> bool:
    """Whether the colours of an opened image have more bits than Pillow gives."""
    for _, _, _, form in image.tile:
        parts = form if isinstance(form, tuple) else (form,)
        if re.search(r";16[BLN]$", str(parts[0] if parts else "")) or (image.format == "PPM" and parts[-1] in range(256, 1 << 16)):
            return True
    return image.format == "JPEG2000" and _bits_of_jpeg2000(image.fp) > 8


def _deep(image: Any, file: Path) -> np.ndarray:
    """Colours of 16 bits [channels, h, w], float32 from 0 to 255."""
    content = file.read_bytes()
    if image.format == "PNG":
        try:
            from torchvision.io import decode_png
        except ImportError as error:  # torchvision has announced that it will go
            raise _TooDeep(image.format) from error
        image.load()  # which refuses what is not complete
        pixels: np.ndarray = decode_png(torch.frombuffer(bytearray(content), dtype=torch.uint8)).numpy()
        return pixels.astype(np.float32) / 257
    if image.format == "PPM" and image.tile[0][0] == "ppm":
        offset, (_, most) = image.tile[0][2:4]
        rows: np.ndarray = np.frombuffer(content, ">u2", image.width * image.height * 3, offset).reshape(image.height, image.width, 3)
        colours: np.ndarray = np.ascontiguousarray(rows.transpose(2, 0, 1), np.float32)
        return colours * np.float32(255 / most)
    raise _TooDeep(image.format)


def _of_channels(pixels: np.ndarray, channels: int) -> list[np.ndarray]:
    """As many planes as a network takes, of grey or of colours [c, h, w], with or without transparency behind them."""
    colours = list(pixels[: 1 if len(pixels) < 3 else 3])
    if channels == 1 and len(colours) == 3:
        return [sum(np.float32(share) * plane for share, plane in zip(_LUMA, colours, strict=True))]
    return colours


def _bits_of_jpeg2000(file: Any) -> int:
    """Bits of the first channel, as the header of the code stream says them; 0 where there is none."""
    file.seek(0)
    start = file.read(1 << 16)
    at = start.find(b"\xff\x4f\xff\x51")
    return (start[at + 42] & 0x7F) + 1 if 0 <= at < len(start) - 42 else 0


def _has_end(file: Path) -> bool:
    """Whether the end-of-image marker is among the last bytes of a JPEG."""
    with file.open("rb") as opened:
        opened.seek(0, 2)
        opened.seek(max(0, opened.tell() - 1024))
        return b"\xff\xd9" in opened.read()


def _too_large(file: Path, error: Exception) -> str:
    return f"{file} has too many pixels to be decoded ({first_line(error).rstrip('.')}); make it smaller or remove it"
