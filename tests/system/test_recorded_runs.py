"""The runs of `recording` still give the losses, the metrics and the files that were recorded.

Where the environment is that of the recording, every bit has to be the same; elsewhere numbers within a tolerance. This
is a comparison with the code's own output, which no other test makes: it is there to show that code was moved and not
changed. What is right is the business of the other tests.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system import recording
from tests.system.recorded import coverage
from tests.system.recorded.cases import ONLY_WHERE_RECORDED, RUNS, STUDIES
from tests.system.recorded.differences import TOLERANCE, differences, tolerance
from tests.system.recorded.environment import environment

RECORDED = json.loads(recording.FILE.read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def built_ins_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NERN_DISABLE_PLUGINS", "1")


@pytest.fixture(scope="module")
def elsewhere() -> list[str]:
    """What this environment has differently from the one of the recording; empty where bits can be compared."""
    return differences(RECORDED["environment"], environment())


def test_bits_are_compared_here(elsewhere: list[str]) -> None:
    if elsewhere:
        pytest.skip(f"numbers are compared within a tolerance, bits are not: {'; '.join(elsewhere)}")


@pytest.mark.parametrize("name", RUNS)
def test_a_run_gives_what_was_recorded(name: str, tmp_path: Path, elsewhere: list[str]) -> None:
    if elsewhere and name in ONLY_WHERE_RECORDED:
        pytest.skip(f"the arithmetic is the processor's own: {'; '.join(elsewhere)}")
    allowed = tolerance(name) if elsewhere else {}
    assert differences(RECORDED["runs"][name], recording.record(name, tmp_path), **allowed) == []


def test_studies_give_what_was_recorded(tmp_path: Path, elsewhere: list[str]) -> None:
    allowed = TOLERANCE if elsewhere else {}
    assert differences(RECORDED["studies"], recording.record_studies(tmp_path), **allowed) == []


def test_the_resumed_run_was_recorded_as_the_whole_one() -> None:
    whole, resumed = (RECORDED["runs"][name] for name in ("two phases", "two phases, resumed"))
    assert differences(whole, resumed) == []


def test_every_run_was_recorded_and_its_file_holds_what_was_fitted() -> None:
    assert list(RECORDED["runs"]) == list(RUNS)
    assert list(RECORDED["studies"]) == list(STUDIES)
    assert all(run["file holds what was fitted"] for run in RECORDED["runs"].values())


# -- everything is covered -------------------------------------------------------------------------------------------------


def test_every_built_in_component_and_choice_is_in_a_run(tmp_path: Path) -> None:
    used = dict[str, set[tuple[str, ...]]]()
    for number, name in enumerate(RUNS):
        folder = tmp_path / str(number)
        folder.mkdir()
        used[name] = coverage.used(name, folder)
    offered = coverage.offered(folder)
    assert sorted(offered - set.union(*used.values())) == []
    # the comparison can fail: without one run, what only that run has is missed
    without = set.union(*(choices for name, choices in used.items() if name != "float16"))
    assert offered - without >= {("predictor", "skip-mlp"), ("sampler", "layers-in-turn"), ("experiment", "storage", "float16")}


# -- the comparison can fail -----------------------------------------------------------------------------------------------


def leaves(value: Any, *path: Any) -> Iterator[tuple[Any, ...]]:
    """The paths of all numbers, words and hashes."""
    if isinstance(value, (dict, list)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, *path, key)
    else:
        yield path


def changed(whole: Any, path: tuple[Any, ...], change: Any) -> Any:
    """A copy with `change` applied to what is at a path."""
    copied = copy.deepcopy(whole)
    inner = copied
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = change(inner[path[-1]])
    return copied


def smallest(value: Any) -> Any:
    """Another value of the same type, as near as there is."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1 if isinstance(value, int) else math.nextafter(value, math.inf)
    return None if value is not None and value == "" else f"{value or ''}0"


def test_the_smallest_change_of_any_recorded_value_is_refused_where_bits_are_compared() -> None:
    run = RECORDED["runs"]["three phases, noise between"]
    for path in leaves(run):
        assert len(differences(run, changed(run, path, smallest))) == 1, path


def test_a_changed_number_is_refused_where_bits_are_not_compared() -> None:
    run, allowed = RECORDED["runs"]["two phases"], TOLERANCE
    loss = ("metrics", 8, "losses", "kd")
    assert differences(run, changed(run, loss, lambda value: value * 1.0001), **allowed) == []
    (line,) = differences(run, changed(run, loss, lambda value: value * 1.01), **allowed)
    assert line.startswith("metrics[8].losses.kd was 0.")
    for path, change in (
        (("metrics", 3, "iteration"), lambda value: value + 1),
        (("metrics", 3, "losses"), lambda value: {}),
        (("result", "reconstructed_top1"), lambda value: value + 2),
        (("result", "bytes", "predictor"), lambda value: value + 1),
        (("result", "checkpoints", "chosen"), lambda value: None),
    ):
        assert differences(run, changed(run, path, change), **allowed), path


def test_another_seed_is_refused_with_either_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "two phases"
    monkeypatch.setitem(RUNS, name, {"seed": 1})
    now = recording.record(name, tmp_path)
    assert differences(RECORDED["runs"][name], now)
    assert differences(RECORDED["runs"][name], now, **TOLERANCE)
