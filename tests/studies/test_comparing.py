"""Files and runs beside what they have to beat."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import nern
from nern import ConfigError, Engine, Score
from nern.cli.main import run
from nern.studies import baselines as module
from nern.studies import figures
from nern.studies.baselines import baselines, palette_of
from nern.studies.comparing import Entry, Table, compare, trained_integers
from nern.studies.opening import OpenRepresentation, open_representation
from tests.helpers import experiment, network


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compared")
    values: dict[str, Any] = experiment(folder / "run")
    for phase in values["phases"]:
        phase["iterations"] = 2
    (folder / "run.yaml").write_text(yaml.safe_dump({**values, "observers": None}))
    Engine.from_yaml(folder / "run.yaml").fit()
    return Path(values["output"])


@pytest.fixture(scope="module")
def opened(finished: Path) -> OpenRepresentation:
    return open_representation(finished)


@pytest.mark.parametrize("name", ["int8", "int3", "0.1 σ", "palette of 16"])
def test_a_baseline_comes_out_of_its_file_as_it_was_rounded(opened: OpenRepresentation, tmp_path: Path, name: str) -> None:
    (baseline,) = [candidate for candidate in baselines(opened) if candidate.name == name]
    baseline.write(tmp_path / "file")
    rebuilt, original = baseline.read(tmp_path / "file"), network()
    absorbed = module._Source(opened).network  # batch norms are part of the kernels
    images = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(absorbed(images), original(images), rtol=1e-4, atol=1e-4)
    for parameter in ("conv1.weight", "layer2.0.conv2.weight", "linear.weight"):
        weight, rounded = absorbed.state_dict()[parameter], rebuilt.state_dict()[parameter]
        values = weight.flatten(1)
        if name.startswith("int"):
            step = values.abs().amax(1, keepdim=True) / (2 ** (int(name[3:]) - 1) - 1)
        elif name == "0.1 σ":
            step = torch.full((len(values), 1), 0.1 * float(values.std(unbiased=False)))
        else:
            palette, numbers = palette_of(weight)
            assert torch.equal(rounded.reshape(-1), palette[numbers])
            assert len(rounded.unique()) <= 16
            continue
        assert float(((rounded.flatten(1) - values).abs() / step).max()) < 0.5 * 1.02 + 127 * 0.0152  # steps lie on a grid of 3 %
        assert float((rounded - weight).norm() / weight.norm()) < {"int8": 0.02, "int3": 0.35, "0.1 σ": 0.05}[name]


def test_the_palette_is_that_of_even_values_and_never_further_than_they_are() -> None:
    weight = torch.linspace(-1, 1, 1600)
    palette, numbers = palette_of(weight)
    assert len(set(numbers.tolist())) == 16
    assert float((palette[numbers] - weight).abs().max()) <= 1 / 15


def test_the_command_measures_writes_and_says_who_wins(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "WIDTHS", (8, 3))
    monkeypatch.setattr(module, "STEPS", (0.2,))
    folder = tmp_path / "table"
    assert run(["compare", str(finished), "-o", str(folder), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["folder"] == str(folder)
    rows = {row["name"]: row for row in printed["rows"]}
    assert list(rows) == ["original", *sorted(list(rows)[1:], key=lambda name: -rows[name]["bytes"])]
    assert set(rows) == {"original", "run", "int8", "int3", "0.2 σ", "palette of 16"}
    for name, row in rows.items():
        if name != "original":
            assert Path(row["file"]).stat().st_size == row["bytes"]
            assert row["difference"] == pytest.approx(row["top1"] - rows["original"]["top1"])
    assert rows["int8"]["seconds"] > 0
    assert nern.load(folder / "int3.nern").sha256 == nern.load(finished / "model.nern").sha256
    with (folder / "compare.csv").open(encoding="utf-8") as file:
        assert [row["name"] for row in csv.DictReader(file)] == list(rows)
    (verdict,) = printed["verdicts"]
    rivals = [row for name, row in rows.items() if name not in ("original", "run") and row["bytes"] <= rows["run"]["bytes"]]
    if rivals:
        assert ("does not win" in verdict) == (max(row["top1"] for row in rivals) >= rows["run"]["top1"])
    assert (folder / "compare.md").read_text(encoding="utf-8").count("\n| ") == len(rows) + 1
    figures.comparison(json.loads((folder / "compare.json").read_text()))
    assert (folder / "compare.svg").exists() == (folder / "compare.png").exists()


def test_verdicts_compare_with_baselines_of_no_more_bytes() -> None:
    def entry(family: str, name: str, size: int, top1: float) -> Entry:
        return Entry(family, name, size, Score(10, {"top1": top1}), None, None, None, "")

    others = [entry("rounding", "a", 90, 80.0), entry("rounding", "b", 100, 85.0), entry("rounding", "c", 101, 99.0)]
    table = Table(
        Score(10, {"top1": 100.0}), 1000, [entry("representation", "x", 100, 86.0), entry("representation", "y", 95, 80.0), *others]
    )
    assert "x: top1 86.00 in 100 bytes wins over 'b'" in table.verdicts()[0]
    assert "does not win: 'a'" in table.verdicts()[1]
    smallest = Table(Score(10, {"top1": 100.0}), 1000, [entry("representation", "x", 5, 86.0), *others])
    assert "no baseline is as small: 'a' takes 90 bytes" in smallest.verdicts()[0]


def test_integers_can_be_trained_as_the_run_was(finished: Path, tmp_path: Path) -> None:
    engine = Engine.from_run(finished)
    file = trained_integers(engine, 3, tmp_path / "int3")
    loaded = nern.load(file)
    assert loaded.representation.storage.name == "int3"
    weight = loaded.reconstruct().state_dict()["layer1.0.conv1.weight"]
    assert all(len(row.unique()) <= 7 for row in weight.flatten(1))
    assert trained_integers(engine, 3, tmp_path / "int3") == file  # what is trained is not trained again


def test_what_cannot_be_compared_is_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"architecture\.weights=FILE"):
        compare([finished / "model.nern"], tmp_path)
    with pytest.raises(ConfigError, match=r"needs a run directory"):
        compare([finished / "model.nern"], tmp_path, train_baselines=True)
    assert run(["compare", "a=b"]) == 2
