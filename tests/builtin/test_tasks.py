"""Tasks: what they find, what they hold out, and what they say where something is missing."""

from __future__ import annotations

import os
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from nern.builtin.tasks.cifar import Cifar10, Cifar100
from nern.builtin.tasks.digits import Digits
from nern.builtin.tasks.folders import ImageFolder
from nern.builtin.tasks.noise import ColouredNoise, NormalNoise, UniformNoise, smooth
from nern.builtin.tasks.photographs import Photographs, labelled, unlabelled
from nern.errors import DataError
from nern.interfaces import Data, Preprocessing, Task
from nern.toolkit.images import FileData

CPU = torch.device("cpu")
CIFAR = Preprocessing()
DIGITS = Preprocessing((0.0,), (1.0,), (1, 8, 8))


def images(data: Data, split: str) -> Tensor:
    return torch.cat([x for x, _ in data.batches(split, 64, CPU)])


def labels(data: Data, split: str) -> list[int]:
    return [int(label) for _, batch in data.batches(split, 64, CPU) for label in batch]


# -- noise -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_uniform_noise_fills_its_interval(scale: float) -> None:
    draw = UniformNoise(scale=scale).open(CIFAR, 0.1, 0).inputs(16, 0, CPU)
    x = torch.cat([draw(step) for step in range(4)])
    assert x.shape == (64, 3, 32, 32)
    assert float(x.min()) >= -scale
    assert float(x.max()) <= scale
    assert float(x.abs().max()) > 0.999 * scale
    assert float(x.mean()) == pytest.approx(0, abs=0.01 * scale)
    assert float(x.std()) == pytest.approx(scale / 3**0.5, rel=0.01)


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_normal_noise_has_its_moments(scale: float) -> None:
    draw = NormalNoise(scale=scale).open(CIFAR, 0.1, 0).inputs(64, 0, CPU)
    x = draw(0) / scale
    assert float(x.mean()) == pytest.approx(0, abs=0.01)
    assert float(x.std()) == pytest.approx(1, rel=0.01)
    assert float((x**4).mean()) == pytest.approx(3, rel=0.05)
    assert float(x.abs().max()) > 3.5


def slopes(images: Tensor) -> np.ndarray:
    """The slope of log strength over log frequency along both axes, by least squares, for images of one kind [b, c, 64, 64]."""
    strength = np.abs(np.fft.fft2(images.double().numpy())).mean((0, 1))
    waves = np.arange(1, 32)
    return np.array([np.polyfit(np.log(waves), np.log(along), 1)[0] for along in (strength[0, 1:32], strength[1:32, 0])])


