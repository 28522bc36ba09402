"""One run folder, one process; every metric once; and a checkpoint that is not this run's costs a line."""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from nern import ArtifactError, ConfigError, Engine, NernError
from nern.run.folder import RunFolder
from nern.run.interruption import StopRequest
from nern.support.lock import Locked, holding
from tests.conftest import SHARED

ENDLESS = torch.zeros(1).expand(1 << 40)  # a view of one number
CASES = SHARED / "cases" / "hostile" / "checkpoint"
EXPERIMENT = """
architecture: {name: cifar-resnet, depth: 8, width: 2, weights: w.pth}
task: uniform-noise
predictor: {name: mlp, hidden: 8}
smoother: none
losses: {reconstruction: {}}
phases: [{iterations: 4}]
evaluate_every: 2
checkpoint_every: 2
log_every: 1
observers: {}
device: cpu
"""


def engine(folder: Path, **overrides: Any) -> Engine:
    from nern.builtin.architectures.cifar_resnet import CifarResNet

    if not (folder / "w.pth").exists():
        torch.save(CifarResNet(depth=8, width=2).build().state_dict(), folder / "w.pth")
    (folder / "e.yaml").write_text(EXPERIMENT.replace("w.pth", str(folder / "w.pth")))
    return Engine.from_yaml(folder / "e.yaml", {"output": str(folder / "run"), **overrides})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    engine(folder).fit()
    return folder


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]


def test_every_metric_stands_once_after_any_number_of_resumes(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "copy")
    folder, before = tmp_path / "copy", lines_of(finished)
    for longer in (4, 4, 6, 6):
        engine(folder, **{"phases.0.iterations": longer}).fit(resume=True)
        lines = lines_of(folder)
        counted = Counter((line["iteration"], "heldout" in line) for line in lines)
        assert set(counted.values()) == {1}
        assert [line["iteration"] for line in lines if "losses" in line] == list(range(1, longer + 1))
    assert lines_of(folder)[: len(before)] == before


def test_a_folder_belongs_to_one_process(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "copy")
    code = "import sys, time; from pathlib import Path; from nern.support.lock import holding\n"
    code += "with holding(Path(sys.argv[1])): print(1, flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "copy" / "run" / ".lock")], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None and other.stdout.readline() == b"1\n"
        with pytest.raises(ConfigError, match=rf"is in use by a run \(process {other.pid} on .*\)"):
            engine(tmp_path / "copy").fit(resume=True)
        other.send_signal(signal.SIGKILL)
        other.wait()
        engine(tmp_path / "copy").fit(resume=True)  # the lock ended with its process
    finally:
        other.kill()
    assert not (tmp_path / "copy" / "run" / ".lock.owner").exists()


def test_two_runs_in_one_new_folder_do_not_both_go_on(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with run.held(make=True), pytest.raises(ConfigError, match="is in use by a run"):
        engine(tmp_path).fit()
    with holding(tmp_path / "l"), pytest.raises(Locked), holding(tmp_path / "l"):
        pass
    with holding(tmp_path / "l"):
        assert (tmp_path / "l.owner").read_text().startswith(f"process {os.getpid()} on ")
    with pytest.raises(ZeroDivisionError), holding(tmp_path / "l"):
        raise ZeroDivisionError
    with holding(tmp_path / "l"):
        pass
    assert not (tmp_path / "l.owner").exists()


def test_a_file_system_without_locks_is_warned_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unsupported(self: FileLock, timeout: float) -> None:
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(FileLock, "acquire", unsupported)
    ran = []
    with holding(tmp_path / "l"):
        ran.append(1)
    assert ran
    assert f"the file system of {tmp_path} has no locks" in caplog.text


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_signals_ask_to_stop(name: str) -> None:
    number = getattr(signal, name)
    before = signal.signal(number, signal.default_int_handler)  # SIGHUP is ignored where nohup started the tests
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), number)
            time.sleep(0.01)
            assert stop.requested
        assert signal.getsignal(number) == signal.default_int_handler
    finally:
        signal.signal(number, before)


def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.requested
    finally:
        signal.signal(signal.SIGHUP, before)


# -- checkpoints -------------------------------------------------------------------------------------------------------


def put(*path: Any) -> Any:
    def change(state: Any) -> None:
        *parents, last, value = path
        for key in parents:
            state = state[key]
        state[last] = value

    return change


