"""Sweeps on launchers: the same results wherever runs are started, and what becomes of runs that are killed or fail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import attrs
import pytest

from nern import Job, JobEnd, LaunchedJobs, Launcher
from nern.cli.main import run
from nern.errors import ConfigError
from nern.studies.sweep import sweep
from nern.support.lock import holding

QUICK = {
    "architecture.width": 2, "pretrain.epochs": 1, "phases.0.iterations": 3, "phases.1.iterations": 2,
    "phases.1.batch": 8, "predictor.hidden": 4, "threads": 1, "observers": {},
}  # fmt: skip


@attrs.frozen
class Here(Launcher):
    """Runs each command in this process when it is submitted, one after the other."""

    codes: dict[str, list[int]] = attrs.field(factory=dict)  # how the next tries of a run end, without running, by its name

    def start(self, folder: Path) -> LaunchedJobs:
        return _Here(self.codes)


class _Here(LaunchedJobs):
    def __init__(self, codes: dict[str, list[int]]) -> None:
        self.codes = codes

    def submit(self, job: Job) -> int:
        return self.codes[job.name].pop(0) if self.codes.get(job.name) else run(job.command[3:])

    def poll(self, handle: int) -> JobEnd:
        return JobEnd(handle)

    def cancel(self, handle: int) -> None:
        raise AssertionError("nothing runs")

    def close(self) -> None:
        pass


def figures(table: Any) -> dict[str, tuple[Any, ...]]:
    """What may not depend on where a run was started, by its name."""
    assert not table.failures
    return {row["run"]: (row["original_top1"], row["reconstructed_top1"], row["total_bytes"]) for row in table.runs}


def predictors(folder: Path) -> dict[str, bytes]:
    import nern

    return {
        path.parent.name: b"".join(value.numpy().tobytes() for value in nern.load(path).state_dict().values())
        for path in folder.glob("*/model.nern")
    }


@pytest.mark.slow
def test_twelve_runs_two_at_a_time_give_what_they_give_one_after_the_other(tmp_path):
    grid = {"seed": [0, 1], "predictor.hidden": [4, 5, 6], "phases.0.iterations": [3, 4]}
    one, _ = sweep("digits", grid, {**QUICK, "output": str(tmp_path / "one")}, launcher=Here())
    lines: list[str] = []
    two, _ = sweep("digits", grid, {**QUICK, "output": str(tmp_path / "two")}, launcher={"jobs": 2}, report=lines.append)
    assert len(two.runs) == 12
    assert figures(two) == figures(one)
    assert predictors(tmp_path / "two") == predictors(tmp_path / "one")
    assert len(lines) == 12


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), [("submitit", {"cluster": "local"}), ("ray", {})])
def test_clusters_give_the_same(name, options, tmp_path):
    pytest.importorskip(name, reason=f'needs {name}: pip install "nern[{name}]"')
    grid = {"seed": [0], "predictor.hidden": [4, 5]}
    one, _ = sweep("digits", grid, {**QUICK, "output": str(tmp_path / "one")}, launcher=Here())
    there, _ = sweep("digits", grid, {**QUICK, "output": str(tmp_path / name)}, launcher={"name": name, "jobs": 2, **options})
    assert figures(there) == figures(one)
    assert predictors(tmp_path / name) == predictors(tmp_path / "one")


def test_a_killed_run_is_tried_again_and_a_run_that_fails_is_a_row_with_its_reason(tmp_path, capsys):
    lines: list[str] = []
    settings = {**QUICK, "output": str(tmp_path)}
    here = Here(codes={"seed=0": [-9], "seed=1": [-9, 137, -15]})
    table, _ = sweep("digits", {"seed": [0, 1, 2]}, settings, launcher=here, retries=1, report=lines.append)
    assert lines[0] == "seed=0: it was killed (SIGKILL); it is tried again (1 of 1)"
    assert [row["failed"] for row in table.runs if row["run"] != "seed=1"] == [None, None]
    assert table.failures == ["seed=1: it ended with exit code 137 (tried 2 times)"]
    assert [(setting.figures["seconds"].runs, setting.failed) for setting in table.settings] == [
        (2, ["it ended with exit code 137 (tried 2 times)"])
    ]
    assert "| 1: it ended with exit code 137 (tried 2 times) |" in (tmp_path / "sweep.md").read_text()
    stored = json.loads((tmp_path / "sweep.json").read_text())
    assert stored["runs"] == json.loads(json.dumps(table.runs))
    again, _ = sweep("digits", {"seed": [0, 1, 2]}, settings, launcher=Here())  # what failed is made up for
    assert not again.failures
    assert len(again.runs) == 3


def test_the_reason_of_a_failure_is_what_the_run_said(tmp_path, capsys):
    words = [f"{key}={value}" for key, value in QUICK.items() if key != "observers"]
    words += ["architecture.weights=nowhere.pt", f"output={tmp_path}"]
    assert run(["sweep", "digits", *words, "seed=0", "--retries", "3"]) == 1
    printed = capsys.readouterr()
    assert "failed: weights file nowhere.pt does not exist" in printed.err
    assert "| 1: weights file nowhere.pt does not exist |" in (tmp_path / "sweep.md").read_text()
    assert "tried" not in printed.out  # an error of its own is final
    assert run(["sweep", "digits", *words, "--launcher", "lokal"]) == 2
    assert "no launcher is called 'lokal', did you mean 'local'?" in capsys.readouterr().err
    assert run(["sweep", "digits", *words, "launcher.thread=2"]) == 2
    assert "launcher: thread: unknown key, did you mean 'threads'?" in capsys.readouterr().err


def test_a_folder_is_one_sweeps_at_a_time(tmp_path):
    with (
        holding(tmp_path / ".lock"),
        pytest.raises(ConfigError, match=r"another process works in .* \(process \d+ on .*\); wait"),
    ):
        sweep("digits", {"seed": [0]}, {**QUICK, "output": str(tmp_path)}, launcher=Here())


@pytest.mark.slow
def test_a_sweep_that_is_stopped_leaves_checkpoints_and_one_that_is_killed_leaves_no_run_behind(tmp_path):
    words = [f"{key}={value}" for key, value in QUICK.items() if key != "observers"]
    words += ["phases.0.iterations=1000000", "checkpoint_every=10", "seed=0,1", f"output={tmp_path}", "--jobs", "2"]
    metrics = [tmp_path / f"seed={seed}" / "checkpoint.pt" for seed in (0, 1)]
    for ending in (signal.SIGTERM, signal.SIGKILL):
        process = subprocess.Popen([sys.executable, "-m", "nern", "sweep", "digits", *words], stderr=subprocess.PIPE, text=True)
        before = {path: path.stat().st_mtime_ns if path.exists() else 0 for path in metrics}
        wait_for(lambda before=before: all(path.exists() and path.stat().st_mtime_ns > before[path] for path in metrics), process)
        process.send_signal(ending)
        _, said = process.communicate(timeout=120)
        if ending == signal.SIGTERM:
            assert process.returncode == 130
            assert "the same command continues" in said
        logs = [(tmp_path / f"seed={seed}" / "log.txt") for seed in (0, 1)]
        count = 1 if ending == signal.SIGTERM else 2
        wait_for(lambda logs=logs, count=count: all(log.read_text().count("stopped at step") == count for log in logs))
        assert all(log.read_text().count("continue with --resume") == count for log in logs)


def wait_for(happened: Any, process: subprocess.Popen[str] | None = None) -> None:
    until = time.monotonic() + 240
    while not happened():
        assert time.monotonic() < until, "it takes too long"
        assert process is None or process.poll() is None, process and process.communicate()
        time.sleep(0.1)


def test_threads_and_gpus_are_divided_among_the_runs(tmp_path, monkeypatch):
    import torch

    from nern.builtin.launchers.local import Local

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    launched = Local(jobs=3).start(tmp_path)
    code = "import os; print(os.environ['OMP_NUM_THREADS'], os.environ.get('CUDA_VISIBLE_DEVICES'))"

    def printed(device: str, number: int) -> tuple[Any, Path]:
        log = tmp_path / str(number)
        return launched.submit(Job(str(number), (sys.executable, "-c", code), tmp_path, log, device)), log

    started = [printed(device, number) for number, device in enumerate(("auto", "cuda", "cuda:1"))]
    for handle, _ in started:
        wait_for(lambda handle=handle: launched.poll(handle) is not None)
    assert [log.read_text().split() for _, log in started] == [["2", "3"], ["2", "GPU-5"], ["2", "3,GPU-5"]]
    handle, log = printed("auto", 3)  # the first slot is free again
    wait_for(lambda: launched.poll(handle) is not None)
    assert log.read_text().split() == ["2", "3"]
    launched.close()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3,GPU-5"
