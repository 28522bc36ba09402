"""`nern config` refuses what `nern train` would refuse without looking at images."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from tests.cli.mistakes import Capture
from tests.helpers import DISTILLATION, command_line, write_experiment

#: Components that find an option impossible when they are built or started, as those of plugins may.
PICKY = """
import attrs
import nern


@attrs.frozen
class Picky(nern.Sampler):
    rows: int = nern.option(99, help="a row")

    def start(self, norms, layers, seed):
        raise nern.OptionError("rows", f"{self.rows} is not a row of this network")


@attrs.frozen
class PickyOptimizer(nern.Optimizer):
    def start(self, parameters):
        raise nern.OptionError("lr", f"{self.lr} is too much")


@attrs.frozen
class PickyPredictor(nern.Predictor):
    width: int = nern.option(0, help="width")

    def build(self, inputs, outputs):
        raise nern.OptionError("width", f"{self.width} is too little")


@attrs.frozen
class PickyEmbedding(nern.Embedding):
    width: int = nern.option(0, help="width")

    def build(self, grid):
        raise nern.OptionError("width", f"{self.width} is too little")


@nern.hookimpl
def nern_samplers():
    return {"picky": Picky}


@nern.hookimpl
def nern_optimizers():
    return {"picky": PickyOptimizer}


@nern.hookimpl
def nern_predictors():
    return {"picky": PickyPredictor}


@nern.hookimpl
def nern_embeddings():
    return {"picky": PickyEmbedding}
"""


def refused(capsys: Capture, *arguments: object) -> list[str]:
    """The mistakes that `nern config` finds, after it has printed the YAML; `nern train` finds the same and writes nothing."""
    capsys.readouterr()
    assert command_line("config", *arguments) == 2
    out, err = capsys.readouterr()
    output = Path(yaml.safe_load(out)["output"])
    assert command_line("train", *arguments) == 2
    assert capsys.readouterr().err == err
    assert not output.exists()
    return [line.removeprefix("nern: ") for line in err.splitlines()]


def test_config_refuses_what_train_refuses_without_looking_at_images(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "picky.py").write_text(PICKY, encoding="utf-8")
    path = write_experiment(tmp_path, plugins=["picky.py"])
    lines = {
        "architecture.weights=null": "architecture.weights is missing: name the file with the original weights",
        "architecture.weights=nowhere.pt": "weights file nowhere.pt does not exist",
        "architecture.depth=14": f"weights file {tmp_path / 'original.safetensors'} belongs to another architecture",
        "task.name=cifar10": "task.root: is missing: name the folder that holds train/ and test/",
        "architecture.size=16": "digits have 1 channel and 8 × 8 pixels, the network takes (1, 16, 16)",
        "phases.distillation.losses.fmd.maps=['nope']": "phases.distillation.losses.fmd.maps: 'nope' matches none of the feature maps",
        "phases.distillation.sampler={name: picky}": "phases.distillation.sampler.rows: 99 is not a row of this network",
        "phases.distillation.optimizer={name: picky, lr: 1}": "phases.distillation.optimizer.lr: 1.0 is too much",
        "predictor={name: picky}": "predictor.width: 0 is too little",
        "embedding={name: picky}": "embedding.width: 0 is too little",
    }
    for override, line in lines.items():
        (message,) = refused(capsys, path, override)
        assert message.startswith(line), message


def test_config_names_all_mistakes_of_all_parts_at_once(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "picky.py").write_text(PICKY, encoding="utf-8")
    overrides = ["task.name=cifar10", "phases.distillation.losses.fmd.maps=[nope]", "phases.reconstruction.sampler={name: picky}"]
    lines = refused(capsys, write_experiment(tmp_path, plugins=["picky.py"]), *overrides)
    assert [line.split(":")[0] for line in lines] == [
        "task.root",
        "phases.reconstruction.sampler.rows",
        "phases.distillation.losses.fmd.maps",
    ]


def test_two_phases_of_one_name_are_told_apart(capsys: Capture, tmp_path: Path) -> None:
    phase = {**DISTILLATION, "losses": {"fmd": {"maps": ["nope"]}}}
    lines = refused(capsys, write_experiment(tmp_path, phases=[DISTILLATION, phase]))
    assert [line.split(":")[0] for line in lines] == ["phases.1.losses.fmd.maps"]


def test_a_network_that_is_yet_to_be_trained_is_checked_before_it_is(capsys: Capture, tmp_path: Path) -> None:
    overrides = ["architecture.weights=null", "pretrain.epochs=1", "phases.distillation.losses.fmd.maps=[nope]"]
    (line,) = refused(capsys, write_experiment(tmp_path), *overrides)
    assert line.startswith("phases.distillation.losses.fmd.maps: ")


def test_a_missing_extra_is_named_before_the_run(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    (line,) = refused(capsys, write_experiment(tmp_path), "observers.wandb.mode=offline")
    assert line.startswith("observer 'wandb' needs wandb")
    assert line.endswith('pip install "nern[wandb]", or switch it off')
