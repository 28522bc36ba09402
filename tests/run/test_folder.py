"""The folder of a run, and what may differ when it goes on."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from nern.config.overrides import apply_overrides
from nern.config.sources import RUN_HEADER
from nern.errors import ConfigError, Interrupted
from nern.run.folder import FREE, RunFolder
from nern.run.interruption import StopRequest
from nern.run.provenance import environment
from tests.helpers import EXPERIMENT


def resolved(**overrides: object) -> dict[str, Any]:
    """A configuration after overrides (`__` stands for a dot)."""
    values = {
        **EXPERIMENT,
        "architecture": {**EXPERIMENT["architecture"], "weights": "a.pt"},
        "task": {"name": "x", "root": "a"},
        "seed": 0,
    }
    return apply_overrides(values, {path.replace("__", "."): value for path, value in overrides.items()}, {})


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run that has started."""
    folder = RunFolder(tmp_path / "deep" / "run")
    folder.check(resolved(), resume=False)
    folder.open(yaml.safe_dump(resolved()))
    return folder


def test_a_run_is_not_started_twice(run: RunFolder) -> None:
    with pytest.raises(
        ConfigError,
        match=r"already holds a run; continue with --resume \(in Python fit\(resume=True\)\), or name another folder with output=DIR",
    ):
        run.check(resolved(), resume=False)


def test_resuming_where_there_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere holds no run \(there is no .*config\.yaml\)"):
        RunFolder(tmp_path / "nowhere").check(resolved(), resume=True)


@pytest.mark.parametrize(
    "overrides",
    [
        {"output": "elsewhere"}, {"phases__0__iterations": 99}, {"observers": {}}, {"device": "cuda"}, {"checkpoint_every": 9},
        {"architecture__weights": "moved/a.pt"}, {"task__root": "moved"},
    ],
    ids=lambda overrides: next(iter(overrides)),
)  # fmt: skip
def test_place_length_and_observers_may_change_when_a_run_is_resumed(run: RunFolder, overrides: dict[str, object]) -> None:
    run.check(resolved(**overrides), resume=True)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"seed": 1}, "seed"),
        ({"predictor__hidden": 9}, "predictor.hidden"),
        ({"phases__1__optimizer__lr": 1.0}, "phases.1.optimizer.lr"),
        ({"phases__0__losses__kd": {}}, "phases.0.losses.kd"),
        ({"architecture__weights": None}, "architecture.weights"),
        ({"smoother__name": "in-filter"}, "smoother.name"),
        ({"seed": 1, "predictor__hidden": 9}, "predictor.hidden, seed"),
        ({"phases": [EXPERIMENT["phases"][0]]}, "phases"),
    ],
)
def test_any_other_setting_is_refused_by_its_path(run: RunFolder, overrides: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run.check(resolved(**overrides), resume=True)
    assert f"was started with another {named}; resume it as it was" in str(caught.value)


def test_every_setting_that_may_change_exists() -> None:
    from attrs import fields

    from nern.config.experiment import Experiment

    assert {field.name for field in fields(Experiment)} >= FREE


@pytest.mark.parametrize("content", ["", "[1]", "phases: 3", "phases: [3]", "seed: 1"])
def test_a_configuration_that_was_broken_by_hand_is_named(run: RunFolder, content: str) -> None:
    run.config.write_text(content)
    with pytest.raises(ConfigError, match=r"config\.yaml is not the configuration that a run wrote"):
        run.check(resolved(), resume=True)


def test_lines_of_steps_that_will_be_done_again_are_taken_out_of_the_metrics(run: RunFolder) -> None:
    for iteration in range(1, 6):
        run.log({"iteration": iteration, "losses": {"total": 1 / iteration}})
    with run.metrics.open("a") as file:
        file.write('{"iteration": 6, "los')  # cut off by an interruption
    run.keep_metrics(3)
    assert [json.loads(line)["iteration"] for line in run.metrics.read_text().splitlines()] == [1, 2, 3]
    run.keep_metrics(0)
    assert run.metrics.read_text() == ""


def test_opening_sweeps_what_a_killed_process_left(run: RunFolder) -> None:
    leftover = run.path / ".checkpoint.pt.abc.tmp"
    leftover.write_text("half")
    run.open("seed: 0\n")
    assert not leftover.exists()
    assert run.config.read_text() == RUN_HEADER + "seed: 0\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_requests_a_stop_and_the_old_handler_comes_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_stops_at_once() -> None:
    with StopRequest() as stop, pytest.raises(Interrupted, match="after the last checkpoint that was written"):
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        os.kill(os.getpid(), signal.SIGINT)


def test_the_environment_of_a_figure_names_device_type_and_processor() -> None:
    facts = environment(torch.device("cpu"), torch.bfloat16)
    assert (facts["device"], facts["dtype"], facts["torch"]) == ("cpu", "bfloat16", torch.__version__)
    assert facts["processor"]
    json.dumps(facts)
