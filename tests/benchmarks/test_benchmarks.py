"""The benchmarks compare like with like, and say what they measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from benchmarks import accuracy, gpu, imports, report, trials
from benchmarks.baseline import quadratic_path
from benchmarks.report import placed, publish, ratio
from benchmarks.setting import Setting
from benchmarks.step import ALL
from nern import Engine
from nern.builtin.architectures.cifar_resnet import CifarResNet
from nern.config.loading import load_experiment
from nern.kernels.greedy_path import greedy_path
from nern.toolkit.images import ImageData

SMALL = ["architecture.depth=8", "architecture.size=16", "predictor.hidden=24", "phases.0.batch=4", "sampler.batch=700"]


@pytest.mark.parametrize("smoother", ["none", "cross-filter", "in-filter"])
def test_the_fast_step_takes_the_steps_of_the_plain_one(smoother: str) -> None:
    """The same start, draws and images: no table look-ups, folded batch norms or dot products change what is learnt."""
    setting = Setting("resnet20-cifar10", [*SMALL, f"smoother.name={smoother}", "sampler.uniform=0.5"], images=16)
    baseline, trainer = setting.baseline((1.0, 1e-4, 1e-4)), setting.trainer(torch.float32, ALL)
    for step in range(4):
        plain = baseline.step(step)
        trainer.step(step)
        fast = trainer.flush(step)
        assert {name: fast[name] for name in ALL} == pytest.approx(plain, rel=2e-4)


def test_steps_in_bfloat16_stay_close() -> None:
    setting = Setting("resnet20-cifar10", SMALL, images=16)
    baseline, trainer = setting.baseline((1.0, 1e-4, 1e-4)), setting.trainer(torch.bfloat16, ALL)
    for step in range(3):
        plain = baseline.step(step)
        trainer.step(step)
        fast = trainer.flush(step)
        assert fast["reconstruction"] == pytest.approx(plain["reconstruction"], rel=0.02)
        assert fast["fmd"] == pytest.approx(plain["fmd"], rel=0.05)


def test_steps_without_networks_are_those_of_the_plain_one_with_two_factors_zero() -> None:
    """Over all rows: the baseline's reconstruction loss is over all kernels, of which those outside a sample are fixed."""
    setting = Setting("resnet20-cifar10", [*SMALL[:-1], "sampler={name: all}"], images=16)
    baseline, trainer = setting.baseline((1.0, 0.0, 0.0)), setting.trainer(torch.float32, ["reconstruction"])
    for step in range(4):
        trainer.step(step)
        assert trainer.flush(step)["reconstruction"] == pytest.approx(baseline.step(step)["reconstruction"], rel=2e-4)


