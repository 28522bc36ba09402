"""A small run whose numbers are entropy-coded."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

from nern import Engine
from tests.helpers import ARCHITECTURE, weights_file

PHASE = {
    "name": "distillation", "iterations": 6, "batch": 8, "mix": 0.5, "losses": {"kd": {}, "rate": {"weight": 0.05}},
    "sampler": {"name": "all"}, "optimizer": {"name": "adamw", "lr": 5e-3, "betas": [0.9, 0.99], "eps": 1e-12},
}  # fmt: skip
SMALL = {
    "architecture": {"name": "cifar-resnet", **ARCHITECTURE}, "task": {"name": "digits"}, "embedding": {"name": "codes"},
    "predictor": {"name": "codes"}, "smoother": {"name": "none"}, "storage": "entropy", "fold_batch_norms": True, "train": ["*"],
    "curvature_batches": 3, "phases": [PHASE], "checkpoint_every": 3, "evaluate_every": 0, "log_every": 1, "device": "cpu", "threads": 1,
}  # fmt: skip


def engine(folder: Path, name: str = "run", **changes: Any) -> Engine:
    folder.mkdir(exist_ok=True)
    weights = weights_file(folder / "original.safetensors")
    values = copy.deepcopy({**SMALL, **changes, "output": str(folder / name)})
    values["architecture"]["weights"] = str(weights)
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(values))
    return Engine.from_yaml(folder / f"{name}.yaml")
