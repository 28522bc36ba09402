"""The state a run resumes from."""

from __future__ import annotations

import os
import pickle
import random
from pathlib import Path

import pytest
import torch

from nern.errors import ArtifactError
from nern.run.checkpoint import Checkpoint


def example() -> Checkpoint:
    parameters = {"predictor.first.weight": torch.randn(3, 5), "predictor.first.bias": torch.randn(3).bfloat16()}
    best = {
        "iteration": 3,
        "key": [91.25, -0.5],
        "metrics": {"top1": 91.25},
        "parameters": {name: value + 1 for name, value in parameters.items()},
    }
    optimizers = [{"state": {0: {"step": torch.tensor(7.0), "exp_avg": torch.randn(3, 5)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}]
    return Checkpoint(1, 7, 19, parameters, optimizers, best, 2.5, "ab" * 32)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    saved = example()
    saved.save(tmp_path / "c.pt")
    loaded = Checkpoint.load(tmp_path / "c.pt")
    assert (loaded.phase, loaded.step, loaded.iteration, loaded.seconds, loaded.originals) == (1, 7, 19, 2.5, "ab" * 32)
    for name, value in saved.parameters.items():
        assert torch.equal(loaded.parameters[name], value)
        assert loaded.parameters[name].dtype == value.dtype
    assert loaded.best is not None
    assert loaded.best["key"] == [91.25, -0.5]
    assert torch.equal(loaded.optimizers[0]["state"][0]["exp_avg"], saved.optimizers[0]["state"][0]["exp_avg"])


def test_a_missing_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"there is no checkpoint .*c\.pt to resume from"):
        Checkpoint.load(tmp_path / "c.pt")


def test_no_damage_passes_unnoticed(tmp_path: Path) -> None:
    saved = example()
    saved.save(tmp_path / "c.pt")
    whole, draw = (tmp_path / "c.pt").read_bytes(), random.Random(0)
    refused = 0
    for attempt in range(200):
        damaged = bytearray(whole)
        if attempt % 4:
            damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        else:
            damaged = damaged[: draw.randrange(len(damaged))]
        (tmp_path / "d.pt").write_bytes(damaged)
        try:
            loaded = Checkpoint.load(tmp_path / "d.pt")
        except ArtifactError as error:
            refused += 1
            assert "d.pt" in str(error)
            assert "\n" not in str(error)
        else:  # bits of the archive that hold no content, such as dates
            assert all(torch.equal(loaded.parameters[name], value) for name, value in saved.parameters.items())
            assert (loaded.step, loaded.iteration) == (saved.step, saved.iteration)
    assert refused >= 100


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weights": 1}, "is no checkpoint of nern"),
        ([1, 2], "is damaged"),
        ({"format": "nern-checkpoint", "version": 99}, "was written by another version of nern"),
        ({"format": "nern-checkpoint", "version": 1, "phase": 0}, "is not complete"),
    ],
)
def test_a_foreign_file_is_refused(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(ArtifactError, match=message):
        Checkpoint.load(tmp_path / "c.pt")


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> object:
        return os.mkdir, (str(self.target),)


def test_loading_executes_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    torch.save({"format": "nern-checkpoint", "version": 1, "best": Malicious(marker)}, tmp_path / "c.pt")
    with pytest.raises(ArtifactError):
        Checkpoint.load(tmp_path / "c.pt")
    assert not marker.exists()
    pickle.loads(pickle.dumps(Malicious(marker)))  # the trap itself works
    assert marker.exists()