def test_the_quadratic_path_is_the_fast_one() -> None:
    kernels = torch.randn(500, 9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(quadratic_path(kernels), greedy_path(kernels))


def test_a_section_is_replaced_and_the_others_stay() -> None:
    page = "a\n<!-- begin x -->\nold\n<!-- end x -->\nb\n<!-- begin y -->\ny\n<!-- end y -->\n"
    assert placed(page, "x", "new \\1") == page.replace("old", "new \\1")
    with pytest.raises(ValueError, match="no section between <!-- begin z --> and <!-- end z -->"):
        placed(page, "z", "new")


def test_results_name_machine_and_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "performance.md"
    page.write_text("<!-- begin step -->\n<!-- end step -->\n", encoding="utf-8")
    monkeypatch.setattr(report, "PAGE", page)
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    weights = tmp_path / "original.th"
    weights.touch()
    monkeypatch.setattr(sys, "argv", ["step.py", "--rounds", "1", "a=b c", f"architecture.weights={weights}", str(weights)])
    publish("step", {"steps": [1.5]}, "text")
    stored = json.loads((tmp_path / "results" / "step.json").read_text(encoding="utf-8"))
    assert stored["command"] == "python -m benchmarks.step --rounds 1 'a=b c' architecture.weights=original.th original.th"
    assert stored["steps"] == [1.5] and stored["machine"]["torch"] == torch.__version__
    assert stored["command"] in page.read_text(encoding="utf-8") and stored["machine"]["processor"] in page.read_text(encoding="utf-8")


def test_the_page_has_a_section_for_every_benchmark() -> None:
    page = report.PAGE.read_text(encoding="utf-8")
    for name in ("ordering", "step", "accuracy", "trials", "gpu", "scale"):
        assert placed(page, name, "x") != page


def test_ratio_is_the_median_of_those_of_each_round() -> None:
    assert ratio({"slow": [2.0, 90.0, 8.0], "fast": [1.0, 30.0, 2.0]}, "slow", "fast") == 3.0


def test_accuracy_curve_reads_what_a_run_logged(tmp_path: Path) -> None:
    lines = [
        {"iteration": 10, "seconds": 60.0, "losses": {}},
        {"iteration": 10, "heldout": {"top1": 50.0}},
        {"iteration": 20, "seconds": 90.0, "losses": {}},
        {"iteration": 20, "heldout": {"top1": 75.0}},
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    (tmp_path / "config.yaml").write_text("extends: digits\nset: {phases.0.iterations: 70, phases.1.iterations: 10}\n", encoding="utf-8")
    curve = accuracy.curve(tmp_path)
    assert curve["minutes"] == [1.0, 1.5] and curve["top1"] == [50.0, 75.0] and curve["test"] is None
    assert accuracy.row("a", curve) == ["a", "all", "20 of 80", "2", "6", "75.00", "unfinished"]
    ended = {"reconstructed_top1": 74.0, "original_top1": 90.0, "seconds": 120.0, "environment": {"threads": 3}}
    (tmp_path / "result.json").write_text(json.dumps(ended), encoding="utf-8")
    assert accuracy.row("a", accuracy.curve(tmp_path)) == ["a", 3, "20 of 80", "2", "8", "75.00", "74.00 of 90.00"]


def test_every_trial_is_a_valid_experiment_that_differs_from_the_others() -> None:
    for study in yaml.safe_load(trials.TRIALS.read_text(encoding="utf-8")):
        seen = []
        for name, changes in study["trials"].items():
            experiment, _ = load_experiment(trials.PRESET, {**trials.RECIPE, **study["set"], **changes})
            assert experiment not in seen, name
            seen.append(experiment)
        assert len({trials.file_of(study, name) for name in study["trials"]}) == len(seen)


def test_a_trial_sees_no_test_image_and_measures_the_error_of_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_cifar10: Path
) -> None:
    monkeypatch.setattr(trials, "KEPT", tmp_path / "kept")
    opened, batches = [], ImageData.batches

    def watched(data: ImageData, split: str, *rest: Any) -> Any:
        opened.append(split)
        return batches(data, split, *rest)

    monkeypatch.setattr(ImageData, "batches", watched)
    study = {"name": "short", "set": {"phases.distillation": None, "phases.reconstruction.iterations": 2}, "trials": {"ReLU": {}}}
    torch.manual_seed(0)
    weights = tmp_path / "weights.pt"
    torch.save(CifarResNet(depth=8, width=4).build().state_dict(), weights)
    places = {"task.root": str(small_cifar10), "architecture.weights": str(weights), "architecture.depth": 8, "architecture.width": 4}
    trials.run(study, "ReLU", {**places, "predictor.hidden": 8, "threads": 1})
    assert set(opened) == {"heldout"}
    (row,) = trials.rows({**study, "trials": {"ReLU": {}, "missing": {}}})
    assert row["trial"] == "ReLU" and row["error"] > 0 and row["kl"] > 0
    assert "*Not run*: missing." in trials.text({**study, "title": "Short", "trials": {"ReLU": {}, "missing": {}}})


def test_error_is_that_of_the_weights(tmp_path: Path) -> None:
    settings = {"architecture.width": 3, "predictor.hidden": 8, "pretrain.epochs": 1, "output": str(tmp_path / "run")}
    engine = Engine.from_yaml("digits", {**settings, "phases.0.iterations": 2, "phases.1.iterations": 1})
    engine.fit()
    pairs = zip(engine.original().named_parameters(), engine.reconstruct().parameters(), strict=True)
    apart = [((a - b).detach().double().square().sum(), a.detach().double().square().sum()) for (_, a), b in pairs if a.dim() == 4]
    assert trials.error_of(engine) == pytest.approx(float(sum(a for a, _ in apart) / sum(b for _, b in apart)), rel=1e-6)


def test_gpu_benchmark_walks_its_path_on_a_cpu_and_says_where_there_is_no_gpu() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--presets", "resnet20-cifar10", "--batch", "2", "--steps", "1"]
    process = subprocess.run([*command, "--device", "cpu"], capture_output=True, text=True, cwd=report.ROOT)
    assert process.returncode == 0, process.stderr
    (row,) = [line for line in process.stdout.splitlines() if line.startswith("| resnet20-cifar10 ")]
    cells = [float(cell) for cell in row.split("|")[2:-1]]
    assert all(cell >= 0 for cell in cells) and cells[0] > 0 and cells[1] > 0
    if not torch.cuda.is_available():
        missing = subprocess.run(command, capture_output=True, text=True, cwd=report.ROOT)
        assert missing.returncode == 1
        assert missing.stderr.strip() == "device 'cuda' was asked for, but torch finds no GPU here; set device=cpu or device=auto"


def test_floating_point_operations_and_bytes_are_counted() -> None:
    a, b = torch.randn(4, 6), torch.randn(6, 5)
    with gpu.Touched() as touched:
        c = a @ b
        c.T  # noqa: B018 (a view touches nothing)
        c.add_(1)
    assert touched.bytes == 4 * (24 + 30 + 20 + 20 + 20)


def test_imports_are_timed_in_processes_that_must_succeed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "small_file", lambda folder: folder / "it's.nern")
    codes = imports.codes(tmp_path)
    assert {"import torch", "import nern; nern.load(FILE)", "nern --help", "nern presets"} <= codes.keys()
    for code in codes.values():
        compile(code, "timed", "exec")
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        imports.fresh("1 / 0")
