"""Targets: bytes that are hit, and drops that are found by short runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import nern
from nern.errors import ConfigError, OptionError
from nern.run.own_network import OwnNetwork
from tests.own.test_represent import SHORT, cnn, images

CODED = {"phases.distillation.iterations": 150, "phases.distillation.batch": 8, "observers": {}}


@pytest.mark.parametrize(("recipe", "asked", "overrides"), [("fast", 60_000, SHORT), ("small", 22_000, CODED)])
def test_bytes_are_hit_within_five_per_cent(recipe: str, asked: int, overrides: dict[str, Any], tmp_path: Path) -> None:
    model = nn.Sequential(*list(cnn())[:4], nn.Flatten(), nn.Linear(288, 64), nn.ReLU(), nn.Linear(64, 4))
    target = nern.TargetBytes(asked)
    result = nern.represent(model, images(), recipe=recipe, target=target, overrides=overrides, output=tmp_path / "run", quiet=True)
    assert 0.95 * asked <= (tmp_path / "run" / "model.nern").stat().st_size <= asked * (1.0 if recipe == "fast" else 1.05)
    assert target.verdict(result) == f"asked for {asked:,} bytes, reached {result.bytes.total:,}"


def test_bytes_that_cannot_be_reached_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nern.represent(cnn(), images(), target=nern.TargetBytes(10), overrides=SHORT, output=tmp_path / "run")
    said = capsys.readouterr().err
    assert "10 bytes cannot be reached: the smallest file of this recipe has" in said
    assert "the nearest that this recipe gives" in said


@pytest.mark.parametrize("recipe", ["fast", "small"])
def test_more_bytes_than_the_network_has_are_not_looked_for(recipe: str, tmp_path: Path) -> None:
    model = cnn()
    own = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    experiment, registry = OwnNetwork(model, images(), recipe=recipe).experiment({"observers": {}}, output=tmp_path / "run")
    said: list[str] = []
    chosen = nern.TargetBytes(5_000_000_000).experiment(experiment, registry, said.append)
    assert said[0] == f"5,000,000,000 bytes are more than the network's own weights take, {own:,}: the file gets at most these"
    if recipe == "small":
        assert chosen.bytes == own
    else:
        assert chosen == nern.TargetBytes(own).experiment(experiment, registry, said.append)


def test_a_target_above_the_networks_size_ends_below_it(tmp_path: Path) -> None:
    model = nn.Sequential(*list(cnn())[:4], nn.Flatten(), nn.Linear(288, 64), nn.ReLU(), nn.Linear(64, 4))
    target = nern.TargetBytes(1_000_000)
    result = nern.represent(model, images(), target=target, overrides=SHORT, output=tmp_path / "run", quiet=True)
    assert result.bytes.total < result.bytes.original
    reached = f"asked for 1,000,000 bytes, reached {result.bytes.total:,}"
    assert target.verdict(result) == f"{reached}; the network itself takes {result.bytes.original:,}"


def test_a_drop_is_found_by_short_runs_on_held_out_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    longer = {**SHORT, "phases.reconstruction.iterations": 60, "phases.distillation.iterations": 40}
    result = nern.represent(
        cnn(), images(120), target=nern.TargetDrop(points=60.0, runs=2, part=0.1), overrides=longer, output=tmp_path / "run"
    )
    said = capsys.readouterr().err
    tried = sorted(int(folder.name) for folder in (tmp_path / "run" / "sizes").iterdir())
    assert 1 <= len(tried) <= 2
    assert "the hidden size is found by at most 2 short runs, each of 10% of the steps" in said
    assert all(f"hidden size {hidden}: top1 is " in said for hidden in tried)
    assert result.drop is not None
    how = f"{abs(result.drop):.3g} {'worse' if result.drop > 0 else 'better'}"
    assert f"asked for top1 at most 60 worse than the original's; on the test examples it is {how}" in said


def test_too_few_bytes_are_no_end_of_the_search(tmp_path: Path) -> None:
    short = {"phases.distillation.iterations": 2, "phases.distillation.batch": 8, "curvature_batches": 2, "observers": {}}
    experiment, registry = OwnNetwork(cnn(), images(), recipe="small").experiment(short, output=tmp_path / "run")
    said: list[str] = []
    chosen = nern.TargetDrop(points=100.0, runs=4).experiment(experiment, registry, said.append)
    assert "is too small" in said[1]
    assert any("top1 is" in line for line in said[2:])
    assert chosen.bytes is not None


def test_sizes_grow_faster_far_from_the_wanted_drop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a drop of 90 over the hidden size; 3 points are reached at 30."""
    experiment, registry = OwnNetwork(cnn(), images()).experiment({**SHORT, "predictor.hidden": 8}, output=tmp_path / "run")
    monkeypatch.setattr(nern.TargetDrop, "_drop", lambda self, experiment, registry, hidden: ("top1", 90 / hidden))
    said: list[str] = []
    chosen = nern.TargetDrop(points=3.0).experiment(experiment, registry, said.append)
    assert [int(line.split()[2].rstrip(":")) for line in said[1:]] == [8, 16, 22, 30, 26]
    assert chosen.predictor.hidden == 30  # type: ignore[attr-defined]


def test_targets_refuse_what_is_impossible(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="bytes must be > 0, got 0"):
        nern.TargetBytes(0)
    with pytest.raises(OptionError, match="bytes must be a whole number such as 100_000, got '100k'"):
        nern.TargetBytes("100k")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="points must be a finite number above 0, got -1"):
        nern.TargetDrop(points=-1)
    with pytest.raises(OptionError, match=r"runs must be a whole number, got 2\.5"):
        nern.TargetDrop(runs=2.5)  # type: ignore[arg-type]
    torch.manual_seed(0)
    plain = nern.Engine.from_model(cnn(), images(), SHORT, output=tmp_path / "run")
    import attrs

    from nern.own.target import hidden_of

    with pytest.raises(ConfigError, match="has no option 'hidden', by which a target finds the size"):
        hidden_of(attrs.evolve(plain.experiment, predictor=attrs.evolve(plain.experiment.embedding)))
