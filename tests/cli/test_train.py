"""What `nern train` does besides training: it resumes, and it stops in time."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import yaml

from tests.cli.mistakes import Capture, mistake
from tests.helpers import DISTILLATION, RECONSTRUCTION, command_line, write_experiment


def test_a_finished_run_may_be_made_longer(capsys: Capture, tmp_path: Path) -> None:
    path = write_experiment(tmp_path, phases=[{**RECONSTRUCTION, "optimizer": {"name": "adamw", "schedule": "constant"}}])
    short, whole = tmp_path / "2026", tmp_path / "whole"
    assert command_line("train", path, "phases.0.iterations=5", f"output={short}") == 0
    capsys.readouterr()
    assert command_line("train", short, "--resume", "phases.0.iterations=9", "--json") == 0  # by the run directory alone
    assert json.loads(capsys.readouterr().out)["iterations"] == 9
    assert command_line("train", path, "phases.0.iterations=9", f"output={whole}") == 0
    longer, at_once = (torch.load(run / "checkpoint.pt", weights_only=True) for run in (short, whole))
    assert all(torch.equal(longer["parameters"][name], value) for name, value in at_once["parameters"].items())
    assert yaml.safe_load((short / "config.yaml").read_text())["phases"][0]["iterations"] == 9


def test_a_loss_that_is_not_finite_is_named(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(
        "import attrs, nern, torch\n\n"
        "@attrs.frozen\nclass Failing(nern.Loss):\n"
        '    """Fails at its sixth call, in value or in gradient."""\n\n'
        '    gradient: bool = nern.option(False, help="whether only the gradient fails")\n'
        "    needs = 'weights'\n\n"
        "    def start(self, context):\n        self_calls = []\n\n"
        "        def loss(original, reconstructed):\n"
        "            self_calls.append(1)\n            value = (original.values - reconstructed.values).square().mean()\n"
        "            if len(self_calls) != 6:\n                return value\n"
        "            zero = (reconstructed.values * 0).sum()\n"
        "            return value + zero.sqrt() if self.gradient else value / zero\n\n"
        "        return loss\n\n"
        "@nern.hookimpl\ndef nern_losses():\n    return {'failing': Failing}\n"
    )
    phase = {**RECONSTRUCTION, "losses": {"reconstruction": {}, "failing": {}}, "optimizer": {"name": "sgd", "lr": 0.01}}
    path = write_experiment(tmp_path, phases=[phase], plugins=["./failing.py"], checkpoint_every=2, log_every=50, evaluate_every=0)
    line = mistake(capsys, "train", path)
    assert line.startswith("loss 'failing' is inf at step 6 of phase 'reconstruction'; the last good checkpoint is ")
    assert str(tmp_path / "run" / "checkpoint.pt") in line
    assert torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["iteration"] == 4

    other = f"output={tmp_path / 'other'}"
    line = mistake(capsys, "train", path, other, "phases.0.losses.failing.gradient=true")
    assert line.startswith("the gradient made 'predictor.")
    assert "not finite at or before step 6" in line
    kept = torch.load(tmp_path / "other" / "checkpoint.pt", weights_only=True)
    assert kept["iteration"] == 4
    assert all(bool(value.isfinite().all()) for value in kept["parameters"].values())
    line = mistake(capsys, "train", path, f"output={tmp_path / 'third'}", "checkpoint_every=0")
    assert "there is no checkpoint yet" in line


def test_the_distillation_phase_needs_images_early(capsys: Capture, tmp_path: Path) -> None:
    """Images that a later phase needs are missed before the first one starts."""
    path = write_experiment(tmp_path, phases=[RECONSTRUCTION, {**DISTILLATION, "inputs": {"name": "image-folder", "root": "nowhere"}}])
    line = mistake(capsys, "train", path)
    assert line.startswith("phases.distillation.inputs.root: data folder nowhere does not exist")
    assert not (tmp_path / "run").exists()
