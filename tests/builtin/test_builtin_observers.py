"""The built-in observers, against the real clients in their offline modes."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from nern import Engine, Interrupted, PluginError, TrainingError
from nern.builtin.observers.progress import ProgressBar
from nern.config.structuring import to_yaml
from nern.registry.registry import Registry
from nern.toolkit.trackers import failed, headline

TINY = {
    "pretrain.epochs": 1, "architecture.width": 4, "predictor.hidden": 8, "phases.0.iterations": 4, "phases.1.iterations": 4,
    "phases.1.batch": 8, "log_every": 2, "checkpoint_every": 0, "threads": 1, "precision": "float32", "observers.progress": None,
}  # fmt: skip


def train(output: Path, observer: str, registry: Registry, *, resume: bool = False, **options: Any) -> Engine:
    longer = {"phases.1.iterations": 8} if resume else {}
    overrides = {**TINY, **longer, "output": str(output), **{f"observers.{observer}.{key}": value for key, value in options.items()}}
    engine = Engine.from_yaml("digits", overrides, registry)
    engine.fit(resume=resume)
    return engine


def recorded(output: Path) -> dict[tuple[str, int], float]:
    """The numbers that the run itself wrote: (group/name, step) → value. Every tracker should have them, too."""
    numbers = {}
    for line in (output / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        for name, value in record.get("losses", {}).items():
            numbers[f"{record['phase']}/{name}", record["iteration"]] = value
        for name, value in record.get("heldout", {}).items():
            numbers[f"heldout/{name}", record["iteration"]] = value
    assert len({step for _, step in numbers}) >= 4
    return numbers


def test_csv_holds_every_number_of_the_run_and_is_continued(tmp_path: Path, registry: Registry) -> None:
    def rows() -> list[dict[str, str]]:
        with (tmp_path / "run/metrics.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    engine = train(tmp_path / "run", "csv", registry, file="metrics.csv")
    assert engine.result is not None
    first, checkpoints = rows(), engine.result.checkpoints
    tested = {int(row["iteration"]): float(row["top1"]) for row in first if row["split"] == "test"}
    assert tested == {checkpoint["iteration"]: checkpoint["test"]["top1"] for checkpoint in checkpoints.values()}
    train(tmp_path / "run", "csv", registry, resume=True, file="metrics.csv")
    both = rows()
    table = {
        (f"{row['phase'] if row['split'] == 'train' else row['split']}/{name}", int(row["iteration"])): float(value)
        for row in both
        for name, value in row.items()
        if row["split"] != "test" and name not in ("iteration", "phase", "split", "learning_rate") and value
    }
    expected = recorded(tmp_path / "run")
    assert {key: value for key, value in table.items() if not key[0].startswith("pretrain/")} == expected
    assert [row for row in first if row["split"] != "test"] == [
        {key: value for key, value in row.items() if key in first[0]} for row in both[: len(first) - len(tested)]
    ]
    assert {row["iteration"] for row in both if row["split"] == "train" and row["phase"] == "distillation"} == {"6", "8", "10", "12"}


def test_csv_drops_what_will_be_done_again_and_half_a_row(tmp_path: Path, registry: Registry) -> None:
    observer = registry.find("observer", "csv").cls()
    resolved = {"phases": [{"name": "joint"}]}
    observer.nern_run_started(tmp_path, resolved, 0)
    for step in (2, 4, 6):
        observer.nern_step("joint", step, {"kd": step / 8}, 0.5)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("4,joint,train,0.5,0.")
    observer = registry.find("observer", "csv").cls()
    observer.nern_run_started(tmp_path, resolved, 4)
    observer.nern_step("joint", 6, {"kd": 0.75, "fmd": 0.5}, 0.25)
    assert (tmp_path / "metrics.csv").read_text().splitlines() == [
        "iteration,phase,split,learning_rate,kd,fmd",
        "2,joint,train,0.5,0.25,",
        "4,joint,train,0.5,0.5,",
        "6,joint,train,0.25,0.75,0.5",
    ]


def test_tensorboard_files_hold_every_number_of_the_run_and_are_continued(tmp_path: Path, registry: Registry) -> None:
    pytest.importorskip("tensorboard", reason='needs pip install "nern[tensorboard]"')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tmp_path / "run", "tensorboard", registry, folder="events")
    engine = train(tmp_path / "run", "tensorboard", registry, resume=True, folder="events")
    read = EventAccumulator(str(tmp_path / "run/events")).Reload()
    table = {(tag, event.step): event.value for tag in read.Tags()["scalars"] for event in read.Scalars(tag)}
    expected = recorded(tmp_path / "run")
    assert {key: table[key] for key in expected} == pytest.approx(expected, rel=1e-6)  # events are float32
    assert engine.result is not None
    final = engine.result.checkpoints["final"]
    assert table["test-final/top1", final["iteration"]] == pytest.approx(final["test"]["top1"])
    assert ("pretrain/cross-entropy", 1) in table


def test_tensorboard_takes_back_what_will_be_done_again(tmp_path: Path, registry: Registry) -> None:
    pytest.importorskip("tensorboard", reason='needs pip install "nern[tensorboard]"')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for start, steps in ((0, (2, 4, 6)), (4, (6, 8))):
        observer = registry.find("observer", "tensorboard").cls()
        observer.nern_run_started(tmp_path, {}, start)
        for step in steps:
            observer.nern_step("joint", step, {"kd": start + step}, 0.5)
        observer.nern_run_finished(None, None)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("joint/kd")
    assert [(event.step, event.value) for event in events] == [(2, 2), (4, 4), (6, 10), (8, 12)]


def test_wandb_run_files_hold_every_number_of_the_run(tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb", reason='needs pip install "nern[wandb]"')
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    train(tmp_path / "run", "wandb", registry, mode="offline", tags=["small"])
    identity = (tmp_path / "run/wandb.id").read_text().strip()
    engine = train(tmp_path / "run", "wandb", registry, resume=True, mode="offline")
    wandb.teardown()  # waits for the client's own process, which writes the files
    files = sorted((tmp_path / "run/wandb").glob("offline-run-*/run-*.wandb"))
    assert {file.stem for file in files} == {f"run-{identity}"}
    parts = [wandb_records(file) for file in files]
    rows = [row for part in parts for row in contents(part, "history", "item")]
    table = {(name, row["iteration"]): value for row in rows for name, value in row.items() if "/" in name}
    expected = recorded(tmp_path / "run")
    assert {key: table[key] for key in expected} == pytest.approx(expected)
    run = next(record["run"] for record in parts[0] if record["type"] == "run")
    assert (run["project"], run["display_name"], run["tags"]) == ("nern", "run", ["small"])
    assert run["config"]["update"]["predictor"]["hidden"] == 8
    summary = {name: value for update in contents(parts[-1], "summary", "update") for name, value in update.items()}
    assert engine.result is not None
    assert summary["reconstructed_top1"] == pytest.approx(engine.result.reconstructed_top1)
    assert [record["exit"]["exit_code"] for record in parts[-1] if record["type"] == "exit"] == [0]


def wandb_records(file: Path) -> list[dict[str, Any]]:
    """The records of a run file, up to the one with which the run ended, as the client's own reader gives them."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", "--follow", "--idle-timeout", "60s", str(file)]
    process = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return [json.loads(line) for line in process.stdout.splitlines()]


