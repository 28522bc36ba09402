"""Files that an earlier version wrote still open, and give the network that they gave then."""

from __future__ import annotations

from pathlib import Path

import pytest

import nern

FOLDER = Path(__file__).parent / "earlier"


@pytest.mark.parametrize(("name", "total"), [("int5", 562.492146637087), ("float32", 568.3141634005879)])
def test_an_earlier_file_opens(tmp_path: Path, name: str, total: float) -> None:
    """`total` is the sum of absolute values of the whole state dict, as the version that wrote the file rebuilt it."""
    loaded = nern.load(FOLDER / f"{name}.nern")
    state = loaded.reconstruct().state_dict()
    assert sum(float(value.double().abs().sum()) for value in state.values()) == pytest.approx(total, rel=1e-6)
    loaded.save(tmp_path / "again.nern")
    assert (tmp_path / "again.nern").read_bytes() == (FOLDER / f"{name}.nern").read_bytes()
