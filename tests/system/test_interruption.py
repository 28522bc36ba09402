"""Runs that are stopped, killed and resumed end with the same weights as runs that are not."""

from __future__ import annotations

import copy
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from nern.run.checkpoint import Checkpoint
from tests.helpers import DISTILLATION, RECONSTRUCTION, command_line, environment, same, started, trained, write_experiment

RANGER = {**copy.deepcopy(DISTILLATION), "name": "joint", "iterations": 24, "optimizer": {"name": "ranger"}}
PHASES = {"muon-adamw": [RECONSTRUCTION, DISTILLATION], "ranger": [RANGER]}


def lines(run: Path) -> list[dict[str, Any]]:
    """The metrics of a run; every line has to be JSON."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def stopped_at(run: Path) -> int:
    """Steps done in the checkpoint, 0 where there is none yet."""
    return Checkpoint.load(run / "checkpoint.pt").iteration if (run / "checkpoint.pt").exists() else 0


def wait_for_steps(run: Path, count: int, child: subprocess.Popen[str]) -> None:
    """Until `count` steps are in the metrics, or the process has ended."""
    deadline = time.monotonic() + 240
    while child.poll() is None and time.monotonic() < deadline:
        if (run / "metrics.jsonl").exists() and (run / "metrics.jsonl").read_text().count('"losses"') >= count:
            return
        time.sleep(0.02)


@pytest.mark.parametrize(("recipe", "number"), [("muon-adamw", signal.SIGINT), ("ranger", signal.SIGTERM)])
def test_a_stopped_run_exits_130_and_goes_on_to_the_same_weights(tmp_path: Path, recipe: str, number: signal.Signals) -> None:
    phases = [{**phase, "iterations": 200} for phase in PHASES[recipe]]
    path = write_experiment(tmp_path, phases=phases, evaluate_every=50, checkpoint_every=0)
    child = started("train", path, cwd=tmp_path)
    wait_for_steps(tmp_path / "run", 30, child)
    child.send_signal(number)
    _, err = child.communicate(timeout=240)
    assert child.returncode == 130, err
    assert "Traceback" not in err
    assert "continue with --resume" in err
    done = stopped_at(tmp_path / "run")
    assert 30 <= done < 200 * len(phases)
    assert f"stopped at step {done} of {200 * len(phases)}" in err
    assert not (tmp_path / "run" / "result.json").exists()

    assert command_line("train", path, "--resume") == 0
    assert command_line("train", path, f"output={tmp_path / 'whole'}") == 0
    assert same(trained(tmp_path / "run"), trained(tmp_path / "whole"))
    assert [line["iteration"] for line in lines(tmp_path / "run")] == [line["iteration"] for line in lines(tmp_path / "whole")]
    assert [line.get("losses") for line in lines(tmp_path / "run")] == [line.get("losses") for line in lines(tmp_path / "whole")]
    a, b = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("run", "whole"))
    assert a["checkpoints"] == b["checkpoints"]


def test_the_original_networks_training_is_resumed_too(tmp_path: Path) -> None:
    changes = {"pretrain": {"epochs": 6, "batch": 64, "lr": 0.05}, "phases": [{**RECONSTRUCTION, "iterations": 2}]}
    path = write_experiment(tmp_path, **changes)
    arguments = ["train", path, "architecture.weights=null"]
    child = started(*arguments, cwd=tmp_path)
    deadline = time.monotonic() + 240
    while not (tmp_path / "run" / "pretraining.pt").exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=240)
    assert child.returncode == 130, err
    assert "stopped while training the original network; continue with --resume" in err
    assert not (tmp_path / "run" / "original.safetensors").exists()
    assert command_line(*arguments, "--resume") == 0
    assert command_line(*arguments, f"output={tmp_path / 'whole'}") == 0
    for name in ("original.safetensors", "model.nern"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


#: Starts a run for every line it reads, in a process of its own; what takes long to import is imported once.
SERVER = """
import json, os, sys
import sklearn.datasets, nern.cli.main, nern.engine, nern.registry.discovery
nern.registry.discovery.create_registry(entry_points=False)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        os.dup2(2, 1)
        os._exit(nern.cli.main.run(json.loads(line)))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Runs:
    """Runs of the command line, one after the other, each in a process that can be killed."""

    def __init__(self, folder: Path) -> None:
        self._log = (folder / "log").open("w")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._log, "text": True}
        self._server: Any = subprocess.Popen([sys.executable, "-c", SERVER], cwd=folder, env=environment(), **pipes)

    def start(self, *arguments: object) -> int:
        """Returns the process id."""
        self._server.stdin.write(json.dumps([str(argument) for argument in arguments]) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def end(self) -> int:
        """Waits for the exit code, which is minus the signal where one ended the process."""
        return int(self._server.stdout.readline())

    def close(self) -> None:
        self._server.stdin.close()
        self._server.stdout.close()
        self._server.wait(60)
        self._log.close()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_twenty_kills_at_random_moments_change_nothing(tmp_path: Path) -> None:
    """One run is killed again and again while it starts, trains, evaluates and writes a checkpoint after every step."""
    phases = [{**RECONSTRUCTION, "iterations": 600}, {**DISTILLATION, "iterations": 600}]
    path = write_experiment(tmp_path, phases=phases, evaluate_every=100, checkpoint_every=1, log_every=1, observers={})
    run, draw, progress = tmp_path / "run", random.Random(2023), []
    runs = Runs(tmp_path)
    try:
        for kill in range(20):
            before = written(run / "checkpoint.pt")
            child = runs.start("train", path, *(["--resume"] if (run / "config.yaml").exists() else []))
            deadline = time.monotonic() + 120
            while kill % 4 and written(run / "checkpoint.pt") == before and time.monotonic() < deadline:
                time.sleep(0.005)
            time.sleep(draw.uniform(0, 0.15))  # every fourth kill comes while the run starts
            os.kill(child, signal.SIGKILL)
            assert runs.end() == -signal.SIGKILL
            progress.append(stopped_at(run))
            if (run / "metrics.jsonl").exists():
                kept = [json.loads(line)["iteration"] for line in (run / "metrics.jsonl").read_text().rpartition("\n")[0].splitlines()]
                assert kept == sorted(kept)
        assert progress == sorted(progress)
        assert 0 < progress[-1] < 1200
        assert len(set(progress)) > 10
        runs.start("train", path, "--resume", "checkpoint_every=0")
        assert runs.end() == 0
        runs.start("train", path, f"output={tmp_path / 'whole'}", "checkpoint_every=0")
        assert runs.end() == 0
    finally:
        runs.close()
    assert same(trained(run), trained(tmp_path / "whole"))
    assert [line["iteration"] for line in lines(run)] == [line["iteration"] for line in lines(tmp_path / "whole")]
    assert not list(run.glob(".*.tmp"))


def written(path: Path) -> int:
    """When a file was written, 0 where it is missing."""
    return path.stat().st_mtime_ns if path.exists() else 0
