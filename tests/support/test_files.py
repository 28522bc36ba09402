"""Files are the old one or the new one, whatever happens in between."""

from __future__ import annotations

import errno
import os
import resource
import stat
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from nern.support.files import remove_leftovers, write_atomically, write_object, write_tensors, write_text


def test_content_and_rights_are_those_of_an_ordinary_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "ordered ⌈log₂ n⌉\n")
    assert (tmp_path / "a").read_bytes() == "ordered ⌈log₂ n⌉\n".encode()
    (tmp_path / "b").touch()
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "b").stat().st_mode)


def test_tensors_keep_names_types_and_metadata(tmp_path: Path) -> None:
    tensors = {"half": torch.arange(6).reshape(2, 3).half().T, "flags": torch.tensor([True, False])}
    write_tensors(tmp_path / "t", tensors, {"note": "1"})
    with safe_open(str(tmp_path / "t"), "pt") as file:
        assert file.metadata() == {"note": "1"}
        for name, value in tensors.items():
            assert torch.equal(file.get_tensor(name), value)
            assert file.get_tensor(name).dtype == value.dtype


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")

    def half(file: object) -> None:
        file.write(b"ne")  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "a", half)
    assert (tmp_path / "a").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("write", [write_object, write_tensors], ids=["object", "tensors"])
def test_a_full_disk_is_an_os_error_and_leaves_the_old_file(tmp_path: Path, write: object) -> None:
    write(tmp_path / "a", {"x": torch.zeros(3)})  # type: ignore[operator]
    before = (tmp_path / "a").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError) as caught:
            write(tmp_path / "a", {"x": torch.zeros(100_000)})  # type: ignore[operator]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG
    assert (tmp_path / "a").read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_data_reaches_the_disk_before_the_name_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    flush, replace = os.fsync, os.replace

    def watched_flush(descriptor: int) -> None:
        order.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        flush(descriptor)

    def watched_replace(source: str, target: Path) -> None:
        order.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_flush)
    monkeypatch.setattr(os, "replace", watched_replace)
    write_text(tmp_path / "a", "new")
    assert order == ["file", "rename", "folder"]


def test_sweep_removes_only_what_an_interrupted_write_left(tmp_path: Path) -> None:
    for name in (".checkpoint.pt.x1.tmp", "checkpoint.pt", "notes.tmp", ".hidden"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".hidden", "checkpoint.pt", "notes.tmp"]
