"""The results that the paper reports (Ashkenazi et al. 2023), by preset, and the row of the paper that a run reproduces."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import resources
from typing import Any

import attrs
import yaml

from nern.config.loading import load_experiment
from nern.config.sources import presets
from nern.config.structuring import unstructure
from nern.errors import NernError
from nern.registry.registry import Registry
from nern.run.folder import FREE


@attrs.frozen
class PaperRow:
    """A row of one of the paper's tables."""

    preset: str  # the shipped experiment of this row
    table: str  # title of the table
    value: str  # reconstructed top-1 % as the paper gives it
    original: float | None  # top-1 % of the paper's original network


@functools.cache
def tables() -> list[dict[str, Any]]:
    """The tables of `paper.yaml`: title, family of presets, originals, and rows."""
    read: list[dict[str, Any]] = yaml.safe_load(resources.files(__package__).joinpath("paper.yaml").read_text(encoding="utf-8"))
    return read


def paper_row(config: Mapping[str, Any], registry: Registry) -> PaperRow | None:
    """The row of the paper that a resolved configuration belongs to, or None.

    Seeds, devices, paths and how often a run was measured make no difference. A row's fast recipe counts as the row. Of several
    equal rows, the first one is returned.
    """
    known = presets()
    for table in tables():
        for row, value in table["rows"].items():
            name = f"{table['family']}/{row}"
            for preset in (name, f"{name}-fast"):
                if preset in known and _may_be(config, known.values_of(preset)) and _same(config, _resolved(preset, registry)):
                    original = next((top1 for network, top1 in table["original"].items() if row.startswith(network)), None)
                    if original is None and len(table["original"]) == 1:
                        (original,) = table["original"].values()
                    return PaperRow(preset, table["title"], str(value), original)
    return None


def _may_be(config: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    """A quick test whether a preset can have this configuration, since resolving every preset would take seconds."""
    same_task = config["task"]["name"].rpartition(":")[2] == values["task"]["name"]
    return bool(same_task and config["predictor"].get("hidden") == values["predictor"]["hidden"])


def _resolved(preset: str, registry: Registry) -> dict[str, Any] | None:
    try:
        values: dict[str, Any] = unstructure(*load_experiment(preset, registry=registry))
    except NernError:  # the preset needs a plugin that was left out, so it cannot be this run
        return None
    return values


def _same(config: Mapping[str, Any], other: Mapping[str, Any] | None) -> bool:
    return other is not None and _recipe(config) == _recipe(other)


def _recipe(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without the values that make no difference to its row."""
    recipe = {key: value for key, value in config.items() if key not in {*FREE, "seed", "task", "architecture"}}
    recipe["task"] = {key: value for key, value in config["task"].items() if key not in ("root", "download")}
    recipe["architecture"] = {key: value for key, value in config["architecture"].items() if key != "weights"}
    return recipe
