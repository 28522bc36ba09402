"""The table of networks that go the whole way says what was found, and what was not tried."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from benchmarks import walks
from benchmarks.walkers import PLACES, WALKERS
from benchmarks.walks import FORMATS, Failed, called, exported, measured_again, reported, same_outputs, same_state, text


@pytest.fixture
def place(tmp_path: Path) -> Path:
    save_file({"outputs": torch.tensor([[1.0, -4.0]]), "inputs": torch.zeros(1, 3)}, tmp_path / "expected.safetensors")
    save_file({"a": torch.ones(2), "b": torch.zeros(3, dtype=torch.int64)}, tmp_path / "expected-state.safetensors")
    return tmp_path


def test_state_dicts_are_compared_to_the_last_bit(place: Path) -> None:
    state = {"a": torch.ones(2), "b": torch.zeros(3, dtype=torch.int64)}
    assert same_state(state, place) == "equal"
    assert same_state({**state, "a": torch.tensor([1.0, 1.0000001])}, place) == "1 entries differ"
    assert same_state({**state, "b": torch.zeros(3)}, place) == "1 entries differ"  # another type
    assert same_state({"a": torch.ones(2)}, place) == "other names"


def test_outputs_are_compared_with_the_largest(place: Path) -> None:
    assert same_outputs(torch.tensor([[1.0, -4.0]]), place) == "equal"
    assert same_outputs(torch.tensor([[1.0, -4.04]]), place) == "1e-02"
    assert same_outputs(torch.zeros(2, 2), place) == "shape [2, 2]"


def test_what_a_process_says_last_is_why_it_failed(tmp_path: Path) -> None:
    assert called(["-c", "print(6 * 7)"], tmp_path) == "42\n"
    with pytest.raises(Failed, match="no such thing"):
        called(["-c", "raise SystemExit('no such thing')"], tmp_path)


def test_a_missing_extra_is_no_failure(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacks(words: list[str], place: Path) -> str:
        raise Failed('nern export needs onnx: pip install "nern[export]"')

    monkeypatch.setattr(walks, "called", lacks)
    assert exported(place, "onnx") == "extra not installed"


def test_other_figures_are_shown(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"figure": "miou", "original": 75.781, "reconstruction": 74.684}
    figures = {"original": {"miou": 75.781}, "reconstructed": {"miou": 74.684}}
    monkeypatch.setattr(walks, "called", lambda *_: json.dumps(figures))
    assert measured_again(place, row) == "equal"
    (place / "report.html").write_text("<svg> 75.78 % 74.68 %")
    assert reported(place, row) == "1 pictures"
    figures["reconstructed"]["miou"] = 12.0
    assert "12.0" in measured_again(place, row)
    (place / "report.html").write_text("75.78 %")
    assert reported(place, row) == "lacks 74.684"


def test_the_tables_say_what_was_not_run_and_what_failed() -> None:
    row: dict[str, Any] = {
        "targets": ["asked for 60,000 bytes, reached 59,824"], "represented": 1476, "copied": 14, "before": 5, "after": 4, "figure": "mse",
        "original": 0.25, "reconstruction": 0.5, "measured again": "equal", "report": "4 pictures", "state dict": "equal", "into": "equal",
        **dict.fromkeys(FORMATS, "equal"), "processor seconds": 60,
    }  # fmt: skip
    page = text({"own": row, "vit": {"not run": "needs --cifar"}, "regression": {"failed": "no figure", "processor seconds": 60}})
    assert "| own class in a file, with a file beside it | 1,476 | 14 | 5 | 4 | mean squared error | 0.25 | 0.5 |" in page
    assert "| own class in a file, with a file beside it | asked for 60,000 bytes, reached 59,824 |" in page
    assert f"{WALKERS['vit'].title}: not run, needs --cifar." in page
    assert f"{WALKERS['regression'].title}: **failed**, no figure." in page
    assert "took 2 minutes" in page
    assert all(f"--{need} " in page for walker in WALKERS.values() for need in walker.needs)
    assert PLACES.keys() == {need for walker in WALKERS.values() for need in walker.needs}
