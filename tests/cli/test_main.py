"""The verbs, in this process."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from nern.config.loading import load_experiment
from nern.config.sources import presets
from nern.registry.discovery import create_registry
from nern.registry.registry import KINDS
from tests.helpers import DISTILLATION, RECONSTRUCTION, command_line, network, weights_file, write_experiment

Capture = pytest.CaptureFixture[str]
QUICK = ["phases.0.iterations=2", "phases.1.iterations=2", "evaluate_every=0"]


def mistake(capsys: Capture, *arguments: object) -> str:
    """The one line that a wrong call prints."""
    capsys.readouterr()
    assert command_line(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("nern: ")]
    assert len(lines) == 1, err
    return lines[0].removeprefix("nern: ")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an experiment and its finished run."""
    folder = tmp_path_factory.mktemp("finished")
    assert command_line("train", write_experiment(folder), *QUICK) == 0
    return folder


# -- presets, config, plugins ----------------------------------------------------------------------------------------


def test_presets_lists_a_line_for_each_experiment_or_family_and_fits_a_screen(capsys: Capture) -> None:
    assert command_line("presets") == 0
    out, err = capsys.readouterr()
    names = [line.split()[0] for line in out.splitlines()]
    assert names == list(dict.fromkeys(f"{name.partition('/')[0]}/" if "/" in name else name for name in presets()))
    assert all(len(line.split()) > 2 for line in out.splitlines())
    assert len(names) <= 40
    assert "nern presets NAME" in err


def test_presets_of_a_family_are_listed_one_a_line(capsys: Capture) -> None:
    assert command_line("presets", "table1") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [n for n in presets() if n.startswith("table1/")]


def test_a_preset_is_printed_ready_to_edit(capsys: Capture, tmp_path: Path) -> None:
    assert command_line("presets", "digits") == 0
    text = capsys.readouterr().out
    assert text == presets()["digits"]
    assert "# " in text.splitlines()[0]
    (tmp_path / "digits.yaml").write_text(text)
    registry = create_registry(entry_points=False)
    assert load_experiment(tmp_path / "digits.yaml", registry=registry)[0] == load_experiment("digits", registry=registry)[0]


