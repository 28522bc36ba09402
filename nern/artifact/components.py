"""Components from the options that a file holds, with nothing but attrs: reading a file needs no library for configurations."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any

from nern.errors import ConfigError
from nern.options import OptionError, option_fields, option_name
from nern.registry.registry import Registry
from nern.support.messages import some


def component(kind: str, values: Mapping[str, Any], registry: Registry) -> Any:
    """A component of an extension point from its name and options, such as `{"name": "mlp", "hidden": 160}`.

    Options that are components themselves are left to `nern.config.structuring`.

    Raises:
        ConfigError: the component has no such options, or an option has an impossible value.
        PluginError: no plugin offers the name.
    """
    if any(isinstance(value, Mapping) for value in values.values()):
        from nern.config.structuring import structure_component

        return structure_component(kind, values, registry, kind)
    options = {key: value for key, value in values.items() if key != "name"}
    cls = registry.find(kind, values["name"]).cls
    fields = {option_name(field): field for field in option_fields(cls)}
    unknown = [name for name in options if name not in fields]
    if unknown:
        raise ConfigError(f"{kind} '{values['name']}' has no option {some(unknown)}; a newer version of its package may have it")
    hints = typing.get_type_hints(cls)
    try:
        return cls(**{name: _fitting(value, hints[fields[name].name]) for name, value in options.items()})
    except OptionError as error:
        raise ConfigError(f"{kind}: {error.name}: {error.problem}") from error


def _fitting(value: Any, hint: Any) -> Any:
    """A value of JSON as an option of that type has it: tuples are lists in JSON, and whole floats may be integers."""
    if isinstance(value, list) and typing.get_origin(hint) is tuple:
        return tuple(value)
    return float(value) if hint is float and type(value) is int else value
