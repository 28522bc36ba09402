"""Dotted overrides, `key.sub=value`, and how they change nested dictionaries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nern.config.yaml_reading import read_yaml
from nern.errors import ConfigError
from nern.options import kind_of
from nern.registry.kinds import HOOKS
from nern.support.messages import shortened

LEVELS = 20  # most parts of a dotted path; the longest valid one has five


def parse_override(text: str) -> tuple[str, Any]:
    """The path and the value of an override `key.sub=value`; the value is read as YAML.

    Raises:
        ConfigError: the text has no equals sign or no path, or the value is not YAML.
    """
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise ConfigError(f"override '{text}' must look like key.sub=value")
    return path.strip(), read_yaml(value, f"override {shortened(path)}")


def apply_overrides(values: dict[str, Any], overrides: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `values` with every dotted path set; a list is entered by position or name (`phases.0.iterations`).

    Null at an entry of a list removes it (`phases.distillation=null`). Giving a component another `name` drops the
    options that belonged to the old one, unless they are overridden too.
    """
    values = copied(values)
    for path in overrides:
        if not isinstance(path, str) or path.count(".") > LEVELS:
            raise ConfigError(
                f"override {shortened(path)}: the path to a value is text of at most {LEVELS} parts, such as predictor.hidden"
            )
    # Shorter paths first: a section must be set before its entries
    for path in sorted(overrides, key=lambda path: (path.count("."), not path.endswith(".name"))):
        _set(values, path, overrides[path], defaults)
    return values


def _set(values: Any, path: str, value: Any, defaults: Mapping[str, Any]) -> None:
    *parents, last = path.split(".")
    for depth, key in enumerate(parents):
        if isinstance(values, dict):
            if isinstance(values.get(key), str) and key in HOOKS:  # `predictor: mlp` is short for {name: mlp}
                values[key] = {"name": values[key]}
            if values.get(key) is None:  # a missing section starts from its defaults; a section that null switched off starts empty
                values[key] = copied(defaults.get(key, {})) if depth == 0 and key not in values else {}
            values = values[key]
        elif isinstance(values, list):
            values = values[_position(values, key, path)]
        else:
            raise ConfigError(f"{path}: '{'.'.join(parents[:depth])}' is {kind_of(values)} and has no '{key}'")
    if isinstance(values, list) and value is None:
        del values[_position(values, last, path)]
    elif isinstance(values, list):
        values[_position(values, last, path)] = value
    elif isinstance(values, dict):
        if last == "name" and value != values.get("name") and parents and parents[-1] in HOOKS:
            kept = {"weights"} if parents[-1] == "architecture" else {"root"} if parents[-1] == "task" else set()
            for key in set(values) - kept:
                del values[key]
        values[last] = value
    else:
        raise ConfigError(f"{path}: '{'.'.join(parents)}' is {kind_of(values)} and has no '{last}'")


def refuse_without_effect(values: Mapping[str, Any], overrides: Mapping[str, Any], place: str = "override ") -> None:
    """Refuse an override of a section that every phase of the experiment replaces by its own.

    Raises:
        ConfigError: names the path that would have an effect.
    """
    phases = values.get("phases")
    if not isinstance(phases, list) or not phases or not all(isinstance(phase, dict) for phase in phases):
        return
    for path in overrides:
        section, dot, rest = path.partition(".")
        if section in ("sampler", "optimizer", "losses") and all(phase.get(section) is not None for phase in phases):
            names = [str(phase.get("name", index)) for index, phase in enumerate(phases)]
            ways = " or ".join(f"phases.{name}.{section}{dot}{rest}" for name in dict.fromkeys(names))
            raise ConfigError(f"{place}{path} has no effect, because every phase has its own {section}; set {ways}")


def _position(values: list[Any], key: str, path: str) -> int:
    names = [item.get("name") if isinstance(item, dict) else None for item in values]
    if key in names:
        return names.index(key)
    if key.isascii() and key.isdigit() and len(key) < 10 and int(key) < len(values):
        return int(key)
    known = ", ".join([f"0 to {len(values) - 1}", *filter(None, names)])
    raise ConfigError(f"{path}: the list has no entry '{key}' (there are: {known})")


def copied(value: Any) -> Any:
    """A copy of nested dictionaries and lists."""
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, list) else value
