"""Files that are no weights, or that would do harm: each is called what it is, in one line."""

from __future__ import annotations

import os
import pickle
import re
import resource
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from nern.errors import DataError
from nern.networks.state_dicts import load_weights, read_state_dict
from nern.networks.weights_files import read_weights_file
from tests.conftest import SHARED
from tests.networks.two_blocks import seeded


def said_of(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_weights(seeded(), path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message and "\x1b" not in message
    assert "weights_only" not in message and "weights-only" not in message.lower()
    return message


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "is a Git LFS pointer.*git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "is a web page"),
        (b"\x89HDF\r\n\x1a\n", "is an HDF5 file"),
        (b"\x1f\x8b\x08\x00", "is compressed with gzip"),
        (b"", "is empty"),
        (b"\x00" * 257 + b"ustar", "is a tar archive"),
    ],
)
def test_other_kinds_of_file_are_called_what_they_are(start: bytes, message: str, tmp_path: Path) -> None:
    for name in ("w.pth", "w.safetensors"):
        (tmp_path / name).write_bytes(start)
        assert re.search(message, said_of(tmp_path / name))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"error": "Repository not found"}', 'it is text that begins with \'{"error": "Repository not found"}\''),
        (b"\xef\xbb\xbf<Error>AccessDenied</Error>\n<x>", "it is text that begins with '<Error>AccessDenied</Error>'"),
        (b"\x08\x07\x12\x07pytorch\x1a\x032.0:\x80", "it begins with the bytes 08 07 12 07, as no file of torch or safetensors does"),
        (bytes(4000), "it begins with the bytes 00 00 00 00"),
        (pickle.dumps({"a": np.zeros(3)}), "it is a pickle that torch.save did not write"),
        (
            b'{"metadata": {}, "weight_map": {"a": "model-00001-of-00002.safetensors"}}',
            "is the list of the files with a state dict in several",
        ),
    ],
)
def test_what_a_file_looks_like_is_said(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    assert message in said_of(tmp_path / "w.pth")


def test_a_pickle_of_another_protocol_and_a_part_of_a_state_dict(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    torch.save(seeded().state_dict(), tmp_path / "w.pth", pickle_protocol=4)
    assert "its pickle is of another protocol than torch.save's own" in said_of(tmp_path / "w.pth")
    assert not recwarn.list
    for name, whole in (("model-00002-of-00003.safetensors", False), ("model-00001-of-00001.safetensors", True)):
        save_file(seeded().state_dict(), tmp_path / name)
        if whole:
            load_weights(seeded(1), tmp_path / name)
        else:
            assert "is part 2 of 3 of a state dict in several files; save it in one file" in said_of(tmp_path / name)


def test_programs_are_called_what_they_are(tmp_path: Path) -> None:
    torch.save(seeded(), tmp_path / "whole.pth")
    assert re.search(r"holds a Python object.*\.Net\).*torch\.save\(model\.state_dict\(\)", said_of(tmp_path / "whole.pth"))
    torch.jit.save(torch.jit.trace(seeded().eval(), torch.zeros(1, 3, 8, 8)), tmp_path / "script.pt")
    assert "is TorchScript" in said_of(tmp_path / "script.pt") and "torch.jit.load" in said_of(tmp_path / "script.pt")
    np.savez(tmp_path / "w.npz", a=np.zeros(3))
    assert "is a NumPy archive" in said_of(tmp_path / "w.npz")
    os.mkfifo(tmp_path / "pipe.pth")
    assert "is no ordinary file, but a pipe" in said_of(tmp_path / "pipe.pth")
    assert "is a folder" in said_of(tmp_path)
    with pytest.raises(DataError, match=r"has a name that no file can have|does not exist"):
        load_weights(seeded(), "a\0b.pth")


@pytest.mark.skipif(os.geteuid() == 0, reason="everything can be read by root")
def test_an_unreadable_file(tmp_path: Path) -> None:
    torch.save(seeded().state_dict(), tmp_path / "w.pth")
    (tmp_path / "w.pth").chmod(0)
    assert "cannot be read (Permission denied)" in said_of(tmp_path / "w.pth")


def test_the_content_decides_and_not_the_ending(tmp_path: Path) -> None:
    state = seeded().state_dict()
    save_file(state, tmp_path / "w.safetensors")
    (tmp_path / "MODEL.SAFETENSORS").write_bytes((tmp_path / "w.safetensors").read_bytes())
    (tmp_path / "w.bin").write_bytes((tmp_path / "w.safetensors").read_bytes())
    torch.save(state, tmp_path / "torch.safetensors")
    for name in ("MODEL.SAFETENSORS", "w.bin", "torch.safetensors"):
        assert torch.equal(read_state_dict(tmp_path / name)["linear.bias"], state["linear.bias"])


def test_a_zip_bomb_is_refused_by_its_declared_sizes(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/data.pkl", b"\x80\x02}q\x00.")
        archive.writestr("w/data/0", bytes(64 << 20))
    assert "declares 67,108," in said_of(tmp_path / "w.pth")


def test_a_tensor_that_repeats_one_value_is_not_unfolded(tmp_path: Path) -> None:
    state = seeded().state_dict()
    torch.save({**state, "linear.weight": torch.zeros(1).expand(1 << 40)}, tmp_path / "w.pth")
    assert "linear.weight is [1099511627776] in the file" in said_of(tmp_path / "w.pth")


@pytest.mark.skipif(not (SHARED / "cases").is_dir(), reason="needs ../shared/cases")
def test_the_hostile_file_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said_of(SHARED / "cases" / "hostile" / "evil.pth")
    assert not list(tmp_path.iterdir())


def test_a_file_in_torchs_old_form_takes_no_more_memory_than_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save({f"w{index}": torch.full((77777,), float(index)) for index in range(3)}, path, _use_new_zipfile_serialization=False)
    honest, number = path.read_bytes(), struct.pack("<i", 77777)
    assert torch.equal(read_weights_file(path)["w2"], torch.full((77777,), 2.0))
    declared = honest.replace(b"J" + number, b"J" + struct.pack("<i", 2_000_000_000))  # 8 GB in the pickle …
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for content in (declared, declared.replace(struct.pack("<q", 77777), struct.pack("<q", 2_000_000_000))):  # … and beside the values
        assert content != honest
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"old\.pth is truncated or not a torch state dict \([^%]*\); get it again") as caught:
            read_weights_file(path)
        assert len(str(caught.value).splitlines()) == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 18  # KB
