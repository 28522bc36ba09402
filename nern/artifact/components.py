"""Makes components from the options in a file by attrs alone: reading a file needs no library that reads configurations."""

from __future__ import annotations

import contextlib
import types
import typing
from collections.abc import Mapping
from typing import Any

from nern.errors import ConfigError, NernError, OptionError
from nern.options import kind_of, option_fields, option_name, type_name
from nern.registry.registry import Registry
from nern.support.contracts import refusal_of
from nern.support.messages import shortened, some


def component(kind: str, values: Mapping[str, Any], registry: Registry) -> Any:
    """Make a component of an extension point from its name and options, such as `{"name": "mlp", "hidden": 160}`.

    Options that are components themselves are left to `nern.config.structuring`.

    Raises:
        ConfigError: the component has no such options, or an option has an impossible value.
        PluginError: no plugin offers the name.
    """
    if any(isinstance(value, Mapping) for value in values.values()):
        from nern.config.structuring import structure_component

        return structure_component(kind, values, registry, kind)
    if not isinstance(values.get("name"), str):
        raise ConfigError(f"{kind} has no name")
    options = {key: value for key, value in values.items() if key != "name"}
    cls = registry.find(kind, values["name"]).cls
    fields = {option_name(field): field for field in option_fields(cls)}
    unknown = [name for name in options if name not in fields]
    if unknown:
        raise ConfigError(f"{kind} '{values['name']}' has no option {some(unknown)}; a newer version of its package may have it")
    hints = typing.get_type_hints(cls)
    try:
        return cls(**{name: _fitting(f"{kind}.{name}", value, hints[fields[name].name]) for name, value in options.items()})
    except OptionError as error:
        raise ConfigError(f"{kind}: {error.name}: {error.problem}") from error
    except NernError:
        raise
    except (Exception, SystemExit) as error:
        refusal = refusal_of(cls, error)
        raise ConfigError(f"{kind} '{values['name']}': {shortened(error)}" if refusal is error else str(refusal)) from error


def _fitting(place: str, value: Any, hint: Any) -> Any:
    """Convert a value from JSON to the type of an option: JSON has lists for tuples, and may have integers for whole floats.

    Raises:
        ConfigError: the value is of another type.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal and any(value == choice and type(value) is type(choice) for choice in arguments):
        return value
    if origin in (typing.Union, types.UnionType):
        for member in arguments:
            with contextlib.suppress(ConfigError):
                return _fitting(place, value, member)
    if origin in (list, tuple) and isinstance(value, list):
        members = [item for item in arguments if item is not Ellipsis] or [Any]
        return origin(_fitting(place, item, members[min(index, len(members) - 1)]) for index, item in enumerate(value))
    if hint is float and type(value) in (int, float) and abs(value) < 1e300:
        return float(value)
    if hint is int and type(value) is int and abs(value) < 1 << 63:
        return value
    if hint in (str, bool, type(None)) and type(value) is hint:
        return value
    if origin is None and hint not in (float, int, str, bool, type(None)):  # the type belongs to a plugin, which checks the value itself
        return value
    raise ConfigError(f"{place} must be {type_name(hint)}, got {kind_of(value)}")
