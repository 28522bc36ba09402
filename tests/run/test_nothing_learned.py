"""What is said where a phase that compares weights has failed."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import nern
from nern import Engine
from tests.helpers import network, write_experiment

ONE_PHASE = {"phases.1": None, "phases.0.iterations": 200, "evaluate_every": 0}


def words(tmp_path: Path, caplog: pytest.LogCaptureFixture, alike: bool, **changes: object) -> str:
    """What is logged by a run on a network whose kernels are all alike, which is easy to learn, or all random, which is not."""
    state = network().state_dict()
    save_file(
        {name: torch.full_like(value, 0.1) if alike and value.dim() == 4 else value for name, value in state.items()},
        tmp_path / "original.safetensors",
    )
    with caplog.at_level(logging.WARNING, "nern"):
        Engine.from_yaml(write_experiment(tmp_path), {**ONE_PHASE, **changes}).fit()
    return caplog.text


def test_a_learning_rate_at_which_the_weights_move_away_is_named(tmp_path, caplog) -> None:
    said = words(tmp_path, caplog, alike=False, **{"phases.0.optimizer": {"name": "adamw", "lr": 30.0, "schedule": "constant"}})
    assert "has learned nothing: the predicted weights are as far from the original's as zeros would be" in said
    assert "phases.0.optimizer.lr" in said
    (figure,) = re.findall(r"is ([0-9.]+) ‖W‖²", said)
    original, rebuilt = load_file(tmp_path / "original.safetensors"), nern.load(tmp_path / "run" / "model.nern").reconstruct().state_dict()
    weights = {name for name, value in original.items() if value.dim() == 4}
    apart = sum(float((original[name].double() - rebuilt[name].double()).square().sum()) for name in weights)
    assert float(figure) == pytest.approx(apart / sum(float(original[name].double().square().sum()) for name in weights), rel=1e-2)


def test_a_few_steps_to_try_something_out_say_nothing(tmp_path, caplog) -> None:
    changes = {"phases.0.optimizer": {"name": "adamw", "lr": 30.0, "schedule": "constant"}, "phases.0.iterations": 199}
    assert "learned nothing" not in words(tmp_path, caplog, alike=False, **changes)


def test_a_phase_that_learns_says_nothing(tmp_path, caplog) -> None:
    assert "learned nothing" not in words(tmp_path, caplog, alike=True, **{"phases.0.optimizer": {"name": "muon", "lr": 1e-2}})


ALL, FEW = {"name": "all"}, {"name": "uniform", "batch": 4}
SLOW, QUICK = {"name": "adamw", "lr": 1e-4}, {"name": "muon", "lr": 1e-2}


@pytest.mark.parametrize(
    ("size", "sampler", "scaled", "optimizer", "way"),
    [
        (10.0, FEW, True, SLOW, "phases.0.sampler.name=magnitude"),
        (1e-4, ALL, False, QUICK, "scale_layers=true"),
        (10.0, ALL, True, SLOW, "be; give the phase more steps"),
    ],
    ids=["small sample", "small weights", "few steps"],
)
def test_a_layer_that_is_not_learned_is_named(size, sampler, scaled, optimizer, way, tmp_path, caplog) -> None:
    """The kernels of one layer are random and those of the others alike; a layer of zeros cannot be as far from them as zeros."""
    layers = {name: value for name, value in network().state_dict().items() if value.dim() == 4}
    random, empty = min(layers, key=lambda name: layers[name].numel()), list(layers)[-1]
    state = network().state_dict() | {name: torch.full_like(value, 0.1) for name, value in layers.items()}
    state[random] = size * torch.randn(state[random].shape, generator=torch.Generator().manual_seed(0))
    state[empty] = torch.zeros_like(state[empty])
    save_file(state, tmp_path / "original.safetensors")
    losses = {"reconstruction": {"form": "mse", "balance": float(scaled)}}
    changes = {"phases.0.sampler": sampler, "phases.0.losses": losses, "phases.0.optimizer": optimizer, "scale_layers": scaled}
    with caplog.at_level(logging.WARNING, "nern"):
        Engine.from_yaml(write_experiment(tmp_path), {**ONE_PHASE, **changes}).fit()
    (said,) = [record.getMessage() for record in caplog.records if "learned" in record.getMessage()]
    assert f"phase 'reconstruction' has learned nothing of {random}: there the predicted weights are as far" in said
    assert way in said
