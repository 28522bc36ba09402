"""Which folders are classes, which files are images, and which output of the network each class is."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder as TorchvisionFolder

from nern.builtin.tasks.folders import ImageFolder
from nern.errors import DataError
from nern.interfaces import Preprocessing
from nern.toolkit.class_folders import list_images
from nern.toolkit.image_folders import open_folders

CPU = torch.device("cpu")
PLAIN = Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (3, 8, 8))


def put(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (len(file.name), 0, 0)).save(file)


def layout(root: Path, **classes: str) -> Path:
    """One image for each class: `layout(root, train="abc", val="abc")`."""
    for split, names in classes.items():
        put(*(root / split / name / "0.png" for name in names))
    return root


def opened(root: Path, **options: object) -> tuple[int | None, list[int]]:
    """The number of classes, and the labels of the test images."""
    data = open_folders(str(root), "none", PLAIN, 0.0, 0, **options)
    batches = data.batches("test", 99, CPU) if "test" in data.splits else ()
    return data.classes, [label for _, labels in batches if labels is not None for label in labels.tolist()]


def test_names_that_are_all_numbers_are_ordered_as_numbers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(*(tmp_path / str(number) / "a.png" for number in range(12)))
    files, labels, names = list_images(tmp_path)
    assert names == [str(number) for number in range(12)]
    assert [int(file.parent.name) for file in files] == labels
    assert "not of the alphabet (0, 1, 10 and 9 more)" in caplog.text
    put(tmp_path / "eleven" / "a.png")
    assert list_images(tmp_path)[2][:3] == ["0", "1", "10"]


def test_images_lie_where_torchvision_finds_them(tmp_path: Path) -> None:
    put(
        *(
            tmp_path / place
            for place in ["b/2.png", "b/10.png", "b/deep/er/1.png", "a/images/3.JPG", "a/images/1.png", "a/0.bmp", "a/z/1.png"]
        )
    )
    files, labels, names = list_images(tmp_path)
    expected = TorchvisionFolder(str(tmp_path))
    assert list(zip(map(str, files), labels, strict=True)) == expected.samples
    assert names == expected.classes


def test_hidden_and_system_folders_and_files_are_no_classes_and_no_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    layout(tmp_path, x="ab")
    for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir", "lost+found"):
        put(tmp_path / "x" / name / "0.png", tmp_path / "x" / "a" / name / "0.png")
    (tmp_path / "x" / "a" / "._0.png").write_bytes(b"\0\5\x16\7")
    (tmp_path / "x" / "Thumbs.db").write_bytes(b"")
    files, labels, names = list_images(tmp_path / "x")
    assert ([file.name for file in files], labels, names) == (["0.png", "0.png"], [0, 1], ["a", "b"])
    assert caplog.text == ""


def test_every_format_of_pillow_is_read_and_what_is_left_out_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "x" / "a"
    put(*(folder / f"0{suffix}" for suffix in (".png", ".gif", ".pgm", ".jfif", ".webp", ".tga", ".jp2", ".ico")))
    for name in ("labels.csv", "more.csv", "README", "scan.eps"):
        (folder / name).write_text("none")
    put(tmp_path / "x" / "beside.png")
    with caplog.at_level(logging.WARNING, "nern"):
        assert len(list_images(tmp_path / "x")[0]) == 8
    assert "5 files are left out (" in caplog.text
    assert "2 .csv" in caplog.text


def test_a_link_to_a_folder_above_itself_does_not_go_round(tmp_path: Path) -> None:
    layout(tmp_path, x="a")
    (tmp_path / "x" / "a" / "again").symlink_to(tmp_path / "x" / "a")
    assert len(list_images(tmp_path / "x")[0]) == 1


# -- classes by name ---------------------------------------------------------------------------------------------------

OUTPUTS = ["eel", "cat", "dog", "fox"]


def test_named_outputs_give_folders_their_labels(tmp_path: Path) -> None:
    layout(tmp_path, train=["cat", "dog", "eel"], test=["dog", "eel", "fox"])
    assert opened(tmp_path, classes=OUTPUTS) == (4, [2, 0, 3])
    (tmp_path / "classes.txt").write_text("\n".join(f"{name}  a word" for name in OUTPUTS) + "\n\n")
    assert opened(tmp_path, classes=str(tmp_path / "classes.txt")) == (4, [2, 0, 3])
    assert opened(tmp_path, labels=False) == (None, [])


def test_other_folders_in_train_and_test_are_refused(tmp_path: Path) -> None:
    layout(tmp_path, train=["cat", "dog", "eel"], test=["dog", "eel", "fox"])
    with pytest.raises(DataError, match=r"only train/ has cat; only test/ has fox\. Name the class of each output .*task\.classes"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["cat", "dog", "eal"], r"class folder .*/eel is none of the 3 names of task\.classes, did you mean 'eal'\?"),
        (["cat", "dog", "eel", "cat"], r"task\.classes: cat appears more than once"),
        ([], r"task\.classes: there are no names"),
        ("none.txt", r"task\.classes: cannot read none\.txt"),
    ],
)
def test_wrong_names_are_refused(classes: list[str] | str, message: str, tmp_path: Path) -> None:
    layout(tmp_path, test=["cat", "dog", "eel"])
    with pytest.raises(DataError, match=message):
        ImageFolder(root=str(tmp_path), classes=classes).open(PLAIN, 0.0, 0)


# -- which folders are train and test ----------------------------------------------------------------------------------


@pytest.mark.parametrize("test", ["test", "val", "valid", "validation"])
def test_test_images_are_found_under_any_usual_name(test: str, tmp_path: Path) -> None:
    assert opened(layout(tmp_path, **{"train": "abc", test: "abc"})) == (3, [0, 1, 2])


def test_a_flat_test_folder_gives_way_to_a_complete_val(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(layout(tmp_path, train="abc", val="abc") / "test" / "ILSVRC2012_test_00000001.JPEG")
    assert opened(tmp_path) == (3, [0, 1, 2])
    assert "test/ left out, which holds no class folders" in caplog.text
    with pytest.raises(DataError, match="test has no class folders"):
        opened(tmp_path, test="test")
    with pytest.raises(DataError, match=r"task\.test: there is no folder .*/tset"):
        opened(tmp_path, test="tset")


def test_of_two_test_folders_the_option_chooses(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    layout(tmp_path, test="ab", val="ab")
    put(tmp_path / "val" / "b" / "1.png")
    assert opened(tmp_path) == (2, [0, 1])
    assert "test images are those of test/; val/ is not used" in caplog.text
    assert opened(tmp_path, test="val") == (2, [0, 1, 1])


def test_images_without_classes_lie_anywhere(tmp_path: Path) -> None:
    put(*(tmp_path / place for place in ["train/1.png", "train/x/2.png", "test/3.png"]))
    data = open_folders(str(tmp_path), "none", PLAIN, 0.0, 0, labels=False)
    assert data.classes is None
    images, labels = next(iter(data.batches("test", 9, CPU)))
    assert labels is None
    np.testing.assert_allclose(images[0, 0] * 255, np.full((8, 8), 5), atol=1e-4)
    photographs = open_folders(str(tmp_path), "none", Preprocessing(size=(3, 8, 8), resize=8), 0.5, 0, labels=False)
    assert photographs.splits == {"train", "heldout", "test"}
    assert next(iter(photographs.batches("heldout", 9, CPU)))[1] is None
