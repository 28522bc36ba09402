"""Several processes train as one would: this file is also the program that torchrun starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nern import ConfigError, DataError, Engine
from nern.builtin.losses.fmd import FeatureMapDistillation
from nern.builtin.losses.kd import KnowledgeDistillation
from nern.config.experiment import Experiment
from nern.run.checkpoint import Checkpoint
from nern.run.devices import choose_device, fast_float32
from nern.support.files import write_tensors
from nern.training.processes import Processes, leave_at_once, processes
from nern.training.step import PhaseTrainer

TINY = {"architecture.width": 4, "predictor.hidden": 8, "precision": "float32", "threads": 1, "observers.progress": None}

#: Losses of every kind, over a number of images and of kernels that three processes cannot share evenly.
OBJECTIVES: dict[str, dict[str, Any]] = {
    "rms of sampled kernels": {"losses": {"reconstruction": {"form": "rms"}}, "sampler": {"name": "uniform", "batch": 50}},
    "norm of one layer": {"losses": {"reconstruction": {"form": "norm"}}, "sampler": {"name": "layers-in-turn"}},
    "kernels drawn twice": {
        "losses": {"reconstruction": {}, "kd": {"weight": 0.5}, "fmd": {"weight": 0.1}},
        "sampler": {"name": "magnitude", "batch": 400, "uniform": 0.0},
    },
    "norms of feature maps": {"losses": {"fmd": {"form": "norm"}}, "sampler": {"name": "all"}},
    "feature maps of the whole batch": {"losses": {"fmd": {"form": "batch"}, "kd": {"form": "stable"}}, "sampler": {"name": "all"}},
    "similarities within the batch": {"losses": {"fmd": {"form": "similarity"}}, "sampler": {"name": "uniform", "batch": 50}},
    "some kernels, fewer than processes": {"losses": {"kd": {"temperature": 2.0}}, "sampler": {"name": "uniform", "batch": 2}},
}


def engine_of(weights: str, objective: dict[str, Any]) -> Engine:
    phase = {"iterations": 5, "batch": 7, "optimizer": {"name": "sgd", "lr": 1.0}, **objective}
    return Engine.from_yaml("digits", {**TINY, "architecture.weights": weights, "pretrain": None, "phases": [phase]})


def gradients(engine: Engine, group: Processes) -> tuple[dict[str, float], list[torch.Tensor]]:
    """The reported losses and the gradient of one step in a group."""
    engine.processes = group
    parts = engine._context(engine._prepare())
    experiment: Experiment = engine.experiment
    (phase,) = experiment.phases
    inputs = engine._open(experiment.task).inputs(phase.batch, 0, engine.device)
    assert phase.losses and phase.sampler and phase.optimizer
    trainer = PhaseTrainer(parts, phase, phase.losses, phase.sampler, phase.optimizer, inputs, 0)
    before = [value.detach().clone() for _, value in trainer.parameters]
    trainer.step(0)  # of SGD with a rate of one: the step is the gradient
    return trainer.flush(0), [old - value.detach() for old, (_, value) in zip(before, trainer.parameters, strict=True)]


def compare(weights: str) -> None:
    """Print, for each objective, how far the processes' losses and gradients are from those of one alone."""
    with processes(torch.device("cpu")) as group:
        for name, objective in OBJECTIVES.items():
            alone, expected = gradients(engine_of(weights, objective), Processes())
            together, of_group = gradients(engine_of(weights, objective), group)
            size = torch.cat([value.flatten() for value in expected]).norm()
            error = torch.cat([(a - b).flatten() for a, b in zip(expected, of_group, strict=True)]).norm() / size
            worst = max(abs(together[key] / alone[key] - 1) for key in alone)
            measured = group.all_objects((name, float(size), float(error), worst))
            if group.first:
                print("\n".join(map(json.dumps, measured)))


def torchrun(count: int, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}", *arguments]
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    process = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert not check or process.returncode == 0, process.stderr[-4000:]
    return process


@given(st.integers(0, 40), st.integers(1, 9))
def test_every_item_falls_to_one_process_and_shares_are_about_equal(count: int, size: int) -> None:
    shares = [Processes(rank, size).share(count) for rank in range(size)]
    assert [index for share in shares for index in range(count)[share]] == list(range(count))
    lengths = [share.stop - share.start for share in shares]
    assert max(lengths) - min(lengths) <= 1


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    engine = Engine.from_yaml("digits", TINY)
    network = engine.source.build()
    file = tmp_path_factory.mktemp("weights") / "random.safetensors"
    write_tensors(file, network.state_dict())
    return str(file)


@pytest.mark.slow
def test_losses_and_gradients_are_those_of_one_process(random_weights: str) -> None:
    lines = [json.loads(line) for line in torchrun(3, __file__, random_weights).stdout.splitlines() if line.startswith("[")]
    assert [line[0] for line in lines] == [name for name in OBJECTIVES for _ in range(3)]
    for name, size, error, worst in lines:
        assert size > 0, name
        assert error < 1e-4, (name, error)
        assert worst < 1e-5, (name, worst)


