"""The curve of held-out figures that a run draws for plots."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from nern import Engine
from nern.interfaces import Data
from nern.run.evaluation import outputs_of
from nern.studies.curves import read_curves

CURVED = """
architecture: {name: cifar-resnet, depth: 8, width: 4, channels: 1, size: 8, mean: [0.3], std: [0.37]}
task: digits
pretrain: {epochs: 1}
heldout: 0.2
predictor: {name: mlp, hidden: 8}
smoother: none
losses: {reconstruction: {}}
phases: [{iterations: 8}, {name: second, iterations: 3}]
evaluate_every: 0
observers: {}
device: cpu
"""


def test_points_of_the_curve_lie_evenly_and_change_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(CURVED)
    results = []
    for points in (0, 4):
        run = tmp_path / str(points)
        results.append(Engine.from_yaml(tmp_path / "e.yaml", {"output": str(run), "curve_points": points, "curve_images": 50}).fit())
    lines = [json.loads(line) for line in (tmp_path / "4" / "metrics.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines if "curve" in line] == [2, 4, 6, 8, 9, 10, 11]
    assert [step for step, _ in read_curves(tmp_path / "4").heldout["kl"]] == [2, 4, 6, 8, 9, 10, 11]
    assert [step for step, _ in read_curves(tmp_path / "0").heldout["kl"]] == [8, 11]
    assert results[0].checkpoints == results[1].checkpoints
    assert (tmp_path / "0" / "model.nern").read_bytes() == (tmp_path / "4" / "model.nern").read_bytes()


@pytest.mark.parametrize("every", [1, 3, 7])
def test_every_nth_image_is_counted_over_all_batches_of_a_split(every: int) -> None:
    class Numbered(Data):
        splits = frozenset({"heldout"})

        def inputs(self, batch: int, seed: int, device: torch.device) -> Any:
            raise NotImplementedError

        def batches(self, split: Any, batch: int, device: torch.device) -> Any:
            yield from ((torch.arange(a, b).view(-1, 1).float(), torch.arange(a, b)) for a, b in ((0, 5), (5, 7), (7, 20)))

    pairs = list(outputs_of(torch.nn.Identity(), Numbered(), "heldout", torch.device("cpu"), every=every))
    assert torch.cat([outputs for outputs, _ in pairs]).flatten().tolist() == list(range(0, 20, every))
    assert torch.cat([targets for _, targets in pairs]).tolist() == list(range(0, 20, every))
