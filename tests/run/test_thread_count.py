"""Runs of small steps take one CPU thread, by a rule that gives the same for the same configuration."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
import yaml
from torch import nn

import nern
from nern.networks.tracing import multiply_adds
from nern.run import thread_count
from nern.run.original import Original
from nern.run.thread_count import SMALL, chosen_threads, work_of_step
from tests.helpers import same, trained, write_experiment

SHORT = {"phases.reconstruction.iterations": 6, "phases.distillation.iterations": 2, "observers": {}, "smoother": "none"}
LINE = "nern: one CPU thread, since a step of"


@pytest.fixture(autouse=True)
def two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch says that it computes on two threads, or on as many as it was told, and computes on one."""
    number = [2]
    monkeypatch.setattr(torch, "get_num_threads", lambda: number[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: number.__setitem__(0, threads))


def engine(folder: Path, name: str = "run", **overrides: Any) -> nern.Engine:
    return nern.Engine.from_yaml(write_experiment(folder), {**SHORT, "output": str(folder / name), **overrides})


def recorded(run: nern.Engine) -> tuple[int | None, int]:
    """The threads that the run's configuration names, and those of its result."""
    config = yaml.safe_load(run.run.config.read_text(encoding="utf-8"))
    return config["threads"], json.loads(run.run.result.read_text(encoding="utf-8"))["environment"]["threads"]


# -- the rule -------------------------------------------------------------------------------------------------------------


def test_a_forward_pass_is_counted() -> None:
    network = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 8 * 8, 10))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert multiply_adds(network, torch.zeros(1, 3, 8, 8)) == 8 * 8 * 5 * 3 * 9 + 320 * 10
    assert same(network.state_dict(), before)


def test_a_network_that_needs_values_is_counted_with_them() -> None:
    class Values(nn.Linear):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return super().forward(inputs) if inputs.sum().item() < 1 else inputs

    assert multiply_adds(Values(6, 7), torch.zeros(1, 6)) == 42


def test_a_step_is_the_mean_over_the_phases(tmp_path) -> None:
    lengths = {"phases.reconstruction.iterations": 30, "phases.distillation.iterations": 10}
    run = engine(tmp_path, embedding={"name": "fourier", "features": 4}, **lengths)  # without look-ups, which save products
    network = run.original()
    original = Original.unordered(network, {name: value.dtype for name, value in network.state_dict().items()}, run.experiment)
    context, rows = run._context(original), original.grid.rows
    matrices = [value for value in context.representation.predictor.parameters() if value.dim() == 2]
    kernels = 3 * rows * (3 * 4 + sum(value.numel() for value in matrices))  # three coordinates times four features come first
    networks = 4 * 16 * multiply_adds(network, torch.zeros(1, 1, 8, 8))
    assert work_of_step(run.experiment, context, network) == pytest.approx(kernels + networks / 4)
    alone = attrs.evolve(run.experiment, phases=run.experiment.phases[:1])
    assert work_of_step(alone, context, network) == pytest.approx(kernels)


def test_what_cannot_be_counted_is_not_small(tmp_path, monkeypatch) -> None:
    run = engine(tmp_path)
    network = run.original()
    original = Original.unordered(network, {name: value.dtype for name, value in network.state_dict().items()}, run.experiment)
    context = run._context(original)
    monkeypatch.setattr(context.representation, "predict", lambda rows: 1 / 0)
    assert work_of_step(run.experiment, context, network) == math.inf


def test_one_thread_is_chosen_for_small_steps_where_there_are_several() -> None:
    assert chosen_threads(SMALL) == 1
    assert chosen_threads(1.01 * SMALL) is None
    torch.set_num_threads(1)
    assert chosen_threads(SMALL) is None  # there is nothing to choose


# -- in a run -------------------------------------------------------------------------------------------------------------


def test_a_run_of_small_steps_takes_one_thread_and_says_so(tmp_path, caplog) -> None:
    run = engine(tmp_path)
    run.fit()
    (line,) = [record.getMessage() for record in caplog.records if "thread" in record.getMessage()]
    assert line.startswith(LINE)
    assert line.endswith("multiply-adds is too small to be divided; threads=2 takes all")
    assert recorded(run) == (1, 1)
    assert torch.get_num_threads() == 2  # those of the rest of the program stay
    stated = engine(tmp_path, "stated", threads=1)
    stated.fit()
    assert same(trained(run.run.path), trained(stated.run.path))


def test_an_engine_leaves_the_threads_of_the_rest_of_the_program(tmp_path) -> None:
    stated = engine(tmp_path, threads=1)
    stated.plan()
    stated.fit()
    finished = nern.Engine.from_run(stated.run.path)
    finished.evaluate("heldout")
    finished.tune(finished.representation, 1, lambda: None)
    assert torch.get_num_threads() == 2


def test_a_run_of_large_steps_takes_torchs_choice(tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(thread_count, "SMALL", 0)
    run = engine(tmp_path)
    run.fit()
    assert recorded(run) == (None, 2)
    assert LINE not in caplog.text


def test_a_number_of_threads_is_obeyed_and_nothing_is_counted(tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setattr("nern.engine.work_of_step", lambda *given: 1 / 0)
    run = engine(tmp_path, threads=2)
    run.fit()
    assert recorded(run) == (2, 2)
    assert LINE not in caplog.text


class Stopper:
    """An observer that asks the run to stop at a step."""

    @nern.hookimpl
    def nern_step(self, iteration: int) -> None:
        if iteration == 5:
            raise KeyboardInterrupt


@pytest.mark.parametrize("begun", [1, None])
def test_a_resumed_run_keeps_the_threads_that_it_began_with(begun, tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(thread_count, "SMALL", SMALL if begun else 0)
    run = engine(tmp_path)
    run.registry.register(Stopper(), "stopper")
    with pytest.raises((KeyboardInterrupt, nern.Interrupted)):
        run.fit()
    monkeypatch.setattr(thread_count, "SMALL", 0 if begun else SMALL)  # the rule would choose otherwise now
    caplog.clear()
    resumed = engine(tmp_path)
    resumed.fit(resume=True)
    assert recorded(resumed) == (begun, begun or 2)
    assert LINE not in caplog.text
