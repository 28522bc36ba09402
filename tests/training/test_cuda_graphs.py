"""Replayed steps train like steps that are run one by one; recorded by a stand-in where there is no GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nern import Engine
from nern.training.cuda_graphs import CudaGraphs, Replayer
from nern.training.step import PhaseTrainer

STEPS = 8
REDUCED = {"architecture.depth": 8, "architecture.width": 4, "predictor.hidden": 12, "precision": "float32", "phases.0.batch": 8}


def trainer(tmp_path: Path, device: str = "cpu", **overrides: Any) -> PhaseTrainer:
    weights = tmp_path / "weights.pt"
    settings = {**REDUCED, **{key.replace("__", "."): value for key, value in overrides.items()}}
    settings |= {"task": {"name": "normal-noise"}, "architecture.weights": str(weights), "output": str(tmp_path / "run"), "device": device}
    engine = Engine.from_yaml("resnet20-cifar10", settings)
    if not weights.exists():
        torch.manual_seed(0)
        torch.save(engine.experiment.architecture.build().state_dict(), weights)
    experiment, parts = engine.experiment, engine._context(engine._prepare())
    inputs = engine.data.inputs(experiment.phases[0].batch, 3, engine.device)
    return PhaseTrainer(parts, experiment.phases[0], experiment.losses, experiment.sampler, experiment.optimizer, inputs, 0)


class StandIn:
    """Records as a CUDA graph does: what is replayed reads and writes the memory of the first run, whatever happened since."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.parameters, self.recorded, self.replayed = parameters, 0, 0

    def __call__(self, compute: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        self.recorded += 1
        result = compute()
        gradients = [parameter.grad for parameter in self.parameters]

        def replay() -> None:
            self.replayed += 1
            result.copy_(compute())
            for own, parameter in zip(gradients, self.parameters, strict=True):
                own.copy_(parameter.grad)
                parameter.grad = None

        return result, replay


def run(trained: PhaseTrainer) -> tuple[list[dict[str, float]], list[Tensor]]:
    losses = []
    for step in range(STEPS):
        trained.step(step)
        losses.append(trained.flush(step))
    return losses, [value.detach().clone() for _, value in trained.parameters]


CASES = [
    {"losses": {"reconstruction": {}}, "sampler": {"name": "uniform", "batch": 50}},
    {"losses": {"reconstruction": {}, "kd": {"weight": 0.1, "warmup": 3}, "fmd": {"weight": 0.1, "warmup": 5}}, "sampler.batch": 60},
    {"sampler": {"name": "layers-in-turn"}, "phases.0.clip": 0.1},
    {"sampler": {"name": "all"}, "optimizer": {"name": "muon"}},
    {"sampler": {"name": "uniform", "batch": 50}, "storage": "int6"},
]


@pytest.mark.parametrize("overrides", CASES, ids=["reconstruction", "warm-up", "shapes", "all", "integers"])
def test_a_replayed_step_is_the_step(tmp_path: Path, overrides: dict[str, Any]) -> None:
    expected = run(trainer(tmp_path, **overrides))
    replayed = trainer(tmp_path, **overrides)
    stand_in = StandIn([value for _, value in replayed.parameters])
    replayed.replayer.record = stand_in
    outcome = run(replayed)
    assert stand_in.recorded > 0
    assert stand_in.replayed >= stand_in.recorded
    assert outcome[0] == expected[0]
    for a, b in zip(outcome[1], expected[1], strict=True):
        assert torch.equal(a, b)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@pytest.mark.parametrize("overrides", CASES, ids=["reconstruction", "warm-up", "shapes", "all", "integers"])
def test_a_cuda_graph_is_the_step(tmp_path: Path, overrides: dict[str, Any]) -> None:
    expected = run(trainer(tmp_path, "cuda", cuda_graphs=False, **overrides))
    recorded = trainer(tmp_path, "cuda", **overrides)
    assert isinstance(recorded.replayer.record, CudaGraphs)
    outcome = run(recorded)
    assert recorded.replayer._recordings
    for a, b in zip(outcome[0], expected[0], strict=True):
        assert a == pytest.approx(b, rel=1e-3)
    for a, b in zip(outcome[1], expected[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-4)


def test_what_cannot_be_recorded_runs_as_before_with_a_warning(tmp_path: Path) -> None:
    expected = run(trainer(tmp_path))
    other = trainer(tmp_path)

    def refuse(compute: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        compute()
        raise RuntimeError("operation not permitted when stream is capturing\nmore lines")

    other.replayer.record = refuse
    with pytest.warns(RuntimeWarning, match=r"cannot be recorded \(operation not permitted when stream is capturing\)") as caught:
        outcome = run(other)
    assert len([warning for warning in caught if warning.category is RuntimeWarning]) == 1
    assert outcome[0] == expected[0]
    assert all(torch.equal(a, b) for a, b in zip(outcome[1], expected[1], strict=True))


def test_every_kind_of_call_has_a_recording_of_its_own_up_to_a_limit() -> None:
    weight = nn.Parameter(torch.tensor([2.0]))
    stand_in = StandIn([weight])
    replayer = Replayer([weight], stand_in, most=2)

    def compute(values: Tensor | None) -> Tensor:
        loss = (weight * (torch.ones(3) if values is None else values)).square().sum()
        loss.backward()
        return loss.detach()

    for _ in range(3):
        for size in (1, 4, 5, None):
            values = None if size is None else torch.randn(size)
            squares = 3.0 if values is None else float(values.square().sum())
            assert float(replayer("key", compute, values)) == pytest.approx(4 * squares, rel=1e-5)
            assert float(weight.grad) == pytest.approx(4 * squares, rel=1e-5)
    assert stand_in.recorded == 2
    assert stand_in.replayed == 4
    results = [replayer("key", compute, torch.full((1,), value)) for value in (1.0, 3.0)]
    assert [float(result) for result in results] == [4.0, 36.0]  # the second replay does not change the first one's result


def test_a_cpu_records_nothing(tmp_path: Path) -> None:
    assert trainer(tmp_path).replayer.record is None
