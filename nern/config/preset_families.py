"""Families of experiments: the rows of a table, each a base experiment with some values set."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Any

import attrs

from nern.errors import ConfigError

_PLACEHOLDER = re.compile(r"\{([\w.]+)\}")
_KEYS = {"extends", "set", "over", "cases", "fast"}


@attrs.frozen
class Row:
    """An experiment that differs from another one by some values."""

    extends: str  # name of the base experiment
    overrides: dict[str, Any]  # dotted paths to values
    summary: str


def rows(family: str, title: str, values: Mapping[str, Any]) -> dict[str, Row]:
    """The rows of a family file by name, `family/row`.

    Each entry of `rows` has a name with placeholders, such as `resnet20-{predictor.hidden}`, and these keys: `extends` (the base),
    `set` (values of every row, which may be placeholders), and `over` (lists whose every combination is a row) or `cases` (one
    mapping per row). The key `fast` has base and values of a second row, `family/row-fast`, which takes minutes.

    Raises:
        ConfigError: an entry has an unknown key, or two rows have the same name.
    """
    named: dict[str, Row] = {}
    for template, entry in values["rows"].items():
        unknown = set(entry) - _KEYS
        if unknown or "extends" not in entry:
            raise ConfigError(f"preset family {family}, row {template}: needs 'extends' and knows {', '.join(sorted(_KEYS))}")
        for case in [*entry.get("cases", []), *_combinations(entry.get("over"), bool(entry.get("cases")))]:
            name = f"{family}/{_filled(template, case)}"
            recipes = {name: entry, **({f"{name}-fast": entry["fast"]} if "fast" in entry else {})}
            for label, recipe in recipes.items():
                if label in named:
                    raise ConfigError(f"preset family {family}: two rows are called {label}")
                overrides = {**case, **{key: _filled(value, case) for key, value in recipe.get("set", {}).items()}}
                settings = " ".join(f"{key}={spelled(value)}" for key, value in overrides.items())
                named[label] = Row(recipe["extends"], overrides, f"{title}: {recipe['extends']} {settings}".rstrip())
    return named


def spelled(value: Any) -> str:
    """A value as text, for names and commands."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {spelled(item)}" for key, item in value.items()) + "}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _filled(value: Any, case: Mapping[str, Any]) -> Any:
    """`value` with its placeholders replaced; a text that is nothing but one placeholder becomes the value itself, with its type."""
    if not isinstance(value, str):
        return value
    whole = _PLACEHOLDER.fullmatch(value)
    return case[whole[1]] if whole else _PLACEHOLDER.sub(lambda match: spelled(case[match[1]]), value)


def _combinations(over: Mapping[str, list[Any]] | None, has_cases: bool) -> list[dict[str, Any]]:
    if over is None:
        return [] if has_cases else [{}]
    return [dict(zip(over, chosen, strict=True)) for chosen in itertools.product(*over.values())]
