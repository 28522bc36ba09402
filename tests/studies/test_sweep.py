from __future__ import annotations

import csv
import json
import os
import signal

import pytest
import torch

from nern import JobEnd, LaunchedJobs, Launcher, hookimpl
from nern.cli.main import run
from nern.engine import Engine
from nern.errors import ConfigError, Interrupted, TrainingError
from nern.studies.sweep import folder_name, parse_grid, sweep
from nern.studies.tables import Mean, tabulate


class Here(Launcher):
    """Runs each command in this process when it is submitted: what a sweep does is tested without the time that processes take."""

    def start(self, folder):
        return _Here()


class _Here(LaunchedJobs):
    def submit(self, job):
        assert job.command[1:4] == ("-m", "nern", "train")
        return run(job.command[3:])

    def poll(self, handle):
        return JobEnd(handle)

    def cancel(self, handle):
        pass

    def close(self):
        pass


HERE = Here()
QUICK = {"architecture.width": 2, "pretrain.epochs": 1, "phases.0.iterations": 4, "phases.1.iterations": 2, "checkpoint_every": 1}


def test_the_interval_is_students_t():
    # by hand: mean 91.0, s = √(0.02 / 3) = 0.0816497; t(0.975; 3) = 3.182446 from a printed table; 3.182446 · s / 2
    accuracy = Mean.of([90.9, 91.0, 91.0, 91.1])
    assert accuracy.mean == pytest.approx(91.0, abs=1e-12)
    assert accuracy.interval == pytest.approx(0.1299228, abs=1e-6)
    assert str(accuracy) == "91.00 ± 0.13"
    assert Mean.of([2.0, 4.0]).interval == pytest.approx(12.706205, abs=1e-5)  # t(0.975; 1) · √2 / √2
    assert Mean.of([3.5]) == Mean(3.5, None, 1)
    assert str(Mean.of([3.5])) == "3.50"


def test_commas_make_axes_but_not_inside_brackets():
    axes, single = parse_grid(
        ["seed=0,1", "optimizer.betas=[0.5,0.9],[0.9,0.99]", "losses.kd={weight: 1, warmup: 2}", "task.name='a,b'", "x=null"]
    )
    assert axes == {"seed": [0, 1], "optimizer.betas": [[0.5, 0.9], [0.9, 0.99]]}
    assert single == {"losses.kd": {"weight": 1, "warmup": 2}, "task.name": "a,b", "x": None}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed=0,,1", "seed: a list of values to sweep over has an empty or a repeated value: 0,,1"),
        ("seed=0,1,0", "seed: a list of values to sweep over has an empty or a repeated value: 0,1,0"),
        ("seed", "override 'seed' must look like key.sub=value"),
    ],
)
def test_wrong_lists_of_values_are_refused(text, message):
    with pytest.raises(ConfigError) as error:
        parse_grid([text])
    assert str(error.value) == message


def test_folders_have_readable_and_distinct_names():
    assert folder_name({"predictor.hidden": 140, "seed": 0}) == "predictor.hidden=140_seed=0"
    odd = [folder_name({"architecture.weights": name}) for name in ("a/b.th", "a b.th", "a:b.th")]
    assert len(set(odd)) == 3
    assert all("/" not in name and " " not in name for name in odd)


def test_runs_are_grouped_by_everything_but_the_seed():
    def finished_run(hidden, seed, top1):
        blank = dict.fromkeys(("original_top1", "reconstructed_top5", "predictor_bytes", "total_bytes", "seconds"), 1.0)
        return {"values": {"seed": seed, "predictor.hidden": hidden}, **blank, "reconstructed_top1": top1}

    runs = [finished_run(8, 0, 10.0), finished_run(9, 0, 30.0), finished_run(8, 1, 20.0), finished_run(9, 1, 30.0)]
    table = tabulate(["seed", "predictor.hidden"], runs)
    assert table.axes == ["predictor.hidden"]
    assert [(s.values["predictor.hidden"], s.figures["reconstructed_top1"].mean) for s in table.settings] == [(8, 15.0), (9, 30.0)]
    assert table.settings[1].figures["reconstructed_top1"].interval == 0.0
    runs[0]["reconstructed_top1"] = runs[2]["reconstructed_top1"] = None  # a task without a test set
    assert "| 8 | 2 | 1.00 ± 0.00 | — |" in tabulate(["seed", "predictor.hidden"], runs).markdown()