def test_config_prints_what_train_would_run_and_writes_nothing(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert command_line("config", "predictor.hidden=140", "resnet20-cifar10", "seed=5") == 2  # the experiment comes first
    capsys.readouterr()
    assert command_line("config", "resnet20-cifar10", "predictor.hidden=140", "seed=5") == 2
    first, err = capsys.readouterr()
    assert [line.split(":")[1] for line in err.splitlines()] == [" task.root", " architecture.weights is missing"]
    assert command_line("config", "resnet20-cifar10", "seed=5", "predictor.hidden=140") == 2
    assert capsys.readouterr().out == first
    values = yaml.safe_load(first)
    assert (values["predictor"]["hidden"], values["seed"], values["output"]) == (140, 5, "runs/resnet20-cifar10")
    assert {
        "architecture",
        "embedding",
        "predictor",
        "sampler",
        "smoother",
        "losses",
        "task",
        "optimizer",
        "phases",
        "seed",
        "device",
        "output",
    } <= values.keys()
    assert {"name", "weights", "depth", "shortcut", "classes"} <= values["architecture"].keys()
    assert {"name", "root"} <= values["task"].keys()
    assert list(tmp_path.iterdir()) == []


def test_plugins_lists_every_component_with_its_options(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NERN_DISABLE_PLUGINS", "1")
    assert command_line("plugins", "--json") == 0
    listed = json.loads(capsys.readouterr().out)["components"]
    registry = create_registry(entry_points=False)
    assert {(c["kind"], c["name"]) for c in listed} == {(e.kind, e.name) for e in registry.entries()}
    assert {c["kind"] for c in listed} == set(KINDS)
    for component in listed:
        assert component["package"] == "nern"
        assert component["version"]
        assert component["summary"]
    (mlp,) = [c for c in listed if (c["kind"], c["name"]) == ("predictor", "mlp")]
    hidden = next(o for o in mlp["options"] if o["name"] == "hidden")
    assert (hidden["type"], hidden["required"]) == ("int", False)
    assert command_line("plugins") == 0
    out = capsys.readouterr().out
    assert all(component["summary"] in out for component in listed)


# -- mistakes --------------------------------------------------------------------------------------------------------


def test_wrong_words_on_the_command_line(capsys: Capture, tmp_path: Path) -> None:
    path = write_experiment(tmp_path)
    assert "did you mean 'digits'?" in mistake(capsys, "train", "digit")
    assert "did you mean 'digits'?" in mistake(capsys, "presets", "digit")
    assert mistake(capsys, "train", path, "seed") == "override 'seed' must look like key.sub=value"
    assert mistake(capsys, "config", path, "sede=3").endswith("sede: unknown key, did you mean 'seed'?")
    for arguments in (["trian"], ["train"], ["train", path, "--jason"], ["reconstruct", "x.nern"]):
        assert command_line(*arguments) == 2
        assert "Traceback" not in capsys.readouterr().err
    assert command_line("--help") == 0
    assert command_line("--version") == 0


def test_several_mistakes_are_several_lines(capsys: Capture, tmp_path: Path) -> None:
    path = write_experiment(tmp_path)
    assert command_line("train", path, "seed=-1", "predictor.hiden=3", "task.name=digit") == 2
    err = capsys.readouterr().err
    assert err.count("nern: ") == 3
    assert not (tmp_path / "run").exists()


def test_weights_that_cannot_serve(capsys: Capture, tmp_path: Path) -> None:
    path = write_experiment(tmp_path)
    whole = (tmp_path / "original.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    torch.save(network().state_dict(), tmp_path / "whole.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:-3000])
    (tmp_path / "text.pt").write_text("not weights")
    weights_file(tmp_path / "deeper.safetensors", depth=14)
    weights_file(tmp_path / "wider.safetensors", width=6)
    broken = network().state_dict()
    broken["conv1.weight"][0, 0, 0, 0] = float("nan")
    save_file(broken, str(tmp_path / "nan.safetensors"))
    expected = {
        "nowhere.pt": "does not exist",
        "cut.safetensors": "is not a complete safetensors file",
        "cut.pt": "is truncated or not a torch state dict",
        "text.pt": "is truncated or not a torch state dict",
        "deeper.safetensors": "belongs to another architecture: the network has no layer1.1.",
        "wider.safetensors": "conv1.weight is [6, 1, 3, 3] in the file and [4, 1, 3, 3] in the network",
        "nan.safetensors": "has values that are not finite in conv1.weight",
    }
    for name, message in expected.items():
        line = mistake(capsys, "train", path, f"architecture.weights={tmp_path / name}")
        assert line.startswith(f"weights file {tmp_path / name} ")
        assert message in line
    assert "architecture.weights is missing: name the file" in mistake(capsys, "train", path, "architecture.weights=null")
    assert not (tmp_path / "run").exists()  # a mistake leaves nothing that has to be cleared away
    assert command_line("train", path, *QUICK) == 0


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> object:
        return os.mkdir, (str(self.target),)


def test_weights_that_would_execute_something_are_refused(capsys: Capture, tmp_path: Path) -> None:
    torch.save({"state_dict": Malicious(tmp_path / "executed")}, tmp_path / "bad.pt")
    assert "bad.pt" in mistake(capsys, "train", write_experiment(tmp_path), f"architecture.weights={tmp_path / 'bad.pt'}")
    assert not (tmp_path / "executed").exists()


def test_data_folders_that_cannot_serve(capsys: Capture, tmp_path: Path) -> None:
    from PIL import Image

    path = write_experiment(tmp_path, task={"name": "image-folder"})
    (tmp_path / "empty").mkdir()
    (tmp_path / "flat" / "train").mkdir(parents=True)
    Image.new("L", (8, 8)).save(tmp_path / "flat" / "train" / "a.png")
    (tmp_path / "hollow" / "train" / "cat").mkdir(parents=True)
    (tmp_path / "large" / "train" / "cat").mkdir(parents=True)
    Image.new("L", (9, 8)).save(tmp_path / "large" / "train" / "cat" / "a.png")
    (tmp_path / "broken" / "train" / "cat").mkdir(parents=True)
    (tmp_path / "broken" / "train" / "cat" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    for name in (f"class{n:02}" for n in range(11)):
        for split in ("train", "test"):
            (tmp_path / "many" / split / name).mkdir(parents=True)
            Image.new("L", (8, 8)).save(tmp_path / "many" / split / name / "a.png")
    expected = {
        "nowhere": "nowhere does not exist; images belong into",
        "empty": "holds neither train/ nor test/",
        "flat": "flat/train has no class folders",
        "hollow": "class folder .*hollow/train/cat holds no images",
        "large": r"a\.png has 9 × 8 pixels, the network takes 8 × 8",
        "broken": r"a\.png is not a complete image",
        "many": "the task has 11 classes and the network 10 outputs: .* set architecture.classes, or another task",
    }
    import re

    for name, message in expected.items():
        line = mistake(capsys, "train", path, f"task.root={tmp_path / name}")
        assert re.search(message, line), line
    assert mistake(capsys, "train", path) == "task.root: is missing: name the folder that holds train/ and test/"
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there(capsys: Capture, tmp_path: Path) -> None:
    path = write_experiment(tmp_path)
    for device in ("cuda", "cuda:1"):
        line = mistake(capsys, "train", path, f"device={device}")
        assert line == f"device '{device}' was asked for, but torch finds no GPU here; set device=cpu or device=auto"
    for device in ("gpu", "meta", "mps"):
        assert "use auto, cpu, cuda or cuda:N" in mistake(capsys, "train", path, f"device={device}")


def test_runs_that_are_there_already_or_not_at_all(capsys: Capture, finished: Path) -> None:
    path, run = finished / "experiment.yaml", finished / "run"
    before = {entry.name: entry.read_bytes() for entry in run.iterdir()}
    assert "already holds a run; continue with --resume" in mistake(capsys, "train", path, *QUICK)
    assert "was started with another seed" in mistake(capsys, "train", path, *QUICK, "seed=1", "--resume")
    assert "holds no run" in mistake(capsys, "train", path, *QUICK, "--resume", f"output={finished / 'nowhere'}")
    assert "phases.1.iterations is 1, but 2 steps are done already" in mistake(capsys, "train", run, "--resume", "phases.1.iterations=1")
    assert "cannot change their length on resume" in mistake(capsys, "train", run, "--resume", "phases.0.iterations=3")
    assert {name: (run / name).read_bytes() for name in before if name != "config.yaml"} == {
        name: content for name, content in before.items() if name != "config.yaml"
    }


# -- output folders --------------------------------------------------------------------------------------------------


def test_an_output_folder_that_cannot_be_made(capsys: Capture, tmp_path: Path) -> None:
    path = write_experiment(tmp_path)
    line = mistake(capsys, "train", path, f"output={path / 'below'}")
    assert line == f"cannot write the run directory {path / 'below'} (Not a directory); free space or set output"


def test_a_read_only_output_folder(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_experiment(tmp_path)
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked").chmod(0o555)
    if os.access(tmp_path / "locked", os.W_OK):  # rights do not bind this user: the system's answer has to be made up

        def refuse(self: Path, *arguments: object, **options: object) -> None:
            raise PermissionError(13, "Permission denied", str(self))

        monkeypatch.setattr(Path, "mkdir", refuse)
    line = mistake(capsys, "train", path, f"output={tmp_path / 'locked' / 'run'}")
    assert line == f"cannot write the run directory {tmp_path / 'locked' / 'run'} (Permission denied); free space or set output"


def test_a_disk_that_fills_up_loses_nothing(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_experiment(tmp_path, checkpoint_every=1)
    flush, calls = os.fsync, []

    def filling(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 8:
            raise OSError(28, "No space left on device")
        flush(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", filling)
        line = mistake(capsys, "train", path, *QUICK)
    assert line == f"cannot write the run directory {tmp_path / 'run'} (No space left on device); free space or set output"
    assert sorted(entry.name for entry in (tmp_path / "run").iterdir()) == ["checkpoint.pt", "config.yaml", "metrics.jsonl"]
    for text in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        json.loads(text)
    assert command_line("train", path, *QUICK, "--resume") == 0
    assert command_line("train", path, *QUICK, f"output={tmp_path / 'whole'}") == 0
    assert (tmp_path / "run" / "model.nern").read_bytes() == (tmp_path / "whole" / "model.nern").read_bytes()


# -- evaluate, reconstruct -------------------------------------------------------------------------------------------


def test_evaluate_prints_both_networks(capsys: Capture, finished: Path) -> None:
    assert command_line("evaluate", finished / "run") == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in out] == ["original", "reconstructed"]
    assert all("(397 images)" in line for line in out)
    result = json.loads((finished / "run" / "result.json").read_text())
    assert f"{result['reconstructed_top1']:.2f} %" in out[1]


def test_evaluate_a_file_with_and_without_the_original(capsys: Capture, finished: Path, tmp_path: Path) -> None:
    file = shutil.copy(finished / "run" / "model.nern", tmp_path / "m.nern")
    assert command_line("evaluate", file, "--json") == 0
    alone = json.loads(capsys.readouterr().out)
    assert alone["original_top1"] is None
    assert command_line("evaluate", file, "--json", f"architecture.weights={finished / 'original.safetensors'}") == 0
    beside = json.loads(capsys.readouterr().out)
    assert beside["reconstructed_top1"] == alone["reconstructed_top1"]
    assert beside["original_top1"] == json.loads((finished / "run" / "result.json").read_text())["original_top1"]

    other = weights_file(tmp_path / "other.safetensors", seed=1)
    assert "not the weights that the representation was made from" in mistake(capsys, "evaluate", file, f"architecture.weights={other}")
    for override in ("predictor.hidden=3", "architecture=x", "architecture.depth=14"):
        assert "is measured with task.*, architecture.weights and device only" in mistake(capsys, "evaluate", file, override)
    assert mistake(capsys, "evaluate", file, "architecture.weights=5") == "architecture.weights: must be text, got an int (5)"
    assert "does not exist" in mistake(capsys, "evaluate", tmp_path / "nowhere.nern")
    assert "holds no run" in mistake(capsys, "evaluate", tmp_path)


def test_reconstruct_in_every_format(capsys: Capture, finished: Path, tmp_path: Path) -> None:
    file = finished / "run" / "model.nern"
    states = []
    for name in ("w.safetensors", "w.pt", "w.pth"):
        assert command_line("reconstruct", file, "-o", tmp_path / name) == 0
        assert capsys.readouterr().out == ""
        states.append(load_file(str(tmp_path / name)) if name == "w.safetensors" else torch.load(tmp_path / name, weights_only=True))
    original = network().state_dict()
    for state in states:
        assert state.keys() == original.keys()
        network().load_state_dict(state)
        assert all(torch.equal(state[name], states[0][name]) for name in state)


def test_reconstruct_refuses_what_it_cannot_write_or_read(capsys: Capture, finished: Path, tmp_path: Path) -> None:
    file = finished / "run" / "model.nern"
    assert "the file must end in .safetensors, .pt or .pth" in mistake(capsys, "reconstruct", file, "-o", tmp_path / "w.bin")
    line = mistake(capsys, "reconstruct", file, "-o", tmp_path / "nowhere" / "w.pt")
    assert line == f"cannot write {tmp_path / 'nowhere' / 'w.pt'} (No such file or directory); free space or name another file"
    damaged = bytearray(file.read_bytes())
    damaged[-5] ^= 4
    (tmp_path / "d.nern").write_bytes(damaged)
    assert "d.nern is damaged" in mistake(capsys, "reconstruct", tmp_path / "d.nern", "-o", tmp_path / "w.pt")
    assert not (tmp_path / "w.pt").exists()


# -- resuming --------------------------------------------------------------------------------------------------------


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


# -- what config refuses ---------------------------------------------------------------------------------------------


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
        (found,) = refused(capsys, path, override)
        assert found.startswith(line), found


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
