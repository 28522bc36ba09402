"""Words, weights and data folders that cannot serve: one line says what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.cli.mistakes import QUICK, Capture, mistake
from tests.helpers import command_line, network, weights_file, write_experiment


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
