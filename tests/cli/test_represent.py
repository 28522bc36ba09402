"""`nern represent`: networks by reference, images from a folder, targets, and what it says of mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import nern
from nern.cli.main import run
from nern.cli.represent import Size
from nern.networks.state_dicts import read_state_dict
from nern.own.by_reference import network_of, own_network
from nern.registry.discovery import create_registry
from tests.helpers import same
from tests.own.test_represent import NET, SHORT

FAST = [f"{key}={value if value else '{}'}" for key, value in SHORT.items()]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """net.py with a helper beside it, its weights and photographs of two sizes, elsewhere than the working directory."""
    from PIL import Image

    place = tmp_path / "mine"
    place.mkdir()
    (place / "net.py").write_text(NET.replace("beside", "beside_net").replace("Conv2d(1,", "Conv2d(3,"))
    (place / "beside_net.py").write_text("WIDTH = 6\n")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for index in range(20):
        pixels = torch.randint(256, (20 + index % 3, 24, 3), generator=torch.Generator().manual_seed(index), dtype=torch.uint8)
        (place / "photos" / "ab"[index % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.numpy()).save(place / "photos" / "ab"[index % 2] / f"{index}.png")
    torch.manual_seed(0)
    state = {
        "stem.weight": torch.randn(6, 3, 3, 3),
        "stem.bias": torch.zeros(6),
        "head.weight": torch.randn(2, 6),
        "head.bias": torch.zeros(2),
    }
    torch.save(state, place / "net.pth")
    return place


def words(folder: Path, *more: str) -> list[str]:
    return [
        "represent", str(folder / "net.pth"), "--model", f"{folder / 'net.py'}:Net", "--arguments", "classes=2",
        "--images", str(folder / "photos"), "--size", "16", *more,
    ]  # fmt: skip


def test_a_class_in_a_file_with_a_helper_beside_it(folder: Path, capsys: Capture) -> None:
    assert run([*words(folder, "-o", "net.nern", "--run", "tries/first"), *FAST]) == 0
    said = capsys.readouterr().err
    assert "Net: 2 layers with 174 weights are represented" in said
    assert "original network on 2 test examples" in said
    state, original = nern.load("net.nern").state_dict(), read_state_dict(folder / "net.pth")
    assert {name: value.shape for name, value in state.items()} == {name: value.shape for name, value in original.items()}
    assert torch.equal(state["stem.bias"], original["stem.bias"])
    assert run(["evaluate", "tries/first", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["original"]["images"] == 2


def test_every_study_takes_the_run_of_a_class_in_a_file(folder: Path, capsys: Capture) -> None:
    """The file names no code, so what a study writes and reads back is built as the run says."""
    assert run([*words(folder, "--run", "tries/first", "--layers", "convolutions"), *FAST]) == 0
    capsys.readouterr()
    for command in (
        ["compare", "tries/first", "--train-baselines", "-o", "compared"],
        ["prune", "tries/first", "--ratios", "0.5", "-o", "pruned"],
        ["importance", "tries/first", "-o", "importance"],
        ["report", "tries/first", "-o", "report.html"],
    ):
        assert run(command) == 0, capsys.readouterr().err
    rows = json.loads(Path("compared/compare.json").read_text())["rows"]
    assert {"int8", "palette of 16", "int4 trained", "first"} <= {row["name"] for row in rows}


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(folder: Path, capsys: Capture) -> None:
    assert run([*words(folder, "--dry-run", "--json", "--layers", "convolutions"), *FAST]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["represented"] == {"stem.weight": 162}
    assert plan["copied"] == {"stem.bias": 6, "head.weight": 12, "head.bias": 2}
    assert plan["bytes"]["total"] > 0
    assert not Path("runs").exists()
    assert run([*words(folder, "--dry-run", "--drop", "1"), *FAST]) == 0
    said = capsys.readouterr()
    assert "--drop 1: the size is found by short runs, which a dry run leaves out; this is the recipe's own size" in said.out
    assert "in a short run" not in said.err
    assert not Path("runs").exists()


def test_networks_of_libraries_and_noise(folder: Path, capsys: Capture) -> None:
    import timm

    torch.save(timm.create_model("test_resnet", num_classes=3).state_dict(), "timm.pth")
    more = ["--arguments", "classes=3", "--size", "32", "--no-images", "--mean", "0.4,0.5,0.6", "--std", "0.1,0.2,0.3"]
    assert run(["represent", "timm.pth", "--model", "timm:test_resnet", *more, "-o", "timm.nern", "--json", *FAST]) == 0
    assert json.loads(capsys.readouterr().out)["iterations"] == 5
    preprocessing = nern.load("timm.nern").architecture.preprocessing()
    assert (preprocessing.mean, preprocessing.std, preprocessing.size) == ((0.4, 0.5, 0.6), (0.1, 0.2, 0.3), (3, 32, 32))
    torch.save(nern.load("timm.nern").state_dict(), "again.pth")
    assert run(["represent", "again.pth", "--model", "timm:test_resnet", *more, "--dry-run"]) == 0


def test_arguments_of_a_librarys_constructor_are_passed_on(folder: Path, capsys: Capture) -> None:
    import timm

    vit = timm.create_model("test_vit", num_classes=3, patch_size=8, img_size=32)
    torch.save(vit.state_dict(), "vit.pth")
    arguments, registry = {"patch_size": 8, "classes": 3}, create_registry(kinds=("architecture",))
    own = own_network("timm:test_vit", "vit.pth", None, arguments=arguments, size=[32], registry=registry)
    assert same(own.model.state_dict(), vit.state_dict())
    assert own.described is not None
    assert (own.described["arguments"], own.described["classes"]) == ({"patch_size": 8}, 3)  # options of nern stay its own
    fresh = network_of("timm:test_vit", {**arguments, "size": 32}, registry).state_dict()
    assert {name: value.shape for name, value in fresh.items()} == {name: value.shape for name, value in vit.state_dict().items()}
    assert run(["represent", "vit.pth", "--model", "timm:test_vit", "--arguments", "patch_sice=8", "--no-images", "--dry-run"]) == 2
    assert "architecture.arguments: (patch_sice) are refused by the library" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--model": "net.py"}, "model 'net.py' must look like file.py:Class"),
        ({"--model": "nowhere.py:Net"}, "there is no file"),
        ({"--model": "nowhere:Net"}, "cannot import nowhere"),
        ({"--model": "timm:resnet1800"}, "must be the name of a timm model, got 'resnet1800'"),
        ({"--model": "cifar-resnet:twenty"}, "write the depth, such as cifar-resnet:20"),
        ({"--model": "{folder}/net.py:Nett"}, "has no 'Nett', did you mean 'Net'?"),
        ({"--arguments": "klasses=2"}, "cannot be called with these arguments"),
        ({"--arguments": "classes=-1"}, "raised RuntimeError: "),
        ({"--arguments": "classes=-1"}, "net.py, line "),
        ({"--arguments": "classes=-1"}, "it was called with classes=-1"),
        ({"--arguments": "classes=3"}, "head.weight"),
        ({"--images": "nowhere"}, "image folder .*nowhere does not exist"),
        ({"--bytes": "many"}, "'many' is not a number of bytes such as 100k"),
        ({"--bytes": "10k", "--drop": "1"}, "two targets; give one of them"),
        ({"--no-images": None}, "name a folder with --images, or give --no-images"),
        ({"--size": "1.5"}, "--size must be whole numbers"),
        ({"--std": "0"}, "architecture.std: must be above 0, got "),
        ({"--size": "1,99999999,99999999"}, "the network cannot take inputs of 1 × 99999999 × 99999999"),
        ({"--size": "nan"}, "--size must be whole numbers"),
        ({"--bytes": "1e400"}, "'1e400' is not a number of bytes such as 100k"),
        ({"--drop": "nan"}, "--drop must be a finite number above 0, got nan"),
        ({"--steps": "0"}, "steps must be above 0"),
        ({"--steps": "inf"}, "steps must be above 0 and finite, got inf"),
        ({"output=mine": None}, "the run's folder is an option of this command; write --run mine"),
        ({"--recipe": "fats"}, "there is no recipe 'fats', did you mean 'fast'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_mistakes_are_one_line_with_a_way_out(change: dict[str, Any], message: str, folder: Path, capsys: Capture) -> None:
    import re

    given = words(folder)
    for option, value in change.items():
        value = value and value.replace("{folder}", str(folder))
        if option in given and value is not None:
            given[given.index(option) + 1] = value
        else:
            given += [option] if value is None else [option, value]
    assert run([*given, *FAST]) == 2
    said = capsys.readouterr().err
    assert re.search(message.replace("(", r"\(").replace("?", r"\?"), said), said
    assert "Traceback" not in said


@pytest.mark.parametrize(("text", "expected"), [("100k", 100_000), ("1.5MB", 1_500_000), ("64KiB", 65_536), ("20_000", 20_000), ("7b", 7)])
def test_sizes_are_read_with_their_units(text: str, expected: int) -> None:
    assert Size().convert(text, None, None) == expected
