"""Components that draw from the global generators of torch, NumPy and Python: runs are repeated and resumed exactly all the same."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nern
from nern.config.structuring import structure
from nern.errors import ConfigError
from nern.registry.discovery import create_registry
from tests.helpers import EXPERIMENT, network, same

PLUGIN = """
import random

import attrs, numpy as np, torch
from torch import nn

import nern


def noise(values):
    return values + 0.1 * (torch.randn_like(values) + np.random.randn() + random.random())


class Noisy(nn.Linear):
    dim = 8

    def forward(self, vectors):
        return noise(super().forward(vectors.float())) if self.training else super().forward(vectors.float())


@attrs.frozen
class NoisyLoss(nern.Loss):
    needs = "logits"

    def start(self, context):
        weight = noise(torch.ones(()))
        return lambda original, reconstructed: weight * noise(original - reconstructed).square().mean()


@attrs.frozen
class NoisyEmbedding(nern.Embedding):
    def build(self, grid):
        return Noisy(3, 8)


@attrs.frozen
class NoisyPredictor(nern.Predictor):
    def build(self, inputs, outputs):
        return Noisy(inputs, outputs)


class NoisySGD(torch.optim.SGD):
    def step(self, closure=None):
        for group in self.param_groups:
            for value in group["params"]:
                value.grad = noise(value.grad)
        return super().step(closure)


@attrs.frozen
class NoisyOptimizer(nern.Optimizer):
    lr: float = nern.option(1e-3, help="learning rate")

    def start(self, parameters):
        return [NoisySGD([value for _, value in parameters], lr=self.lr)]

    def factor(self, step, total):
        return 1.0


@attrs.frozen
class NoisyMetric(nern.Metric):
    compares = "original"

    def batch(self, outputs, reference):
        return noise(outputs - reference).square().mean(1)


@attrs.frozen
class Shuffled(nern.Smoother):
    def order(self, kernels):
        count = kernels.shape[0] * kernels.shape[1]
        return nern.KernelOrder(*kernels.shape[:2], torch.randperm(count))


@nern.hookimpl
def nern_losses():
    return {"noisy": NoisyLoss}


@nern.hookimpl
def nern_embeddings():
    return {"noisy": NoisyEmbedding}


@nern.hookimpl
def nern_predictors():
    return {"noisy": NoisyPredictor}


@nern.hookimpl
def nern_optimizers():
    return {"noisy": NoisyOptimizer}


@nern.hookimpl
def nern_metrics():
    return {"noisy": NoisyMetric}


@nern.hookimpl
def nern_smoothers():
    return {"shuffled": Shuffled}
"""
NOISY: dict[str, Any] = {
    "embedding": {"name": "noisy"}, "predictor": {"name": "noisy"}, "optimizer": {"name": "noisy"}, "sampler": {"name": "all"},
    "metrics": {"noisy": {}}, "choose_by": "noisy", "device": "cpu",
}  # fmt: skip


@pytest.fixture
def registry(tmp_path: Path) -> Any:
    (tmp_path / "noisy.py").write_text(PLUGIN, encoding="utf-8")
    return create_registry([str(tmp_path / "noisy.py")], entry_points=False)


def engine(folder: Path, registry: Any, iterations: int, **changes: Any) -> nern.Engine:
    folder.mkdir(exist_ok=True)
    torch.save(network().state_dict(), folder / "weights.pt")
    architecture = {**EXPERIMENT["architecture"], "weights": str(folder / "weights.pt")}
    losses = {"reconstruction": {"form": "mse"}, "noisy": {}}
    values = {
        **EXPERIMENT, **NOISY, "architecture": architecture, "precision": "float32", "output": str(folder / "run"),
        "phases": [{"iterations": iterations, "batch": 4, "clip": 1e-3, "losses": losses}], "evaluate_every": 3, **changes,
    }  # fmt: skip
    return nern.Engine(structure(values, registry), registry)


def test_a_run_whose_components_draw_is_repeated_and_resumed_exactly(tmp_path: Path, registry: Any) -> None:
    whole = engine(tmp_path / "whole", registry, 6)
    whole.fit()
    torch.manual_seed(5)  # what was drawn before a run plays no part
    np.random.seed(5)
    random.seed(5)
    again = engine(tmp_path / "again", registry, 6)
    again.fit()
    assert same(again.representation.state_dict(), whole.representation.state_dict())
    engine(tmp_path / "half", registry, 3).fit()
    resumed = engine(tmp_path / "half", registry, 6)
    resumed.fit(resume=True)
    assert same(resumed.representation.state_dict(), whole.representation.state_dict())
    assert resumed.evaluate("heldout").to_dict() == whole.evaluate("heldout").to_dict()
    other = engine(tmp_path / "other", registry, 6, seed=1)
    other.fit()
    assert not same(other.representation.state_dict(), whole.representation.state_dict())


def test_an_order_that_is_drawn_is_refused(tmp_path: Path, registry: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"component noisy:shuffled \(smoother\): order\(\) must give the same order for the same kernels"
    ):
        engine(tmp_path / "shuffled", registry, 2, smoother={"name": "shuffled"}).fit()