@pytest.mark.parametrize("falloff", [0.0, 1.0, 2.0])
def test_waves_are_weakened_by_the_power_that_is_asked_for(falloff: float) -> None:
    white = torch.randn(256, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert slopes(smooth(white, torch.full((256,), falloff))) == pytest.approx(-falloff, abs=0.05)


def test_coloured_noise_has_every_falloff_up_to_the_one_asked_for() -> None:
    x = ColouredNoise(scale=2.0).open(Preprocessing(size=(3, 64, 64)), 0.1, 0).inputs(256, 0, CPU)(0)
    assert x.flatten(1).std(1).numpy() == pytest.approx(np.full(256, 2.0), rel=0.01)
    falloffs = np.array([slopes(image[None]).mean() for image in x])
    assert falloffs.mean() == pytest.approx(-1, abs=0.1)
    assert np.percentile(falloffs, 5) < -1.7
    assert np.percentile(falloffs, 95) > -0.3
    plain = ColouredNoise(falloff=0.0, shared=0.5).open(CIFAR, 0.1, 0).inputs(256, 0, CPU)(0).numpy()
    assert np.corrcoef(plain[:, 0].ravel(), plain[:, 2].ravel())[0, 1] == pytest.approx(0.5, abs=0.01)


def test_coloured_noise_of_vectors_and_of_single_rows() -> None:
    vectors = ColouredNoise().open(attrs.evolve(CIFAR, size=(4096,)), 0.1, 0).inputs(64, 0, CPU)(0)
    assert vectors.shape == (64, 4096)
    assert float(vectors.std()) == pytest.approx(1, rel=0.01)
    rows = ColouredNoise().open(attrs.evolve(CIFAR, size=(1, 1, 7)), 0.1, 0).inputs(4, 0, CPU)(0)
    assert rows.shape == (4, 1, 1, 7)
    assert bool(rows.isfinite().all())


@pytest.mark.parametrize("task", [UniformNoise(), NormalNoise(), ColouredNoise()], ids=lambda task: type(task).__name__)
def test_noise_follows_seed_and_step_and_has_no_test_set(task: Task) -> None:
    data = task.open(CIFAR, 0.1, 3)
    first, second, other = data.inputs(4, 0, CPU), data.inputs(4, 0, CPU), data.inputs(4, 1, CPU)
    assert all(torch.equal(first(step), second(step)) for step in (5, 0, 2))
    assert len({x.numpy().tobytes() for x in (first(0), first(1), other(0))}) == 3
    assert data.classes is None
    assert data.splits == {"train", "heldout"}
    held = images(data, "heldout")
    assert len(held) == 1024
    assert torch.equal(images(data, "heldout"), held)
    assert not torch.equal(images(task.open(CIFAR, 0.1, 4), "heldout"), held)
    assert all(targets is None for _, targets in data.batches("heldout", 64, CPU))
    with pytest.raises(DataError, match="noise has no test set; measure with another task"):
        list(data.batches("test", 64, CPU))
    fewer = attrs.evolve(task, heldout_images=100).open(CIFAR, 0.1, 3)
    assert torch.equal(images(fewer, "heldout")[:64], held[:64])
    assert len(images(fewer, "heldout")) == 100


# -- digits ------------------------------------------------------------------------------------------------------------


def test_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    data = Digits().open(DIGITS, 0.1, 0)
    assert data.classes == 10
    train, held, test = data.labelled()[0], images(data, "heldout"), images(data, "test")
    assert (len(train), len(held), len(test)) == (1260, 140, 397)
    pictures = torch.cat([train / 255, held, test])
    assert pictures.shape == (1797, 1, 8, 8)
    # the same images and labels, in another order, to the nearest of 256 greys
    ours = sorted(
        (np.rint(image.numpy().flatten() * 16).tolist(), label)
        for image, label in zip(pictures, [*data.labelled()[1].tolist(), *labels(data, "heldout"), *labels(data, "test")], strict=True)
    )
    theirs = load_digits()
    assert ours == sorted((image.flatten().tolist(), int(label)) for image, label in zip(theirs.images, theirs.target, strict=True))


def test_the_seed_changes_what_is_held_out_and_not_the_test_set() -> None:
    first, again, other = (Digits().open(DIGITS, 0.1, seed) for seed in (0, 0, 1))
    assert torch.equal(images(first, "heldout"), images(again, "heldout"))
    assert not torch.equal(images(first, "heldout"), images(other, "heldout"))
    assert torch.equal(images(first, "test"), images(other, "test"))


def test_digits_need_a_network_for_digits() -> None:
    with pytest.raises(
        DataError, match=r"digits have 1 channel and 8 × 8 pixels, the network takes \(3, 32, 32\): set architecture.channels=1"
    ):
        Digits().open(CIFAR, 0.1, 0)


# -- folders -----------------------------------------------------------------------------------------------------------


def make(root: Path, splits: dict[str, int], each: int = 4, size: tuple[int, int] = (32, 32)) -> Path:
    """`splits` says how many classes each folder has; every image is of one colour that is its own."""
    for place, (split, classes) in enumerate(splits.items()):
        for label in range(classes):
            for index in range(each):
                path = root / split / f"class{label:03}" / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", size, (label, index, place)).save(path)
    return root


def colours(x: Tensor) -> list[tuple[int, ...]]:
    """(label, index, split) of normalised images."""
    mean, std = torch.tensor(CIFAR.mean), torch.tensor(CIFAR.std)
    return [tuple(row) for row in ((x.mean((2, 3)) * std + mean) * 255).round().int().tolist()]


@pytest.mark.parametrize("test", ["test", "val"])
def test_folders_give_train_heldout_and_test(test: str, tmp_path: Path) -> None:
    data = ImageFolder(root=str(make(tmp_path, {"train": 3, test: 3})), augment="none").open(CIFAR, 0.25, 0)
    assert data.classes == 3
    assert data.splits == {"train", "heldout", "test"}
    held, tested = colours(images(data, "heldout")), colours(images(data, "test"))
    draw = data.inputs(9, 0, CPU)
    trained = set(colours(draw(0)))
    assert len(held) == 3
    assert sorted([*trained, *held]) == [(label, index, 0) for label in range(3) for index in range(4)]
    assert tested == [(label, index, 1) for label in range(3) for index in range(4)]
    assert labels(data, "test") == [label for label, _, _ in tested]
    assert labels(data, "heldout") == [label for label, _, _ in held]


@pytest.mark.parametrize("there", ["train", "test"])
def test_a_folder_with_one_split_is_enough_until_the_other_split_is_needed(there: str, tmp_path: Path) -> None:
    data = ImageFolder(root=str(make(tmp_path, {there: 2}))).open(CIFAR, 0.0, 0)
    assert data.splits == {there}
    missing = "test" if there == "train" else "train"
    with pytest.raises(DataError, match=f"data folder {tmp_path} has no {missing}/ folder"):
        data.inputs(2, 0, CPU) if missing == "train" else list(data.batches("test", 2, CPU))


def test_photographs_are_opened_from_their_files(tmp_path: Path) -> None:
    big = Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (3, 24, 24), resize=28)
    data = ImageFolder(root=str(make(tmp_path, {"val": 2}, size=(40, 30)))).open(big, 0.1, 0)
    assert isinstance(data, FileData)
    assert data.splits == {"test"}
    assert images(data, "test").shape == (8, 3, 24, 24)
    assert labels(data, "test") == [0, 0, 0, 0, 1, 1, 1, 1]