@pytest.mark.slow
def test_two_processes_train_what_one_does_and_only_the_first_writes(tmp_path: Path, random_weights: str) -> None:
    overrides = {
        **TINY, "architecture.weights": random_weights, "pretrain": None, "log_every": 3, "phases.0.iterations": 6,
        "phases.1.iterations": 6, "phases.1.batch": 9, "phases.0.optimizer": {"name": "adamw", "lr": 0.001},
    }  # fmt: skip
    alone = Engine.from_yaml("digits", {**overrides, "output": str(tmp_path / "alone")})
    expected = alone.fit()
    arguments = [f"{key}={json.dumps(value)}" for key, value in overrides.items()]
    command = ["-m", "nern", "train", "digits", f"output={tmp_path / 'together'}", "--json", *arguments]
    result = json.loads(torchrun(2, *command).stdout)
    one, two = (Checkpoint.load(tmp_path / name / "checkpoint.pt") for name in ("alone", "together"))
    assert two.iteration == 12
    for name, value in one.parameters.items():
        torch.testing.assert_close(two.parameters[name], value, rtol=1e-4, atol=1e-4)
    records = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()] for name in ("alone", "together")
    ]
    assert [(r["iteration"], sorted(r)) for r in records[0]] == [(r["iteration"], sorted(r)) for r in records[1]]
    for a, b in zip(*records, strict=True):
        assert b.get("losses", {}) == pytest.approx(a.get("losses", {}), rel=1e-3)
    assert result["bytes"]["total"] == pytest.approx(expected.bytes.total, abs=64)  # times are written out
    assert result["checkpoints"]["final"]["heldout"]["kl"] == pytest.approx(expected.checkpoints["final"]["heldout"]["kl"], rel=1e-2)

    refused = torchrun(2, *command, check=False)  # the folder holds a run now: the others do not wait for ever
    assert refused.returncode != 0
    assert "already holds a run" in refused.stderr


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the processes are looked for in /proc")
def test_where_torchrun_is_killed_its_processes_end_with_a_checkpoint(tmp_path: Path, random_weights: str) -> None:
    overrides = {**TINY, "architecture.weights": random_weights, "pretrain": None, "log_every": 5, "phases.0.iterations": 10**6}
    words = [f"{key}={json.dumps(value)}" for key, value in {**overrides, "checkpoint_every": 10}.items()]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "nern", "train", "digits"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "OMP_NUM_THREADS": "1"}
    run = tmp_path / "run"
    with (tmp_path / "log").open("w") as log:
        started = subprocess.Popen([*command, *words, f"output={run}"], stdout=log, stderr=log, env=environment)
    for _ in range(2400):
        if (run / "checkpoint.pt").exists():
            break
        assert started.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.1)
    processes = [number for task in Path(f"/proc/{started.pid}/task").iterdir() for number in (task / "children").read_text().split()]
    assert len(processes) == 2
    started.kill()
    started.wait()
    for _ in range(1200):
        if not any(_works(number) for number in processes):
            break
        time.sleep(0.1)
    text = (tmp_path / "log").read_text()
    assert not any(_works(number) for number in processes), text
    assert f"stopped at step {Checkpoint.load(run / 'checkpoint.pt').iteration} of" in text


def _works(number: str) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return "State:\tZ" not in Path(f"/proc/{number}/status").read_text()
    except OSError:
        return False


DISTILLATIONS = [
    KnowledgeDistillation(), KnowledgeDistillation(form="stable"), KnowledgeDistillation(temperature=2.0),
    *(FeatureMapDistillation(form=form) for form in ("squared", "norm", "batch", "similarity")),
]  # fmt: skip


@pytest.mark.parametrize("loss", DISTILLATIONS, ids=str)
def test_losses_say_rightly_whether_they_are_means_over_images(loss: KnowledgeDistillation | FeatureMapDistillation) -> None:
    original, other = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def value(part: slice) -> float:
        sides = [[x[part]] if loss.needs == "features" else x[part] for x in (original, other)]
        return float(loss(*sides))

    parts = [slice(0, 2), slice(2, 7)]
    mean = sum(value(part) * (part.stop - part.start) / 7 for part in parts)
    assert (mean == pytest.approx(value(slice(0, 7)), rel=1e-9)) is loss.is_mean


def test_a_batch_must_reach_every_process() -> None:
    Processes(0, 2).check(nn.Linear(1, 1), {"phases.0.batch": 2})
    with pytest.raises(ConfigError, match=r"phases\.1\.batch is 2, fewer images than the 3 processes"):
        Processes(0, 3).check(nn.Linear(1, 1), {"phases.0.batch": 4, "phases.1.batch": 2})


def test_batch_norm_in_the_predictor_is_refused_where_kernels_are_shared() -> None:
    predictor = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    Processes().check(predictor, {})
    with pytest.raises(ConfigError, match="predictor: batch norm needs all kernels in one process, there are 2; use another"):
        Processes(0, 2).check(predictor, {})


def test_a_process_alone_joins_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with processes(torch.device("cpu")) as group:
        assert group == Processes(0, 1)
        assert not torch.distributed.is_initialized()
        assert group.all_objects("here") == ["here"]


def test_each_process_of_a_machine_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == torch.device("cuda")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda:1")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(DataError, match="there are 2 GPUs"):
        choose_device("cuda")


def test_tf32_is_on_for_a_run_on_a_gpu_only() -> None:
    before = torch.get_float32_matmul_precision()
    with fast_float32(torch.device("cpu")):
        assert torch.get_float32_matmul_precision() == before
    with pytest.raises(KeyError), fast_float32(torch.device("cuda")):
        assert torch.get_float32_matmul_precision() == "high"
        raise KeyError
    assert torch.get_float32_matmul_precision() == before


if __name__ == "__main__":
    compare(sys.argv[1])
    leave_at_once(0)
