"""What the command line does with a finished run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.cli.mistakes import QUICK, Capture, mistake
from tests.helpers import command_line, network, weights_file, write_experiment


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an experiment and its finished run."""
    folder = tmp_path_factory.mktemp("finished")
    assert command_line("train", write_experiment(folder), *QUICK) == 0
    return folder


def test_runs_that_are_there_already_or_not_at_all(capsys: Capture, finished: Path) -> None:
    path, run = finished / "experiment.yaml", finished / "run"
    before = {entry.name: entry.read_bytes() for entry in run.iterdir()}
    assert "already holds a run; continue with --resume" in mistake(capsys, "train", path, *QUICK)
    assert "was started with another seed" in mistake(capsys, "train", path, *QUICK, "seed=1", "--resume")
    assert "holds no run" in mistake(capsys, "train", path, *QUICK, "--resume", f"output={finished / 'nowhere'}")
    assert "phases.1.iterations is 1, but 2 steps are done already" in mistake(capsys, "train", run, "--resume", "phases.1.iterations=1")
    assert "cannot change their length on resume" in mistake(capsys, "train", run, "--resume", "phases.0.iterations=3")
    assert {name: (run / name).read_bytes() for name in before if name != "config.yaml"} == {
        name: content for name, content in before.items() if name != "config.yaml"
    }


def test_evaluate_prints_both_networks(capsys: Capture, finished: Path) -> None:
    assert command_line("evaluate", finished / "run") == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in out] == ["original", "reconstructed"]
    assert all("(397 examples)" in line for line in out)
    result = json.loads((finished / "run" / "result.json").read_text())
    assert f"{result['reconstructed_top1']:.2f} %" in out[1]


def test_evaluate_a_file_with_and_without_the_original(capsys: Capture, finished: Path, tmp_path: Path) -> None:
    file = shutil.copy(finished / "run" / "model.nern", tmp_path / "m.nern")
    assert command_line("evaluate", file, "--json") == 0
    alone = json.loads(capsys.readouterr().out)
    assert alone["original_top1"] is None
    assert command_line("evaluate", file, "--json", f"architecture.weights={finished / 'original.safetensors'}") == 0
    beside = json.loads(capsys.readouterr().out)
    assert beside["reconstructed_top1"] == alone["reconstructed_top1"]
    assert beside["original_top1"] == json.loads((finished / "run" / "result.json").read_text())["original_top1"]

    other = weights_file(tmp_path / "other.safetensors", seed=1)
    assert "not the weights that the representation was made from" in mistake(capsys, "evaluate", file, f"architecture.weights={other}")
    for override in ("predictor.hidden=3", "architecture=x", "architecture.depth=14"):
        assert "is measured with task.*, architecture.weights and device only" in mistake(capsys, "evaluate", file, override)
    assert mistake(capsys, "evaluate", file, "architecture.weights=5") == "architecture.weights: must be text, got an int (5)"
    assert "there is no representation file and no run folder" in mistake(capsys, "evaluate", tmp_path / "nowhere.nern")
    assert "holds no run" in mistake(capsys, "evaluate", tmp_path)


def test_reconstruct_in_every_format(capsys: Capture, finished: Path, tmp_path: Path) -> None:
    file = finished / "run" / "model.nern"
    states = []
    for name in ("w.safetensors", "w.pt", "w.pth"):
        assert command_line("reconstruct", file, "-o", tmp_path / name) == 0
        assert capsys.readouterr().out == ""
        states.append(load_file(str(tmp_path / name)) if name == "w.safetensors" else torch.load(tmp_path / name, weights_only=True))
    original = network().state_dict()
    for state in states:
        assert state.keys() == original.keys()
        network().load_state_dict(state)
        assert all(torch.equal(state[name], states[0][name]) for name in state)


def test_reconstruct_refuses_what_it_cannot_write_or_read(capsys: Capture, finished: Path, tmp_path: Path) -> None:
    file = finished / "run" / "model.nern"
    assert "the file must end in .safetensors, .pt or .pth" in mistake(capsys, "reconstruct", file, "-o", tmp_path / "w.bin")
    line = mistake(capsys, "reconstruct", file, "-o", tmp_path / "nowhere" / "w.pt")
    assert line == f"cannot write {tmp_path / 'nowhere' / 'w.pt'} (No such file or directory); free space or name another file"
    damaged = bytearray(file.read_bytes())
    damaged[-5] ^= 4
    (tmp_path / "d.nern").write_bytes(damaged)
    assert "d.nern is damaged" in mistake(capsys, "reconstruct", tmp_path / "d.nern", "-o", tmp_path / "w.pt")
    assert not (tmp_path / "w.pt").exists()
