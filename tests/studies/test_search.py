"""Random and proposed settings: what they draw from, that they are the same again, and that they learn."""

from __future__ import annotations

import json
import math

import pytest

from nern.errors import ConfigError
from nern.studies.search import OptunaSearch, RandomSearch, Range
from nern.studies.sweep import parse_grid, sweep
from tests.studies.test_launchers import QUICK, Here


def test_ranges_are_read_from_overrides():
    axes, single = parse_grid(["optimizer.lr=log(1e-4..1e-2)", "predictor.hidden=16..64", "mix=0.0..1", "name=a..b", "x=1,2"])
    assert axes == {"optimizer.lr": Range(1e-4, 1e-2, True), "predictor.hidden": Range(16, 64), "mix": Range(0.0, 1), "x": [1, 2]}
    assert single == {"name": "a..b"}
    for text, message in (
        ("lr=2..1", "the first bound must be below the second"),
        ("lr=log(0..1)", "the first bound must be below the second and above 0"),
        ("lr=1e..2", "the bounds of a range are two numbers"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse_grid([text])


def test_random_settings_fill_their_ranges_and_are_the_same_again():
    axes = {"lr": Range(1e-4, 1e-2, True), "hidden": Range(3, 6), "kind": ["a", "b"], "mix": Range(0.0, 2.0)}
    drawn = list(RandomSearch(axes, 400).settings())
    assert drawn == list(RandomSearch(axes, 400).settings())
    assert drawn[:7] == list(RandomSearch(axes, 7).settings())  # a larger budget goes on
    assert {setting["hidden"] for setting in drawn} == {3, 4, 5, 6}
    assert all(1e-4 <= setting["lr"] <= 1e-2 and 0 <= setting["mix"] <= 2 for setting in drawn)
    # by their definition: half of the values lie below the geometric mean of the bounds; 400 draws are within 5 σ of it
    assert abs(sum(setting["lr"] < 1e-3 for setting in drawn) - 200) < 5 * math.sqrt(100)
    assert abs(sum(setting["mix"] < 1.0 for setting in drawn) - 200) < 5 * math.sqrt(100)
    few = list(RandomSearch({"kind": ["a", "b"], "seed": [1, 2]}, 50).settings())
    assert len(few) == 4
    assert len({repr(setting) for setting in few}) == 4


def test_optuna_learns_and_resumes_from_what_it_proposed(tmp_path):
    pytest.importorskip("optuna", reason='needs optuna: pip install "nern[optuna]"')
    axes = {"x": Range(-1.0, 1.0), "kind": [[0, 1], None]}

    def worth(setting):
        return -((setting["x"] - 0.25) ** 2) - (setting["kind"] is None)

    def work(search, most=None):
        seen = []
        for setting in search.settings():
            seen.append(setting)
            if most == len(seen):
                return seen
            search.tell(setting, worth(setting))
        return seen

    first = work(OptunaSearch(axes, 40, tmp_path), most=15)
    every = work(OptunaSearch(axes, 40, tmp_path))
    assert every[:15] == first  # also the one that was proposed and not measured
    assert len(every) == len({repr(setting) for setting in every}) == 40
    assert json.loads((tmp_path / "search.json").read_text())["proposed"] == every
    late = [worth(setting) for setting in every[25:]]
    early = [worth(setting) for setting in every[:10]]
    assert sum(late) / len(late) > sum(early) / len(early)
    assert abs(max(every, key=worth)["x"] - 0.25) < 0.1
    assert max(every, key=worth)["kind"] == [0, 1]
    with pytest.raises(ConfigError, match="holds a search over other values"):
        OptunaSearch({"x": Range(-1.0, 2.0)}, 40, tmp_path)


def test_a_search_over_runs_tells_held_out_figures_and_resumes(tmp_path):
    pytest.importorskip("optuna", reason='needs optuna: pip install "nern[optuna]"')
    settings = {**QUICK, "output": str(tmp_path)}
    axes = {"predictor.hidden": Range(3, 9), "seed": [0, 1]}
    options = {"sampler": "optuna", "launcher": Here()}
    table, folder = sweep("digits", axes, settings, budget=2, **options)
    assert table.objective == "kl"  # what chooses among checkpoints
    assert len(table.runs) == 4
    for row in table.runs:
        result = json.loads((folder / row["run"] / "result.json").read_text())
        assert row["objective"] == result["checkpoints"]["chosen"]["heldout"]["kl"]
    for setting in table.settings:
        values = [row["objective"] for row in table.runs if row["values"]["predictor.hidden"] == setting.values["predictor.hidden"]]
        assert setting.figures["objective"].mean == pytest.approx(sum(values) / 2)
    lines: list[str] = []
    longer, _ = sweep("digits", axes, settings, budget=3, report=lines.append, **options)
    assert longer.runs[:4] == table.runs
    assert sum("(was there)" in line for line in lines) == 4
    assert len(longer.runs) == 6


def test_objectives_and_budgets_that_mean_nothing_are_refused(tmp_path):
    settings = {**QUICK, "output": str(tmp_path)}
    axes = {"seed": [0], "predictor.hidden": [4, 5]}
    for options, message in (
        ({"objective": "reconstructed_top1"}, "the test set chooses nothing"),
        ({"objective": "kll"}, "there is no such figure, did you mean 'kl'?"),
        ({"budget": 3}, "a grid tries every combination"),
        ({"sampler": "random"}, "needs --budget N"),
        ({"sampler": "rundom", "budget": 1}, "there is no such sampler"),
    ):
        with pytest.raises(ConfigError, match=message):
            sweep("digits", axes, settings, launcher=Here(), **options)
    with pytest.raises(ConfigError, match="a grid needs single values"):
        sweep("digits", {"predictor.hidden": Range(3, 9)}, settings, launcher=Here())
    with pytest.raises(ConfigError, match="seeds are not searched"):
        sweep("digits", {"seed": Range(0, 9)}, settings, launcher=Here(), sampler="random", budget=2)
    assert not list(tmp_path.glob("*/config.yaml"))


def test_a_setting_that_is_no_experiment_is_a_row_that_failed(tmp_path):
    lines: list[str] = []
    table, _ = sweep(
        "digits", {"predictor.hidden": [4, 0]}, {**QUICK, "output": str(tmp_path)},
        launcher=Here(), sampler="random", budget=2, objective="total_bytes", report=lines.append,
    )  # fmt: skip
    assert len(table.failures) == 1
    assert "predictor.hidden: must be >= 1, got 0" in table.failures[0]
    assert [row["objective"] for row in table.runs if row["failed"] is None] == [
        row["total_bytes"] for row in table.runs if row["failed"] is None
    ]
