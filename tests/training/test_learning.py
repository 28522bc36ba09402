"""Whether the paper's recipe learns, on real weights and images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nern.engine import Engine


@pytest.mark.slow
def test_200_steps_of_the_papers_recipe_lower_every_term(resnet20_weights: Path, small_cifar10: Path, tmp_path: Path) -> None:
    engine = Engine.from_yaml(
        "resnet20-cifar10",
        {
            "architecture.weights": str(resnet20_weights),
            "task.root": str(small_cifar10),
            "phases.0.iterations": 200,
            "phases.0.batch": 16,
            "log_every": 1,
            "evaluate_every": 0,
            "checkpoint_every": 0,
            "precision": "float32",
            "threads": 1,
            "observers": {},
            "output": str(tmp_path / "run"),
        },
    )
    result = engine.fit()
    assert result.iterations == 200
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["losses"] for line in lines if "losses" in line]
    assert len(losses) == 200
    for term in ("reconstruction", "kd", "fmd", "total"):
        first, last = (sum(step[term] for step in part) / 20 for part in (losses[:20], losses[-20:]))
        assert last < 0.98 * first, term
