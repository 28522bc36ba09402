from __future__ import annotations

import pytest

from nern.config.preset_families import rows, spelled
from nern.errors import ConfigError


def test_every_combination_is_a_row_and_has_a_fast_one():
    table = rows(
        "t",
        "Title",
        {
            "rows": {
                "{b.c}-{a}": {
                    "extends": "base",
                    "over": {"a": [1, 2], "b.c": ["x", 1e-6]},
                    "set": {"d": None, "e.name": "{b.c}"},
                    "fast": {"extends": "quick", "set": {"f": "is {a}"}},
                }
            }
        },
    )
    assert sorted(table) == ["t/1e-06-1", "t/1e-06-1-fast", "t/1e-06-2", "t/1e-06-2-fast", "t/x-1", "t/x-1-fast", "t/x-2", "t/x-2-fast"]
    assert table["t/x-2"].extends == "base"
    assert table["t/x-2"].overrides == {"a": 2, "b.c": "x", "d": None, "e.name": "x"}
    assert table["t/1e-06-1"].overrides["e.name"] == 1e-6  # the value itself, not its name
    assert table["t/x-2-fast"].extends == "quick"
    assert table["t/x-2-fast"].overrides == {"a": 2, "b.c": "x", "f": "is 2"}
    assert table["t/x-2"].summary == "Title: base a=2 b.c=x d=null e.name=x"


def test_cases_are_rows_and_a_family_may_vary_nothing():
    table = rows("t", "T", {"rows": {"{a}": {"extends": "b", "cases": [{"a": 3}, {"a": 5}]}, "plain": {"extends": "b", "set": {"z": 1}}}})
    assert {name: row.overrides for name, row in table.items()} == {"t/3": {"a": 3}, "t/5": {"a": 5}, "t/plain": {"z": 1}}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"x": {"extends": "b", "sett": {}}}, "preset family t, row x: needs 'extends' and knows cases, extends, fast, over, set"),
        ({"x": {"set": {}}}, "preset family t, row x: needs 'extends' and knows cases, extends, fast, over, set"),
        ({"x": {"extends": "b", "over": {"a": [1, 2]}}}, "preset family t: two rows are called t/x"),
    ],
)
def test_a_family_that_is_wrong_says_where(entries, message):
    with pytest.raises(ConfigError) as error:
        rows("t", "T", {"rows": entries})
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "null"), (True, "true"), (1e-6, "1e-06"), (0.5, "0.5"), (3, "3"), ({"weight": 1.0, "x": None}, "{weight: 1, x: null}")],
)
def test_values_are_spelled_as_yaml(value, text):
    assert spelled(value) == text