def test_photographs_are_found_behind_links_and_without_the_files_of_operating_systems(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = make(tmp_path / "made", {"val": 3})
    folder = tmp_path / "photos"
    folder.mkdir()
    for place in sorted((root / "val").iterdir()):
        (folder / place.name).symlink_to(place, target_is_directory=True)
    files = unlabelled(folder)[0]
    assert len(files) == sum(len(list(place.iterdir())) for place in (root / "val").iterdir())
    assert labelled(folder) == (files, [sorted(os.listdir(root / "val")).index(file.parent.name) for file in files], 3)
    (folder / "__MACOSX").mkdir()
    first = files[0].read_bytes()
    for hidden in ("__MACOSX/a.png", "._b.png"):
        (folder / hidden).write_bytes(first)
    (folder / "notes.txt").write_text("x")
    assert unlabelled(folder)[0] == labelled(folder)[0] == files
    assert "1 file is left out (1 .txt)" in caplog.text


def test_class_folders_of_photographs_follow_the_rule_of_image_folders(tmp_path: Path) -> None:
    place = make(tmp_path, {"train": 3}) / "train"
    for name, number in zip(sorted(os.listdir(place)), (10, 9, 1), strict=True):
        (place / name).rename(place / str(number))
    files, labels, count = labelled(place)
    assert count == 3
    assert {file.parent.name: label for file, label in zip(files, labels, strict=True)} == {"1": 0, "9": 1, "10": 2}
    (place / "11").mkdir()
    with pytest.raises(DataError, match=r"class folder .*11 holds no images"):
        Photographs(root=str(place), classes="folders").open(CIFAR, 0.1, 0)
    (place / "11").rmdir()
    (place / "1.png").write_bytes(files[0].read_bytes())
    with pytest.raises(DataError, match=r"has images beside its folders \(1\.png\), so that folders cannot be the classes"):
        Photographs(root=str(place), classes="folders").open(CIFAR, 0.1, 0)


@pytest.mark.parametrize("task", [ImageFolder, Cifar10])
def test_mistakes_in_roots_are_named(task: type[ImageFolder], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"task\.root is missing: name the folder .*task\.root=DIR"):
        task().open(CIFAR, 0.1, 0)
    with pytest.raises(DataError, match=f"data folder {tmp_path}/none does not exist; images belong into {tmp_path}/none/train/<class>/"):
        task(root=f"{tmp_path}/none").open(CIFAR, 0.1, 0)
    with pytest.raises(DataError, match=f"data folder {tmp_path} holds neither train/ nor test/"):
        task(root=str(tmp_path)).open(CIFAR, 0.1, 0)
    with pytest.raises(DataError, match=f"data folder {tmp_path} has 2 classes in train/ and 3 in test/"):
        task(root=str(make(tmp_path, {"train": 2, "test": 3}))).open(CIFAR, 0.1, 0)


# -- CIFAR -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("task", "classes"), [(Cifar10, 10), (Cifar100, 100)])
def test_cifar_has_its_number_of_classes(task: type[Cifar10], classes: int, tmp_path: Path) -> None:
    right = make(tmp_path / "right", {"train": classes, "test": classes}, each=1)
    assert task(root=str(right)).open(CIFAR, 0.1, 0).classes == classes
    wrong = make(tmp_path / "wrong", {"train": 7, "test": 7}, each=1)
    with pytest.raises(DataError, match=f"data folder {wrong} has 7 classes, CIFAR{classes} has {classes}"):
        task(root=str(wrong)).open(CIFAR, 0.1, 0)


def test_the_published_archive_is_read_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files in the published layout with images of ours, so their checksums are not the published ones."""
    import pickle

    import torchvision.datasets

    folder, draw = tmp_path / "cifar-10-batches-py", np.random.default_rng(0)
    folder.mkdir()
    pixels = {
        name: draw.integers(0, 256, (4, 3, 32, 32), dtype=np.uint8) for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    }
    for name, batch in pixels.items():
        (folder / name).write_bytes(pickle.dumps({"data": batch.reshape(4, -1), "labels": [1, 2, 3, 9]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [str(i) for i in range(10)]}))
    with pytest.raises(DataError, match="cifar-10-batches-py is not a complete CIFAR10"):
        Cifar10(root=str(tmp_path)).open(CIFAR, 0.0, 0)

    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, md5: True)
    data = Cifar10(root=str(tmp_path), augment="none").open(Preprocessing((0.0,) * 3, (1.0,) * 3), 0.0, 0)
    np.testing.assert_allclose(images(data, "test") * 255, pixels["test_batch"], atol=1e-3)
    assert labels(data, "test") == [1, 2, 3, 9]
    train, targets = data.labelled()
    np.testing.assert_array_equal(train, np.concatenate([pixels[f"data_batch_{i}"] for i in range(1, 6)]))
    assert targets.tolist() == [1, 2, 3, 9] * 5


def test_the_real_cifar10(small_cifar10: Path) -> None:
    data = Cifar10(root=str(small_cifar10)).open(CIFAR, 0.1, 0)
    assert data.classes == 10
    assert data.splits == {"train", "heldout", "test"}
    assert labels(data, "test") == [label for label in range(10) for _ in range(20)]
    assert len(labels(data, "heldout")) == 40
    names = sorted(path.name for path in (small_cifar10 / "test").iterdir())
    assert names[0] == "airplane"
    assert names[-1] == "truck"
    first = np.asarray(Image.open(sorted((small_cifar10 / "test" / "airplane").iterdir())[0]).convert("RGB")) / 255
    expected = (first - np.array(CIFAR.mean)) / np.array(CIFAR.std)
    np.testing.assert_allclose(images(data, "test")[0].permute(1, 2, 0), expected, atol=1e-5)
