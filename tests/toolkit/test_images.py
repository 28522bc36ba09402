"""Splits, orders, augmentation, and images in memory and in files."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from nern.errors import DataError
from nern.interfaces import Preprocessing
from nern.toolkit.class_folders import list_images
from nern.toolkit.image_folders import decoded
from nern.toolkit.images import EpochOrder, FileData, ImageData, augmented, split_heldout

CPU = torch.device("cpu")
PLAIN = Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (3, 8, 8))


# -- splits and orders -------------------------------------------------------------------------------------------------


@given(count=st.integers(1, 200), fraction=st.floats(0, 0.99), seed=st.integers(0, 2**31 - 1))
def test_heldout_images_are_a_seeded_part_of_all(count: int, fraction: float, seed: int) -> None:
    kept, held = (part.tolist() for part in split_heldout(count, fraction, seed))
    assert sorted(kept + held) == list(range(count))
    assert len(held) == round(count * fraction)
    assert kept == sorted(kept)
    assert held == sorted(held)
    assert [part.tolist() for part in split_heldout(count, fraction, seed)] == [kept, held]


def test_another_seed_holds_out_other_images() -> None:
    assert split_heldout(1000, 0.1, 0)[1].tolist() != split_heldout(1000, 0.1, 1)[1].tolist()


@given(count=st.integers(1, 30), batch=st.integers(1, 70), seed=st.integers(0, 1000))
def test_every_image_comes_once_per_epoch(count: int, batch: int, seed: int) -> None:
    order = EpochOrder(count, batch, seed)
    epochs = 3
    steps = [order(step).tolist() for step in range(-(-epochs * count // batch))]
    assert all(len(step) == batch for step in steps)
    drawn = [index for step in steps for index in step]
    for epoch in range(epochs):
        assert sorted(drawn[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_a_batch_is_a_function_of_the_step() -> None:
    order = EpochOrder(50, 16, 3)
    forwards = [order(step).tolist() for step in range(20)]
    assert [EpochOrder(50, 16, 3)(step).tolist() for step in range(20)] == forwards
    assert [order(step).tolist() for step in reversed(range(20))] == forwards[::-1]
    assert EpochOrder(50, 16, 4)(0).tolist() != forwards[0]
    drawn = [index for step in forwards for index in step]
    assert drawn[:50] != drawn[50:100]  # each epoch has an order of its own


# -- augmentation ------------------------------------------------------------------------------------------------------


def images(count: int) -> Tensor:
    return torch.randint(1, 256, (count, 2, 6, 5), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def shifted(image: Tensor, down: int, right: int, mirror: bool) -> Tensor:
    """What stands at (y, x) is what stood at (y + down, x + right) of the mirrored image, black outside."""
    source = image.flip(2) if mirror else image
    result = torch.zeros_like(image)
    _, height, width = image.shape
    for y in range(height):
        for x in range(width):
            if 0 <= y + down < height and 0 <= x + right < width:
                result[:, y, x] = source[:, y + down, x + right]
    return result


def test_no_augmentation_changes_nothing() -> None:
    assert torch.equal(augmented(images(5), "none", 0), images(5))


def test_flip_mirrors_about_half_of_the_images() -> None:
    before = images(400)
    after = augmented(before, "flip", 7)
    mirrored = [torch.equal(b, a.flip(2)) for a, b in zip(before, after, strict=True)]
    assert all(m or torch.equal(a, b) for m, a, b in zip(mirrored, before, after, strict=True))
    assert 140 < sum(mirrored) < 260  # six standard deviations
    assert torch.equal(augmented(before, "flip", 7), after)
    assert not torch.equal(augmented(before, "flip", 8), after)


def test_crop_flip_shifts_by_up_to_the_margin_over_black_and_mirrors() -> None:
    margin = 2
    before = images(120)
    after = augmented(before, "crop-flip", 7, margin)
    assert after.dtype == torch.uint8
    seen: Counter[tuple[int, int, bool]] = Counter()
    places = [(d, r, m) for d in range(-margin, margin + 1) for r in range(-margin, margin + 1) for m in (False, True)]
    for a, b in zip(before, after, strict=True):
        fitting = [place for place in places if torch.equal(shifted(a, *place), b)]
        assert len(fitting) == 1
        seen[fitting[0]] += 1
    assert {d for d, _, _ in seen} == {r for _, r, _ in seen} == set(range(-margin, margin + 1))
    assert 30 < sum(n for (_, _, mirror), n in seen.items() if mirror) < 90
    assert torch.equal(augmented(before, "crop-flip", 7, margin), after)
    assert not torch.equal(augmented(before, "crop-flip", 8, margin), after)


# -- images in memory --------------------------------------------------------------------------------------------------


def test_normalise_is_by_channel() -> None:
    preprocessing = Preprocessing((0.5, 0.25), (0.1, 0.2), (2, 6, 5))
    normalised = preprocessing.normalise(images(3))
    for channel, (mean, std) in enumerate([(0.5, 0.1), (0.25, 0.2)]):
        np.testing.assert_allclose(normalised[:, channel], (images(3)[:, channel].numpy() / 255 - mean) / std, rtol=1e-5, atol=1e-6)


def numbered(count: int, first: int = 0) -> tuple[Tensor, Tensor]:
    """Images that are filled with their number, which is also their label."""
    numbers = torch.arange(first, first + count)
    return numbers.to(torch.uint8)[:, None, None, None].expand(count, 3, 8, 8).contiguous(), numbers


def of(batch: Tensor) -> list[int]:
    return (batch[:, 0, 0, 0] * 255).round().int().tolist()


def test_training_never_sees_heldout_or_test_images() -> None:
    data = ImageData(numbered(100), numbered(20, 200), PLAIN, classes=256, heldout=0.3, seed=4)
    assert data.splits == {"train", "heldout", "test"}
    draw = data.inputs(16, 1, CPU)
    trained = {number for step in range(30) for number in of(draw(step))}
    held = [(of(x), y.tolist()) for x, y in data.batches("heldout", 16, CPU)]
    assert len(trained) == 70
    assert trained.isdisjoint(number for numbers, _ in held for number in numbers)
    assert sum(len(numbers) for numbers, _ in held) == 30
    assert all(numbers == labels for numbers, labels in held)
    tested = [(of(x), y.tolist()) for x, y in data.batches("test", 7, CPU)]
    assert [number for numbers, _ in tested for number in numbers] == list(range(200, 220))
    assert all(numbers == labels for numbers, labels in tested)
    assert sorted(data.labelled()[1].tolist()) == sorted(trained)


def test_inputs_are_a_function_of_seed_and_step() -> None:
    torch.manual_seed(0)
    train = torch.randint(256, (50, 3, 8, 8), dtype=torch.uint8), None
    data = ImageData(train, None, PLAIN, classes=None, heldout=0.0, seed=0, augment="crop-flip")
    first, second, other = data.inputs(8, 1, CPU), data.inputs(8, 1, CPU), data.inputs(8, 2, CPU)
    assert all(torch.equal(first(step), second(step)) for step in (3, 0, 9))
    assert not torch.equal(first(0), other(0))
    assert not torch.equal(first(0), first(1))


def test_a_missing_folder_is_named_when_its_images_are_needed() -> None:
    data = ImageData(None, numbered(3), PLAIN, classes=3, heldout=0.1, seed=0, missing="data folder D has no train/ folder")
    assert data.splits == {"test"}
    for use in (lambda: data.inputs(2, 0, CPU), data.labelled, lambda: list(data.batches("heldout", 2, CPU))):
        with pytest.raises(DataError, match="data folder D has no train/ folder"):
            use()


# -- image folders -----------------------------------------------------------------------------------------------------


def write(path: Path, size: tuple[int, int] = (8, 8), seed: int = 0, mode: str = "RGB") -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def read(folder: Path, preprocessing: Preprocessing = PLAIN) -> Tensor:
    """The images of a folder with one folder per class."""
    return decoded(list_images(folder)[0], preprocessing)


def test_a_folder_is_read_by_class_and_name(tmp_path: Path) -> None:
    pixels = {name: write(tmp_path / name, seed=i) for i, name in enumerate(["zebra/b.png", "zebra/a.bmp", "ant/c.PNG", "ant/a.ppm"])}
    (tmp_path / "ant" / "notes.txt").write_text("no image")
    _, labels, classes = list_images(tmp_path)
    assert classes == ["ant", "zebra"]
    assert labels == [0, 0, 1, 1]
    for image, name in zip(read(tmp_path), ["ant/a.ppm", "ant/c.PNG", "zebra/a.bmp", "zebra/b.png"], strict=True):
        assert np.array_equal(image.permute(1, 2, 0), pixels[name])


def test_decoded_images_are_cached_until_a_file_changes(tmp_path: Path, cache_folder: Path) -> None:
    file = tmp_path / "a" / "1.png"
    before = write(file, seed=1)
    assert np.array_equal(read(tmp_path)[0].permute(1, 2, 0), before)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nern.toolkit.image_folders.decode", None)  # what is cached is not decoded again
        assert np.array_equal(read(tmp_path)[0].permute(1, 2, 0), before)
    times = file.stat()
    after = write(file, seed=2)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert np.array_equal(read(tmp_path)[0].permute(1, 2, 0), after)


def test_two_folders_that_agree_in_names_sizes_and_times_are_told_apart(tmp_path: Path) -> None:
    pixels = [write(tmp_path / root / "a" / "1.bmp", seed=seed) for seed, root in enumerate("AB")]
    for root in "AB":
        os.utime(tmp_path / root / "a" / "1.bmp", (315532800, 315532800))  # as an archive that is made reproducibly sets it
    for root, expected in zip("AB", pixels, strict=True):
        assert np.array_equal(read(tmp_path / root)[0].permute(1, 2, 0), expected)


def test_grey_and_coloured_images_become_what_the_network_takes(tmp_path: Path) -> None:
    grey = write(tmp_path / "a" / "grey.png", mode="L")
    pictures = read(tmp_path)
    assert all(np.array_equal(channel, grey) for channel in pictures[0])
    colour = write(tmp_path / "b" / "colour.png")
    pictures = read(tmp_path, Preprocessing((0.5,), (0.5,), (1, 8, 8)))
    assert np.array_equal(pictures[0, 0], grey)
    luma = colour @ np.array([0.299, 0.587, 0.114])
    assert np.abs(pictures[1, 0].numpy() - luma).max() <= 1


def test_mistakes_in_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"image folder {tmp_path}/none does not exist"):
        list_images(tmp_path / "none")
    with pytest.raises(DataError, match=f"{tmp_path} has no class folders; images belong into {tmp_path}/<class>/<name>.png"):
        list_images(tmp_path)
    write(tmp_path / "a" / "1.png")
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match=f"class folder {tmp_path}/b holds no images"):
        list_images(tmp_path)
    write(tmp_path / "b" / "1.png", size=(9, 7))
    with pytest.raises(DataError, match=r"b/1\.png has 9 × 7 pixels, the network takes 8 × 8"):
        read(tmp_path)
    whole = (tmp_path / "a" / "1.png").read_bytes()
    (tmp_path / "b" / "1.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"b/1\.png is not a complete image"):
        read(tmp_path)
    (tmp_path / "b" / "1.png").write_text("hello")
    with pytest.raises(DataError, match=r"b/1\.png is not a complete image"):
        read(tmp_path)


# -- photographs -------------------------------------------------------------------------------------------------------

PHOTOGRAPHS = Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (3, 20, 20), resize=24, interpolation="bicubic")


def photographs(folder: Path, augment: str = "none", heldout: float = 0.0) -> FileData:
    files = [folder / f"{index}.png" for index in range(6)]
    for index, file in enumerate(files):
        write(file, size=(50, 40) if index % 2 else (30, 44), seed=index)
    return FileData(
        (files, list(range(6))), (files[:3], [0, 1, 2]), PHOTOGRAPHS, classes=6, heldout=heldout, seed=0,
        augment=augment, missing="nothing there",
    )  # fmt: skip


def centre(file: Path) -> np.ndarray:
    """Resized to 24 pixels on the short side, and the middle 20 × 20 of that, with PIL alone."""
    image = Image.open(file)
    scale = 24 / min(image.size)
    size = (int(image.width * scale), int(image.height * scale))
    image = image.resize(size, Image.Resampling.BICUBIC)
    left, top = round((size[0] - 20) / 2), round((size[1] - 20) / 2)
    return np.asarray(image.crop((left, top, left + 20, top + 20))).transpose(2, 0, 1)


def test_photographs_are_tested_resized_and_cropped_to_the_centre(tmp_path: Path) -> None:
    data = photographs(tmp_path)
    batches = list(data.batches("test", 2, CPU))
    assert [labels.tolist() for _, labels in batches] == [[0, 1], [2]]
    for index, image in enumerate(torch.cat([x for x, _ in batches])):
        np.testing.assert_allclose(image * 255, centre(tmp_path / f"{index}.png"), atol=1e-3)


def test_flipped_photographs_are_centre_crops_or_their_mirror_images(tmp_path: Path) -> None:
    draw = photographs(tmp_path, "flip").inputs(6, 0, CPU)
    centres = [centre(tmp_path / f"{index}.png") for index in range(6)]
    mirrored = 0
    for step in range(4):
        for image in (draw(step) * 255).round().numpy():
            same = [np.abs(image - c).max() < 0.5 for c in centres]
            mirror = [np.abs(image - c[:, :, ::-1]).max() < 0.5 for c in centres]
            assert sum(same) + sum(mirror) == 1
            mirrored += sum(mirror)
    assert 0 < mirrored < 24


def test_cropped_photographs_follow_seed_and_step(tmp_path: Path) -> None:
    data = photographs(tmp_path, "crop-flip")
    first, second, other = data.inputs(4, 0, CPU), data.inputs(4, 0, CPU), data.inputs(4, 1, CPU)
    forwards = [first(step) for step in range(4)]
    assert all(x.shape == (4, 3, 20, 20) for x in forwards)
    for step in (2, 0, 3):
        assert torch.equal(second(step), forwards[step])
    assert not torch.equal(other(0), forwards[0])


def test_photographs_keep_heldout_ones_out_of_training(tmp_path: Path) -> None:
    data = photographs(tmp_path, heldout=1 / 3)
    assert data.splits == {"train", "heldout", "test"}
    held = [int(label) for _, labels in data.batches("heldout", 1, CPU) for label in labels]
    assert len(held) == 2
    draw = data.inputs(4, 0, CPU)
    trained = {image.numpy().tobytes() for step in range(3) for image in draw(step)}
    assert len(trained) == 4
    assert all(x[0].numpy().tobytes() not in trained for x, _ in data.batches("heldout", 1, CPU))


def test_a_broken_photograph_is_named(tmp_path: Path) -> None:
    data = photographs(tmp_path)
    whole = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"1\.png is not a complete image"):
        list(data.batches("test", 3, CPU))
    with pytest.raises(DataError, match=r"1\.png is not a complete image"):
        data.inputs(6, 0, CPU)(0)