def test_a_sweep_runs_everything_once_and_goes_on_where_it_was_interrupted(tmp_path):
    grid = {"seed": [0, 1], "predictor.hidden": [4, 8]}
    folder = tmp_path / "grid"
    settings = {**QUICK, "output": str(folder)}

    def stop(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep("digits", grid, settings, report=stop, launcher=HERE)
    first = folder / "seed=0_predictor.hidden=4"
    written = first.joinpath("result.json").stat().st_mtime_ns

    class Stopper:
        @hookimpl
        def nern_checkpoint_saved(self, iteration: int) -> None:
            if iteration == 3:
                os.kill(os.getpid(), signal.SIGINT)

    second = folder / "seed=0_predictor.hidden=8"
    engine = Engine.from_yaml("digits", {**settings, "seed": 0, "predictor.hidden": 8, "output": str(second)})
    engine.registry.manager.register(Stopper())
    with pytest.raises(Interrupted):
        engine.fit()
    assert not second.joinpath("result.json").exists()

    table, place = sweep("digits", grid, settings, launcher=HERE)
    assert place == folder
    assert first.joinpath("result.json").stat().st_mtime_ns == written  # skipped
    steps = [json.loads(line)["iteration"] for line in second.joinpath("metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)  # gone on with, not begun again
    stored = json.loads((folder / "sweep.json").read_text())
    assert stored == json.loads(json.dumps(table.to_dict()))
    rows = list(csv.DictReader((folder / "sweep.csv").open()))
    results = [
        json.loads((folder / name / "result.json").read_text()) for name in ("seed=0_predictor.hidden=8", "seed=1_predictor.hidden=8")
    ]
    assert [row["predictor.hidden"] for row in rows] == ["4", "8"]
    assert float(rows[1]["reconstructed_top1"]) == pytest.approx(sum(result["reconstructed_top1"] for result in results) / 2)
    assert float(rows[1]["total_bytes"]) == pytest.approx(sum(result["bytes"]["total"] for result in results) / 2)
    originals = [(folder / f"seed=0_predictor.hidden={hidden}" / "original.safetensors").read_bytes() for hidden in (4, 8)]
    assert originals[0] == originals[1]


def test_runs_that_train_their_original_network_alike_share_it(tmp_path, monkeypatch):
    from nern.run import pretraining

    trained = []
    real = pretraining.pretrain
    monkeypatch.setattr(pretraining, "pretrain", lambda *arguments, **named: trained.append(1) or real(*arguments, **named))
    sweep("digits", {"predictor.hidden": [4, 8], "seed": [0, 1]}, {**QUICK, "output": str(tmp_path)}, launcher=HERE)
    assert len(trained) == 2  # one for each seed


def test_a_folder_with_another_run_is_refused_and_a_damaged_result_named(tmp_path):
    weights = tmp_path / "random.pt"
    engine = Engine.from_yaml("digits", {"architecture.width": 2})
    torch.save(engine.experiment.architecture.build().state_dict(), weights)
    settings = {**QUICK, "architecture.weights": str(weights), "output": str(tmp_path / "s")}
    sweep("digits", {"seed": [3]}, settings, launcher=HERE)
    with pytest.raises(ConfigError, match=r"seed=3 was started with another predictor\.hidden"):
        sweep("digits", {"seed": [3]}, {**settings, "predictor.hidden": 5})
    with pytest.raises(ConfigError, match="output: is the sweep's folder"):
        sweep("digits", {"output": ["a", "b"]}, settings)
    longer, _ = sweep("digits", {"seed": [3]}, {**settings, "phases.1.iterations": 3}, launcher=HERE)  # more steps: goes on
    assert json.loads((tmp_path / "s" / "seed=3" / "result.json").read_text())["iterations"] == 7
    assert longer.runs[0]["run"] == "seed=3"
    (tmp_path / "s" / "seed=3" / "result.json").write_text("{")
    with pytest.raises(TrainingError, match=r"result\.json is damaged; remove .*seed=3 to run it again"):
        sweep("digits", {"seed": [3]}, settings, launcher=HERE)


def test_the_verb_prints_one_json_object(tmp_path, capsys):
    words = [f"{key}={value}" for key, value in QUICK.items()]
    assert run(["sweep", "digits", *words, "seed=0,1", f"output={tmp_path}", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["folder"] == str(tmp_path)
    assert [entry["values"] for entry in printed["runs"]] == [{"seed": 0}, {"seed": 1}]
    assert run(["sweep", "digits", "predictor.hiden=1,2"]) == 2
    assert "predictor.hiden: unknown key, did you mean 'hidden'?" in capsys.readouterr().err
