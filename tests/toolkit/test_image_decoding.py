"""Pixels keep the values that their file holds, and a file that cannot be decoded is named."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nern.errors import DataError
from nern.interfaces import Preprocessing
from nern.toolkit.image_decoding import check_image, decode, image_suffixes, to_tensor
from nern.toolkit.image_folders import decoded, open_folders

DRAW = np.random.default_rng(0)
SIXTEEN = DRAW.integers(0, 1 << 16, (8, 8), dtype=np.uint16)
UNIT = DRAW.random((8, 8), dtype=np.float32)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("name", "pixels", "expected"),
    [
        ("a.png", SIXTEEN, SIXTEEN / 257),
        ("a.tif", SIXTEEN, SIXTEEN / 257),
        ("a.pgm", SIXTEEN, SIXTEEN / 257),
        ("a.tiff", UNIT, UNIT * 255.0),
        ("a.tiff", UNIT * 255, UNIT * 255.0),
    ],
    ids=["16-bit PNG", "16-bit TIFF", "16-bit PGM", "floats to 1", "floats to 255"],
)
def test_images_of_more_than_eight_bits_keep_their_values(
    name: str, pixels: np.ndarray, expected: np.ndarray, channels: int, tmp_path: Path
) -> None:
    (tmp_path / "c").mkdir()
    Image.fromarray(pixels).save(tmp_path / "c" / name)
    image = to_tensor(decode(tmp_path / "c" / name, channels), channels)
    assert image.shape == (channels, 8, 8)
    for channel in image:
        np.testing.assert_allclose(channel, expected, atol=1e-3)
    preprocessing = Preprocessing((0.5,) * channels, (0.25,) * channels, (channels, 8, 8))
    inputs = preprocessing.normalise(decoded([tmp_path / "c" / name], preprocessing))
    np.testing.assert_allclose(inputs[0, 0], (expected / 255 - 0.5) / 0.25, atol=1e-4)


def png(pixels: np.ndarray) -> bytes:
    """A PNG of 16 bits, [h, w, c] uint16, as the standard writes one."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = pixels.shape
    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("own", [2, 3, 4])
@pytest.mark.parametrize("channels", [1, 3])
def test_colours_of_sixteen_bits_keep_their_low_byte(own: int, channels: int, tmp_path: Path) -> None:
    pixels = DRAW.integers(0, 1 << 16, (7, 5, own), dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(png(pixels))
    files = [tmp_path / "a.png"]
    if own == 3:
        (tmp_path / "a.ppm").write_bytes(b"P6 5 7 65535\n" + pixels.astype(">u2").tobytes())
        files.append(tmp_path / "a.ppm")
    colours = pixels[..., :3] if own > 2 else pixels[..., :1].repeat(3, axis=2)
    expected = colours.astype(np.float64) / 257
    if channels == 1:
        expected = expected @ np.array([[0.299], [0.587], [0.114]])
    for file in files:
        check_image(file, channels)
        np.testing.assert_allclose(to_tensor(decode(file, channels), channels), expected.transpose(2, 0, 1), atol=1e-3)
        file.write_bytes(file.read_bytes()[:-40])
        with pytest.raises(DataError, match="is not a complete image"):
            check_image(file, channels)


def test_colours_of_which_eight_bits_would_be_lost_are_refused(tmp_path: Path) -> None:
    pixels = DRAW.integers(0, 1 << 16, (1, 2, 3), dtype=np.uint16)
    entries = [(256, 3, 1, 2), (257, 3, 1, 1), (258, 3, 3, 122), (262, 3, 1, 2), (273, 4, 1, 128), (277, 3, 1, 3), (278, 3, 1, 1)]
    entries.append((279, 4, 1, 12))
    packed = b"".join(struct.pack("<HHI", tag, kind, count) + struct.pack("<I", value) for tag, kind, count, value in entries)
    head = struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + packed + struct.pack("<I", 0)
    (tmp_path / "a.tif").write_bytes(head.ljust(122, b"\0") + struct.pack("<3H", 16, 16, 16) + pixels.astype("<u2").tobytes())
    with pytest.raises(DataError, match=r"a\.tif has colours of 16 bits, of which TIFF files give 8 here; save it with 8 bits, or as PNG"):
        decode(tmp_path / "a.tif", 3)
    Image.fromarray(SIXTEEN).save(tmp_path / "grey.jp2")
    decoded = to_tensor(decode(tmp_path / "grey.jp2", 1), 1)
    assert decoded.dtype == torch.float32


def test_images_of_sixteen_bits_are_resized_and_stand_beside_others(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split / "c").mkdir(parents=True)
        Image.fromarray(np.full((20, 24), 257 * 77, dtype=np.uint16)).save(tmp_path / split / "c" / "a.png")
        Image.new("RGB", (24, 20), (1, 2, 3)).save(tmp_path / split / "c" / "b.png")
    preprocessing = Preprocessing((0.0,) * 3, (1.0,) * 3, (3, 8, 8), resize=10)
    data = open_folders(str(tmp_path), "crop-flip", preprocessing, 0.0, 0)
    images, _ = next(iter(data.batches("test", 2, torch.device("cpu"))))
    np.testing.assert_allclose(images[0] * 255, np.full((3, 8, 8), 77), atol=1e-3)
    np.testing.assert_allclose(images[1, :, 0, 0] * 255, [1, 2, 3], atol=1e-3)
    drawn = data.inputs(2, 0, torch.device("cpu"))(0)[:, 0, 0, 0] * 255
    assert sorted(drawn.round().tolist()) == [1, 77]


@pytest.mark.parametrize("pixels", [UNIT - 0.5, UNIT * 1000, (SIXTEEN.astype(np.int32) << 4)], ids=["below 0", "above 255", "32-bit"])
def test_numbers_without_a_known_range_are_refused(pixels: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif holds .* which says nothing about what is white; save it with 8 or 16 bits"):
        decode(tmp_path / "a.tif", 3)


def test_an_image_with_too_many_pixels_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "test" / "c" / "scan.png"
    file.parent.mkdir(parents=True)
    Image.new("L", (64, 64)).save(file)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for look in (lambda: decode(file, 3), lambda: check_image(file, 3)):
        with pytest.raises(DataError, match=r"scan\.png has too many pixels to be decoded \(Image size \(4096 pixels\)"):
            look()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".gif", ".bmp", ".tif", ".jp2", ".tga", ".ppm"])
def test_broken_images_are_found_before_training(suffix: str, tmp_path: Path) -> None:
    for index in range(2):
        file = tmp_path / "train" / "c" / f"{index}{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(DRAW.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(file)
    data = open_folders(str(tmp_path), "none", Preprocessing(size=(3, 32, 32), resize=32), 0.0, 0)
    data.check()
    content = file.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"hello"):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=rf"1\{suffix} is not a complete image"):
            data.check()


def test_suffixes_are_those_that_pillow_decodes() -> None:
    assert {".png", ".jpeg", ".jfif", ".gif", ".pgm", ".tif", ".webp", ".avif", ".qoi"} <= image_suffixes()
    assert not {".pdf", ".eps", ".mpg", ".h5", ".txt"} & image_suffixes()
