"""Any embedding goes with any predictor, sampler, smoother, loss and optimiser: drawn from the registry, three steps each."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

import nern
from nern.builtin.architectures.cifar_resnet import CifarResNet
from nern.registry.discovery import create_registry
from nern.representation.quantization import NAMES
from nern.support.files import write_tensors

REGISTRY = create_registry(entry_points=False)
NETWORK = {"depth": 8, "width": 2, "size": 8, "channels": 1, "mean": [0.3], "std": [0.4], "shortcut": "B"}
ITERATIONS = 3
UNTRAINED = ("positional", "fourier")


def one(kind: str) -> st.SearchStrategy[str]:
    return st.sampled_from(REGISTRY.names(kind))


def some(kind: str) -> st.SearchStrategy[list[str]]:
    return st.lists(one(kind), min_size=1, max_size=3, unique=True)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("weights") / "original.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        write_tensors(path, CifarResNet(**NETWORK).build().state_dict())
    return path


def assemble(weights: Path, folder: Path, parts: dict[str, str], losses: list[str], small_kernels: str, storage: str) -> nern.Engine:
    experiment: dict[str, Any] = {
        "architecture": {"name": "cifar-resnet", "weights": str(weights), **NETWORK},
        "task": "uniform-noise",
        "losses": {"reconstruction": None, "kd": None, "fmd": None, **{name: {} for name in losses}},
        "observers": {"progress": None},
        "small_kernels": small_kernels,
        "storage": storage,
        # a loss on its own may be too steep for a default rate, and for that of an exponent, as steps of codes have, all the more
        "phases": [{"iterations": ITERATIONS, "batch": 4, "clip": 0.01 if storage == "entropy" else 1.0}],
        "heldout": 0.0,
        "evaluate_every": 0,
        "log_every": 1,
        "precision": "float32",
        "output": str(folder / "run"),
        **{kind: {"name": name} for kind, name in parts.items()},
    }
    (folder / "experiment.yaml").write_text(yaml.safe_dump(experiment), encoding="utf-8")
    return nern.Engine.from_yaml(folder / "experiment.yaml", registry=REGISTRY)


@settings(suppress_health_check=[HealthCheck.too_slow], phases=[Phase.explicit, Phase.generate])
@given(
    parts=st.fixed_dictionaries({kind: one(kind) for kind in ("embedding", "predictor", "base", "sampler", "smoother", "optimizer")}),
    losses=some("loss"),
    small_kernels=st.sampled_from(["centre", "average", "max"]),
    storage=st.sampled_from(NAMES),
)
@example(
    parts={
        "embedding": "fourier",
        "predictor": "skip-mlp",
        "base": "none",
        "sampler": "random-layer",
        "smoother": "in-filter",
        "optimizer": "muon",
    },
    losses=["fmd", "kd", "reconstruction"],
    small_kernels="max",
    storage="int5",
)
@example(
    parts={
        "embedding": "positional",
        "predictor": "codes",
        "base": "quantised",
        "sampler": "all",
        "smoother": "cross-filter",
        "optimizer": "adamw",
    },
    losses=["fmd"],
    small_kernels="centre",
    storage="float32",
)
@example(
    parts={
        "embedding": "fourier",
        "predictor": "mlp",
        "base": "quantised",
        "sampler": "all",
        "smoother": "cross-filter",
        "optimizer": "sgd",
    },
    losses=["fmd"],
    small_kernels="centre",
    storage="float32",
)
def test_any_combination_trains_and_comes_back(weights, parts, losses, small_kernels, storage):
    losses = [loss for loss in losses if loss != "rate"] or ["kd"]
    if storage == "entropy":  # bits are counted where they are trained for, and only there
        losses.append("rate")
    if parts["embedding"] == "codes" or parts["base"] == "quantised":  # these stand for kernels of the size that they have
        small_kernels = "centre"
    with tempfile.TemporaryDirectory() as name:
        engine = assemble(weights, Path(name), parts, losses, small_kernels, storage)
        if parts["predictor"] == "codes" and parts["embedding"] in UNTRAINED:  # a sum that adds nothing to a table
            with pytest.raises(nern.ConfigError, match="nothing can be trained"):
                engine.fit()
            return
        result = engine.fit()
        assert result.iterations == ITERATIONS
        reported = [json.loads(line).get("losses") for line in engine.run.metrics.read_text().splitlines()]
        assert sum(1 for terms in reported if terms and set(terms) == {*losses, "total"}) == ITERATIONS
        rebuilt = nern.load(engine.run.artifact, REGISTRY)
        ours, kept = engine.reconstruct().state_dict(), rebuilt.reconstruct().state_dict()
        assert list(ours) == list(kept)
        assert all(torch.equal(ours[entry], kept[entry]) for entry in ours)
        for kind in ("embedding", "predictor"):
            assert REGISTRY.name_of(getattr(rebuilt, kind)) == parts[kind]


def test_every_component_can_be_drawn():
    """A built-in that needs an option of its own would be left out of the combinations."""
    for kind in ("embedding", "predictor", "base", "sampler", "smoother", "loss", "optimizer"):
        for entry in REGISTRY.entries(kind):
            assert entry.cls() is not None
