"""The cache gives back what was stored, or nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from nern.support import cache

TENSORS = {"images": torch.arange(40, dtype=torch.uint8).reshape(2, 20), "scale": torch.tensor([0.5])}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NERN_CACHE", str(tmp_path))
    return tmp_path


def test_what_was_stored_comes_back() -> None:
    cache.store("a", TENSORS)
    loaded = cache.load("a")
    assert loaded is not None
    assert loaded.keys() == TENSORS.keys()
    assert all(torch.equal(loaded[name], value) and loaded[name].dtype == value.dtype for name, value in TENSORS.items())
    assert cache.load("b") is None


def test_no_flipped_bit_and_no_cut_is_taken_for_content(folder: Path) -> None:
    cache.store("a", TENSORS)
    file = next(folder.iterdir())
    whole = file.read_bytes()
    for place in np.random.default_rng(0).choice(8 * len(whole), 200, replace=False):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << (place % 8)
        file.write_bytes(damaged)
        assert cache.load("a") is None
    for length in (0, 5, 31, 32, 40, len(whole) - 1):
        file.write_bytes(whole[:length])
        assert cache.load("a") is None
    file.write_bytes(whole + b"\0")
    assert cache.load("a") is None


def test_an_entry_under_another_name_counts_as_none(folder: Path) -> None:
    cache.store("a", TENSORS)
    file = next(folder.iterdir())
    file.rename(file.with_name(file.name.replace("a", "b", 1)))
    assert cache.load("b") is None


def test_an_empty_variable_neither_reads_nor_writes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(folder))
    monkeypatch.delenv("NERN_CACHE")
    cache.store("a", TENSORS)
    assert cache.load("a") is not None
    monkeypatch.setenv("NERN_CACHE", "")
    assert cache.load("a") is None
    cache.store("b", TENSORS)
    assert len(list(folder.iterdir())) == 1