def contents(records: list[dict[str, Any]], kind: str, part: str) -> list[dict[str, Any]]:
    """One part of every record of a kind."""
    return [record[kind][part] for record in records if record["type"] == kind and part in record[kind]]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the client's own
def test_clearml_session_holds_every_number_of_the_run_and_is_continued(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("clearml", reason='needs pip install "nern[clearml]"')
    monkeypatch.setenv("CLEARML_CACHE_DIR", str(tmp_path / "clearml"))
    monkeypatch.setenv("CLEARML_OFFLINE_MODE", "1")
    monkeypatch.setenv("CLEARML_API_HOST", "http://127.0.0.1:9")  # nothing listens there
    handler = signal.getsignal(signal.SIGTERM)
    train(tmp_path / "run", "clearml", registry, offline=True, title="small", tags=["small"])
    identity = (tmp_path / "run/clearml.id").read_text().strip()
    engine = train(tmp_path / "run", "clearml", registry, resume=True, offline=True, title="small")
    assert signal.getsignal(signal.SIGTERM) is handler
    assert (tmp_path / "run/clearml.id").read_text().strip() == identity
    (session,) = (tmp_path / "clearml/offline").glob("offline-*/")
    assert session.name == identity
    assert session.with_suffix(".zip").exists()
    events = [event for line in (session / "metrics.jsonl").read_text().splitlines() for event in json.loads(line)]
    table = {(f"{event['metric']}/{event['variant']}", event["iter"]): event["value"] for event in events}
    expected = recorded(tmp_path / "run")
    assert {key: table[key] for key in expected} == pytest.approx(expected)
    assert engine.result is not None
    singles = {event["variant"]: event["value"] for event in events if event["metric"] == "Summary"}
    assert singles["reconstructed_top1"] == pytest.approx(engine.result.reconstructed_top1)
    task = json.loads((session / "task.json").read_text())
    assert (task["project_name"], task["name"]) == ("nern", "small")
    assert "hidden = 8" in task["configuration"]["nern"]["value"]


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "clearml"])
def test_a_missing_client_is_named_with_the_way_to_install_it(
    name: str, tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    engine = Engine.from_yaml("digits", {**TINY, "output": str(tmp_path / "run"), f"observers.{name}": {}}, registry)
    with pytest.raises(PluginError, match=rf"observer '{name}' needs {name} .*: pip install \"nern\[{name}\]\", or switch it off"):
        engine.fit()
    assert not (tmp_path / "run/checkpoint.pt").exists()


def test_an_observer_that_is_switched_off_is_not_imported() -> None:
    program = (
        "import sys\nfrom nern.config.loading import load_experiment\nload_experiment('digits')\n"
        "print([name for name in ('tensorboard', 'torch.utils.tensorboard', 'wandb', 'clearml') if name in sys.modules])"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert process.stdout.strip() == "[]"


def test_what_an_observer_keeps_during_a_run_is_no_option(tmp_path: Path, registry: Registry) -> None:
    engine = Engine.from_yaml("digits", {**TINY, "observers.csv": {}, "observers.wandb": {"mode": "offline"}}, registry)
    observers = yaml.safe_load(to_yaml(engine.experiment, registry))["observers"]
    assert observers["csv"] == {"name": "csv", "file": "metrics.csv"}
    assert set(observers["wandb"]) == {"name", "project", "title", "entity", "tags", "mode"}


def test_a_run_that_was_asked_to_stop_has_not_failed() -> None:
    assert failed(TrainingError("the loss is not finite"))
    assert not failed(Interrupted("stopped"))
    assert not failed(None)


def test_headline_leaves_out_what_was_not_measured() -> None:
    result = {"original_top1": None, "reconstructed_top1": 91.5, "seconds": 2.0, "bytes": {"original": 9, "predictor": 3, "total": 5}}
    assert headline(result) == {"reconstructed_top1": 91.5, "seconds": 2.0, "bytes": 5}


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that progress bars see, as the only entry of a list."""
    time = [0.0]
    monkeypatch.setattr("nern.builtin.observers.progress.time.monotonic", lambda: time[0])
    return time


def started_bar(folder: Path, **steps: int) -> ProgressBar:
    """A progress bar that shows every report, of a run whose phases have so many steps."""
    bar = ProgressBar(every=1e-6)
    config = {"phases": [{"name": name, "iterations": number} for name, number in steps.items()]}
    bar.nern_run_started(run_dir=folder, config=config, iteration=0, total=sum(steps.values()), unit="step")
    return bar


def test_rate_and_time_left_are_those_of_the_phase(capsys: pytest.CaptureFixture[str], now: list[float], tmp_path: Path) -> None:
    bar = started_bar(tmp_path, quick=1000, slow=100)
    for phase, seconds, iteration in (("quick", 10, 500), ("quick", 20, 1000), ("slow", 70, 1050), ("slow", 130, 1100)):
        now[0] = seconds
        bar.nern_step(phase=phase, iteration=iteration, total=1100, losses={})
    assert [line.rstrip() for line in capsys.readouterr().err.splitlines()[1:]] == [
        "quick, phase 1 of 2: step 500 of 1000  50.0 steps/s  0:10 left in this phase",
        "quick, phase 1 of 2: step 1000 of 1000  50.0 steps/s  0:00 left in this phase",
        "slow, phase 2 of 2: step 50 of 100  1.0 steps/s  0:50 left in this phase",
        "slow, phase 2 of 2: step 100 of 100  0.9 steps/s  0:00 left in this phase",
    ]


def test_measuring_before_a_phase_is_no_part_of_its_time(capsys: pytest.CaptureFixture[str], now: list[float], tmp_path: Path) -> None:
    bar = started_bar(tmp_path, quick=100, slow=10)
    now[0] = 30.0
    bar.nern_original_measured(split="test", images=1000, metrics={})
    now[0] = 40.0
    bar.nern_step(phase="quick", iteration=100, total=110, losses={})
    now[0] = 70.0
    bar.nern_evaluated(iteration=100, split="heldout", metrics={"top1": 50.0})
    now[0] = 75.0
    bar.nern_step(phase="slow", iteration=105, total=110, losses={})
    assert [line.rstrip() for line in capsys.readouterr().err.splitlines()[1:]] == [
        "quick, phase 1 of 2: step 100 of 100  10.0 steps/s  0:00 left in this phase",
        "held-out examples at step 100: top1 50",
        "slow, phase 2 of 2: step 5 of 10  1.0 steps/s  0:05 left in this phase",
    ]


class ZMQInteractiveShell:
    """Named as a notebook's shell is."""


class Drawn:
    """What a notebook shows of one output, drawing after drawing."""

    def __init__(self, shown: list[str]) -> None:
        self.shown = shown

    def update(self, page: Any) -> None:
        self.shown.append(page.data)


def test_a_notebook_shows_one_bar_that_is_drawn_anew(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ipython = pytest.importorskip("IPython", reason="needs ipython: pip install ipython")
    shown: list[str] = []

    def display(page: Any, display_id: bool) -> Drawn:
        assert display_id
        shown.append(page.data)
        return Drawn(shown)

    monkeypatch.setattr(ipython, "get_ipython", ZMQInteractiveShell)
    monkeypatch.setattr("IPython.display.display", display)
    bar = ProgressBar()
    config = {"phases": [{"name": "quick", "iterations": 1000}, {"name": "slow", "iterations": 100}]}
    bar.nern_run_started(run_dir=tmp_path / "<b>", config=config, iteration=0, total=1100, unit="step")
    for phase, iteration in (("quick", 500), ("quick", 1000), ("slow", 1050)):
        bar.nern_step(phase=phase, iteration=iteration, total=1100, losses={"kd": 0.25})
    bar.nern_evaluated(iteration=1050, split="heldout", metrics={"top1": 91.5})
    bar.nern_measuring(phase="final", iteration=1100, split="test")
    bar.nern_run_finished()
    assert "quick (1 of 2)" in next(page for page in shown if 'value="1000" max="1000"' in page)
    assert any('value="50" max="100"' in page and "kd 0.25" in page for page in shown)
    assert shown[-1].count("<progress") == 1
    assert 'value="1" max="1"' in shown[-1]
    assert "held-out examples at step 1050: top1 91.5" in shown[-1]
    assert "&lt;b&gt;: step 0 of 1100" in shown[-1]  # text from outside is text
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(ipython, "get_ipython", lambda: None)
    bar.nern_run_started(run_dir=tmp_path, config=config, iteration=0, total=1100, unit="step")
    assert "step 0 of 1100" in capsys.readouterr().err


def test_epochs_of_the_original_network_and_measurements_are_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    bar = ProgressBar(every=1e-6)
    bar.nern_run_started(run_dir=tmp_path, config={"phases": [{"iterations": 9}]}, iteration=0, total=15, unit="epoch")
    bar.nern_step(phase="pretrain", iteration=3, total=15, losses={"cross-entropy": 0.5})
    bar.nern_measuring(phase="original", iteration=9, split="test")
    bar.nern_measuring(phase="final", iteration=9, split="test")
    first, epoch, *measuring = capsys.readouterr().err.splitlines()
    assert first == "training the original network: epoch 0 of 15"
    assert epoch.startswith("pretrain: epoch 3 of 15  ")
    assert measuring == ["measuring the test examples: the original network", "measuring the test examples: the network of step 9"]