def gone(*path: Any) -> Any:
    def change(state: Any) -> None:
        *parents, last = path
        for key in parents:
            state = state[key]
        del state[last]

    return change


WRONG = {
    "parameters": put("parameters", {}), "no parameter": gone("parameters", "predictor.last.bias"), "step": put("step", "x"),
    "phase": put("phase", torch.zeros(())), "seconds": put("seconds", 1 + 2j), "best": put("best", torch.zeros(0)),
    "optimizers": put("optimizers", []), "true": put("optimizers", True), "one": put("optimizers", 0, (1, 2)), "version": put("version", 2),
    "state": put("optimizers", 0, "state", torch.zeros(2)), "entry": put("optimizers", 0, "state", 1, {"a": 1}),
    "moment": put("optimizers", 0, "state", 3, "exp_avg", b"x"), "shape": put("optimizers", 0, "state", 3, "exp_avg", torch.zeros(1, 2)),
    "count": gone("optimizers", 0, "state", 2, "step"), "groups": put("optimizers", 0, "param_groups", 0, "params", 3),
    "eps": gone("optimizers", 0, "param_groups", 0, "eps"), "decay": put("optimizers", 0, "param_groups", 0, "weight_decay", "x"),
    "nan": put("parameters", "predictor.last.bias", torch.full((9,), float("nan"))),
    "more": put("more", 1), "iteration": put("iteration", -1),
    "a tensor for the version": put("version", torch.zeros(2)), "a tensor for the format": put("format", torch.zeros(0)),
    "many tensors": put("more", [ENDLESS]), "a repeated number": put("parameters", "predictor.last.bias", ENDLESS),
    "metrics": put("best", "metrics", {"agreement": torch.zeros(2)}), "later best": put("best", "iteration", 5),
    "decays": put("optimizers", 0, "param_groups", 0, "betas", (1.5, -2.0)),
    "negative count": put("optimizers", 0, "state", 2, "step", torch.tensor(-1.0)),
    "negative square": put("optimizers", 0, "state", 3, "exp_avg_sq", torch.full((8,), -1.0)),
    "capturable": put("optimizers", 0, "param_groups", 0, "capturable", True), "huge step": put("step", 10**30),
    "list": put("parameters", [1]),
    "complex": put("parameters", "predictor.last.bias", torch.zeros(9, dtype=torch.complex64)), "two": put("optimizers", [{}, {}]),
    "another optimiser": put("optimizers", 0, torch.optim.SGD([torch.zeros(2, requires_grad=True)], momentum=0.9).state_dict()),
    "length": put("iteration", 3), "none": put("parameters", None), "best parameters": put("best", "parameters", {"a": torch.zeros(1)}),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_checkpoint_of_something_else_is_refused(name: str, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "copy")
    state = torch.load(finished / "run" / "checkpoint.pt", weights_only=True)
    WRONG[name](state)
    torch.save(copy.deepcopy(state), tmp_path / "copy" / "run" / "checkpoint.pt")
    with pytest.raises((ArtifactError, ConfigError)) as caught:
        engine(tmp_path / "copy", **{"phases.0.iterations": 6}).fit(resume=True)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert not (tmp_path / "copy" / "run" / ".lock.owner").exists()


@pytest.mark.slow
@pytest.mark.skipif(not CASES.is_dir(), reason="needs ../shared/cases/hostile")
def test_the_hostile_checkpoints(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "copy")
    for file in sorted(CASES.glob("*.pt"))[::4]:
        shutil.copyfile(file, tmp_path / "copy" / "run" / "checkpoint.pt")
        with pytest.raises(NernError):
            engine(tmp_path / "copy").fit(resume=True)


# -- the command line --------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_stdout_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        process = subprocess.run([sys.executable, "-m", "nern", "presets"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert process.returncode == 1
    assert process.stderr.splitlines() == [
        "nern: cannot write to stdout (No space left on device); free space, or send the output elsewhere"
    ]


@pytest.mark.parametrize("override", [{"optimizer.lr": 1e300}, {"threads": 10**9}, {"losses.reconstruction.weight": 1e300}])
def test_numbers_that_nothing_can_compute_with(override: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(override))}: must be"):
        engine(tmp_path, **override)
