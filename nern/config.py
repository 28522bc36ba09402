"""Reads an experiment from YAML and dotted overrides; every mistake is named with its path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nern.experiment import DEFAULTS, Experiment, LossTerm, Phase, Pretrain
from nern.registry import Registry, create_registry
from nern.sources import apply_overrides, no_such_preset, parse_override, presets, read_source, read_yaml
from nern.structuring import structure, structure_component, to_yaml, unstructure

__all__ = [
    "DEFAULTS",
    "Experiment",
    "LossTerm",
    "Phase",
    "Pretrain",
    "apply_overrides",
    "load_experiment",
    "no_such_preset",
    "parse_override",
    "presets",
    "read_source",
    "read_yaml",
    "structure",
    "structure_component",
    "to_yaml",
    "unstructure",
]


def load_experiment(
    reference: str | Path, overrides: Mapping[str, Any] | Sequence[str] = (), registry: Registry | None = None, disabled: Sequence[str] = ()
) -> tuple[Experiment, Registry]:
    """Read, override and check an experiment.

    Args:
        reference: a YAML file or the name of a preset.
        overrides: dotted paths to values, or strings `key.sub=value`.
        registry: where components come from; by default built-ins, installed plugins and those the file names.
        disabled: installed plugins to leave out.

    Raises:
        ConfigError: one line for every mistake, with its path.
    """
    source = read_source(reference)
    if not isinstance(overrides, Mapping):
        overrides = dict(parse_override(text) for text in overrides)
    values = apply_overrides(source.values, overrides, DEFAULTS)
    plugins = values.get("plugins") or []
    if registry is None:
        local = [plugin for plugin in plugins if isinstance(plugin, str)] if isinstance(plugins, list) else []
        registry = create_registry(local, folder=source.folder, disabled=disabled)
    if isinstance(values.get("output", "runs/{name}"), str):
        values["output"] = values.get("output", "runs/{name}").replace("{name}", source.name)
    if source.folder and isinstance(plugins, list):
        values["plugins"] = [str(source.folder / p) if isinstance(p, str) and p.endswith(".py") else p for p in plugins]
    return structure(values, registry, source.place), registry
