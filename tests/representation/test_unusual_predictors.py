"""Predictors that hold more than trained matrices: statistics, tied and frozen parameters, buffers of integers."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

import nern
from nern import Engine
from nern.studies.opening import open_representation
from nern.studies.pruning import pruned

SETTINGS: dict[str, Any] = {"architecture.width": 4, "pretrain.epochs": 1, "phases.0.iterations": 5, "phases.1.iterations": 4, "threads": 1}

PLUGIN = """
    import attrs
    import torch
    from torch import nn
    from nern import Predictor, hookimpl


    class Odd(nn.Module):
        def __init__(self, inputs, outputs):
            super().__init__()
            self.enter = nn.Linear(inputs, 24)
            self.mix = nn.Linear(24, 24)
            self.mix.requires_grad_(False)
            self.one, self.two = nn.Linear(24, 24), nn.Linear(24, 24)
            self.two.weight = self.one.weight
            self.leave = nn.Linear(24, outputs)
            self.register_buffer("signs", torch.tensor([1, -1] * 64, dtype=torch.int8))

        def forward(self, x):
            for layer in (self.enter, self.mix, self.one, self.two):
                x = torch.relu(layer(x))
            return self.leave(x * self.signs[:24])


    @attrs.frozen
    class OddPredictor(Predictor):
        def build(self, inputs, outputs):
            return Odd(inputs, outputs)


    @hookimpl
    def nern_predictors():
        return {"odd": OddPredictor}
"""


def fit(folder: Path, **overrides: Any) -> Engine:
    (folder / "odd.py").write_text(textwrap.dedent(PLUGIN), encoding="utf-8")
    engine = Engine.from_yaml("digits", {**SETTINGS, "output": str(folder / "run"), **overrides})
    engine.fit()
    return engine


@pytest.mark.parametrize("every", [1, 0])
def test_statistics_of_a_predictor_are_those_of_its_file(tmp_path: Path, every: int) -> None:
    engine = fit(tmp_path, **{"predictor.normalisation": "batch", "evaluate_every": every})
    said = json.loads((tmp_path / "run" / "result.json").read_text())["reconstructed_top1"]
    assert engine.evaluate().reconstructed_top1 == said == Engine.from_run(tmp_path / "run").evaluate().reconstructed_top1
    rebuilt = nern.load(engine.run.artifact).reconstruct()
    assert all(torch.equal(a, b) for a, b in zip(rebuilt.parameters(), engine.reconstruct().parameters(), strict=True))


@pytest.mark.parametrize("storage", ["float32", "int8", "int5"])
def test_tied_frozen_and_whole_numbers_come_back(tmp_path: Path, storage: str) -> None:
    engine = fit(tmp_path, plugins=[str(tmp_path / "odd.py")], predictor="odd", storage=storage)
    bits = int(storage[3:]) if storage.startswith("int") else 32
    sizes = [(value.numel(), len(value), value.dim()) for _, value in engine.representation.predictor.named_parameters()]
    expected = 128  # the buffer
    for count, rows, dimensions in sizes:
        expected += 4 * count if bits == 32 else -(-count * bits // 8) + 4 * rows if dimensions == 2 else 2 * count
    assert engine.artifact.bytes().predictor == expected
    loaded = nern.load(engine.run.artifact, engine.registry).representation
    for (name, a), (other, b) in zip(loaded.state_dict().items(), engine.representation.state_dict().items(), strict=True):
        assert name == other and torch.equal(a, b), name
    assert loaded.predictor.two.weight is loaded.predictor.one.weight
    opened = open_representation(engine.run.path)
    for steps in (0, 2):
        artifact, _ = pruned(opened, 0.3, "global", steps)
        artifact.save(tmp_path / "pruned.nern")
        again = nern.load(tmp_path / "pruned.nern", engine.registry).representation
        for name, value in again.state_dict().items():
            assert torch.equal(value, artifact.representation.state_dict()[name]), name
        before, after = engine.representation.predictor.mix.weight, again.predictor.mix.weight
        assert torch.equal(after[after != 0], before[after != 0])  # frozen: pruned, and not trained
    trained = engine.representation.predictor.one.weight, again.predictor.one.weight
    assert not torch.equal(trained[1][trained[1] != 0], trained[0][trained[1] != 0])
