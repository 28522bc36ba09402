"""Reads an experiment from YAML and dotted overrides; every mistake is reported with its path."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nern.config.defaults import DEFAULTS
from nern.config.experiment import Experiment
from nern.config.overrides import parse_override, refuse_without_effect
from nern.config.recipes import overridden
from nern.config.sources import read_source
from nern.config.structuring import structure
from nern.registry.discovery import create_registry
from nern.registry.registry import Registry
from nern.support.files import expand_path

log = logging.getLogger("nern")


def load_experiment(
    reference: str | Path,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    registry: Registry | None = None,
    disabled: Sequence[str] = (),
    plugins: Sequence[str] = (),
) -> tuple[Experiment, Registry]:
    """Read, override and check an experiment.

    Args:
        reference: a YAML file or the name of a preset.
        overrides: dotted paths to values, or strings `key.sub=value`.
        registry: where components come from; by default built-ins, installed plugins and those the file names.
        disabled: plugins to leave out, by name or package.
        plugins: local plugins besides those that the file names; paths are relative to the working directory.

    Raises:
        ConfigError: one line for every mistake, with its path.
    """
    source = read_source(reference)
    if not isinstance(overrides, Mapping):
        overrides = dict(parse_override(text) for text in overrides)
    values = overridden(source.values, overrides, DEFAULTS)
    refuse_without_effect(values, overrides)
    values["plugins"] = named = _all_plugins(values.get("plugins"), source.folder, plugins)
    if registry is None:
        local = [plugin for plugin in named if isinstance(plugin, str)] if isinstance(named, list) else []
        registry = create_registry(local, folder=source.folder, disabled=disabled)
        for failure in registry.failures:
            if failure.plugin in local:  # the file names the plugin, so the experiment needs it
                log.warning("nern: plugin %s; the run continues without it", failure)
    if isinstance(values.get("output", "runs/{name}"), str):
        values["output"] = values.get("output", "runs/{name}").replace("{name}", source.name)
    return structure(values, registry, source.place), registry


def _all_plugins(named: Any, folder: Path | None, more: Sequence[str]) -> Any:
    """The plugins of a file and the added ones, paths made absolute. A value of a wrong type stays as it is, for the check to report."""
    if named is not None and not isinstance(named, list):
        return named
    place = folder or Path.cwd()
    listed = [str(place / expand_path(plugin)) if isinstance(plugin, str) and plugin.endswith(".py") else plugin for plugin in named or []]
    return listed + [str(Path(expand_path(plugin)).resolve()) if plugin.endswith(".py") else plugin for plugin in more]
