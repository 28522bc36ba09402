"""Recipes: experiments without a network and data."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import resources
from typing import Any

from nern.config.overrides import apply_overrides, copied
from nern.config.yaml_reading import read_yaml
from nern.errors import ConfigError
from nern.registry.kinds import with_own_names
from nern.support.messages import did_you_mean


def recipe(name: Any) -> dict[str, Any]:
    """The sections of a shipped recipe, such as `fast`.

    Raises:
        ConfigError: there is no recipe of this name.
    """
    if not isinstance(name, str) or name not in recipes():
        there = recipes()
        raise ConfigError(f"recipe: there is no recipe '{name}'" + did_you_mean(str(name), there) + f" (there are: {', '.join(there)})")
    return copied(_recipe(name))  # type: ignore[no-any-return]


@functools.cache
def _recipe(name: str) -> dict[str, Any]:
    return with_own_names(expanded(read_yaml(recipes()[name], f"recipe {name}")))  # type: ignore[no-any-return]


@functools.cache
def recipes() -> Mapping[str, str]:
    """The YAML texts of the shipped recipes, by name; each begins with a comment on what the recipe is for."""
    files = [file for file in resources.files("nern").joinpath("presets", "recipes").iterdir() if file.name.endswith(".yaml")]
    return {file.name.removesuffix(".yaml"): file.read_text(encoding="utf-8") for file in sorted(files, key=lambda file: file.name)}


def expanded(values: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration in which the recipe that `recipe` or `phases` names is replaced by its content.

    The sections that the configuration writes itself replace those of the recipe; `set` changes single values of the
    result by their dotted paths.

    Raises:
        ConfigError: there is no recipe of such a name, or `set` is no mapping.
    """
    own = {key: copied(value) for key, value in values.items() if key not in ("recipe", "set")}
    if "recipe" in values:
        own = {**recipe(values["recipe"]), **own}
    if isinstance(own.get("phases"), str):
        own["phases"] = recipe(own["phases"])["phases"]
    changes = values.get("set") or {}
    if not isinstance(changes, Mapping):
        raise ConfigError("'set' is a mapping of dotted paths to values")
    return overridden(own, changes, {}) if changes else own


def overridden(values: Mapping[str, Any], overrides: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Like `apply_overrides`; in addition, `recipe=NAME` replaces all sections of that recipe, and `phases=NAME` the phases."""
    values, overrides = dict(values), dict(overrides)
    if "recipe" in overrides:
        values.update(recipe(overrides.pop("recipe")))
    if isinstance(overrides.get("phases"), str):
        overrides["phases"] = recipe(overrides["phases"])["phases"]
    return apply_overrides(values, overrides, defaults)
