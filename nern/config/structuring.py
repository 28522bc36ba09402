"""Nested dictionaries to checked attrs objects and back; every mistake is named with its path."""

from __future__ import annotations

import contextlib
import math
import operator
import re
import types
import typing
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import attrs
import cattrs
from cattrs.errors import (
    AttributeValidationNote,
    ClassValidationError,
    ForbiddenExtraKeysError,
    IterableValidationError,
    IterableValidationNote,
)

from nern.config.defaults import DEFAULTS
from nern.config.experiment import Experiment, LossTerm, Phase, Pretrain
from nern.config.overrides import copied
from nern.config.yaml_reading import write_yaml
from nern.errors import ConfigError, NernError, OptionError
from nern.interfaces import Observer
from nern.options import article, kind_of, option_fields, option_name, type_name
from nern.outputs.metric import Metric
from nern.registry.blame import refused_at
from nern.registry.kinds import OwnName
from nern.registry.registry import KINDS, Registry
from nern.support.contracts import refusal_of
from nern.support.files import expand_path, unknown_start
from nern.support.messages import did_you_mean, shortened

LARGEST = 1e30  # bound of floating-point options, so that their products with other numbers stay within float32

_CONTROL = re.compile(r"[\x01-\x1f\x7f]")
_INTERFACES = {interface: kind for kind, (_, interface) in KINDS.items()}


def structure(values: Mapping[str, Any], registry: Registry, place: str = "config") -> Experiment:
    """The experiment that nested dictionaries describe.

    Raises:
        ConfigError: one line for every mistake, with its path.
    """
    try:
        return _converter(registry).structure({**copied(DEFAULTS), **_without_null(values)}, Experiment)
    except (ClassValidationError, IterableValidationError) as error:
        problems = list(_problems(error, ""))
    except ValueError as error:
        problems = [str(error)]
    except NernError:
        raise
    except Exception as error:  # values that no check foresees, such as endlessly nested ones or objects of another library
        raise ConfigError(f"{place}: cannot be read as an experiment ({type(error).__name__}: {shortened(error)})") from error
    raise ConfigError("\n".join(f"{place}: {problem}" for problem in problems))


def structure_component(kind: str, values: Mapping[str, Any], registry: Registry, place: str) -> Any:
    """The component that one section describes, such as `{name: mlp, hidden: 160}`.

    Raises:
        ConfigError: one line for every mistake, which begins with `place`.
    """
    try:
        return _converter(registry).structure(values, KINDS[kind][1])
    except (ClassValidationError, IterableValidationError) as error:
        raise ConfigError("\n".join(f"{place}: {problem}" for problem in _problems(error, ""))) from error
    except NernError:
        raise
    except Exception as error:
        raise ConfigError(f"{place}: {shortened(error, 300)}") from error


def unstructure(value: Any, registry: Registry) -> Any:
    """An Experiment or component as nested dictionaries, every default written out."""
    if isinstance(value, LossTerm):
        return {**_named(value.loss, registry), "weight": value.weight, "warmup": value.warmup}
    if isinstance(value, tuple(_INTERFACES)):
        return _named(value, registry)
    if attrs.has(type(value)):
        return {field.name: unstructure(getattr(value, field.name), registry) for field in attrs.fields(type(value))}
    if isinstance(value, dict):
        return {key: unstructure(item, registry) for key, item in value.items()}
    return [unstructure(item, registry) for item in value] if isinstance(value, (list, tuple)) else value


def _named(component: Any, registry: Registry) -> dict[str, Any]:
    options = {option_name(field): unstructure(getattr(component, field.name), registry) for field in option_fields(type(component))}
    return {"name": registry.name_of(component), **options}


def to_yaml(experiment: Experiment, registry: Registry) -> str:
    """The resolved configuration, as a file that gives the same experiment."""
    return write_yaml(unstructure(experiment, registry))


def _without_null(values: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse null for a section that every experiment needs; for the base, the ordering and the observers null means "none"."""
    off = {"base": OwnName("none"), "smoother": OwnName("none"), "observers": {}}
    changed = {key: off[key] if value is None and key in off else value for key, value in values.items()}
    needed = [
        OptionError(key, f"must not be null, leave the key out for the default ({DEFAULTS[key].get('name', ', '.join(DEFAULTS[key]))})")
        for key, value in changed.items()
        if value is None and key in DEFAULTS
    ]
    if needed:
        raise ClassValidationError("", needed, Experiment)
    return changed


def _converter(registry: Registry) -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)
    for primitive in (int, float, bool, str):
        converter.register_structure_hook(primitive, _primitive)
    converter.register_structure_hook_func(_is_optional, lambda value, hint: _optional(converter, value, hint))
    converter.register_structure_hook_func(lambda hint: _origin(hint) is list, lambda value, hint: _list(converter, value, hint))
    converter.register_structure_hook_func(lambda hint: _origin(hint) is tuple, lambda value, hint: tuple(_list(converter, value, hint)))
    converter.register_structure_hook_func(lambda hint: _origin(hint) is Literal, _literal)
    converter.register_structure_hook_func(
        partial(operator.eq, dict[str, str]),
        lambda value, _: {_primitive(key, str): _primitive(item, str) for key, item in _mapping(value).items()},
    )
    for interface, kind in _INTERFACES.items():
        converter.register_structure_hook_func(partial(operator.is_, interface), partial(_component, converter, registry, kind))
    for mapping, kind in ((dict[str, LossTerm], "loss"), (dict[str, Observer], "observer"), (dict[str, Metric], "metric")):
        converter.register_structure_hook_func(partial(operator.eq, mapping), partial(_by_name, converter, registry, kind))
    for section in (Phase, Pretrain, Experiment):
        make = cattrs.gen.make_dict_structure_fn(section, converter, _cattrs_forbid_extra_keys=True, _cattrs_detailed_validation=True)
        converter.register_structure_hook(section, partial(_checked, converter, make))
    return converter


def _component(converter: cattrs.Converter, registry: Registry, kind: str, value: Any, _: Any = None) -> Any:
    if isinstance(value, str):
        value = {"name": value}
    options = dict(_mapping(value, f"a {kind}'s name, or a mapping with 'name'"))
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise ValueError(f"needs a 'name' (one of: {', '.join(registry.names(kind))})")
    cls = registry.find(kind, name).cls
    make: Callable[..., Any] = cattrs.gen.make_dict_structure_fn(
        cls, converter, _cattrs_forbid_extra_keys=True, _cattrs_detailed_validation=True, _cattrs_use_alias=True
    )
    return _checked(converter, make, options, cls)


def _checked(converter: cattrs.Converter, make: Callable[..., Any], values: Any, cls: type) -> Any:
    """Convert types first and run the validators afterwards, so that wrong types and impossible values are reported together."""
    values = _mapping(values)
    try:
        with attrs.validators.disabled():
            built = make(values, cls)
    except (ClassValidationError, SystemExit) as error:
        impossible = _impossible(cls, _readable(converter, values, cls))
        problems = _of_class(cls, error) if isinstance(error, ClassValidationError) else [refusal_of(cls, error)]
        named = {problem.name for problem in problems if isinstance(problem, OptionError)}
        more = [problem for problem in impossible if not (isinstance(problem, OptionError) and problem.name in named)]
        raise ClassValidationError("", [*problems, *more], cls) from error
    errors = _impossible(cls, {field.name: getattr(built, field.name) for field in attrs.fields(cls)})
    if errors:
        raise ClassValidationError("", errors, cls)
    return built


def _of_class(cls: type, error: ClassValidationError) -> list[Exception]:
    """The mistakes that making an object of a class met: in the values of its fields, and what the class itself raised."""
    of_fields, others = error.group_exceptions()
    raised = [problem if isinstance(problem, ForbiddenExtraKeysError) else refusal_of(cls, problem) for problem in others]
    return [*(problem for problem, _ in of_fields), *raised]


def _impossible(cls: type, values: Mapping[str, Any]) -> list[Exception]:
    """The errors that the validators of a class raise for the fields in `values`."""
    errors: list[Exception] = []
    for field in attrs.fields(cls):
        try:
            if field.validator and field.name in values:
                field.validator(None, field, values[field.name])
        except (Exception, SystemExit) as error:
            problem = refusal_of(cls, error)
            if problem is not error:  # which says what is wrong with this option
                problem.__notes__ = [AttributeValidationNote("", option_name(field), None)]
            errors.append(problem)
    return errors


def _readable(converter: cattrs.Converter, values: Mapping[str, Any], cls: type) -> dict[str, Any]:
    """The fields in `values` whose values have the right type."""
    hints, readable = typing.get_type_hints(cls), {}
    for field in attrs.fields(cls):
        if field.validator and option_name(field) in values:
            with contextlib.suppress(Exception):
                readable[field.name] = converter.structure(values[option_name(field)], hints[field.name])
    return readable


def _by_name(converter: cattrs.Converter, registry: Registry, kind: str, value: Any, _: Any = None) -> dict[str, Any]:
    """Convert a mapping `{kd: {weight: 1}}`: keys are names of components, or labels of mappings with `name`; null switches one off."""
    built, errors = {}, []
    for label, options in _mapping(value).items():
        if options is None:
            continue
        try:
            options = {"name": label, **_mapping(options)}
            if kind == "loss":
                term = {key: options.pop(key) for key in ("weight", "warmup") if key in options}
                built[str(label)] = _loss_term(converter, registry, options, term)
            else:
                built[str(label)] = _component(converter, registry, kind, options)
        except Exception as error:
            error.__notes__ = [IterableValidationNote("", label, None)]
            errors.append(error)
    if errors:
        raise IterableValidationError("", errors, dict)
    return built


def _loss_term(converter: cattrs.Converter, registry: Registry, options: dict[str, Any], term: dict[str, Any]) -> LossTerm:
    parts: list[Any] = []
    errors: list[Exception] = []
    for build in (lambda: _component(converter, registry, "loss", options), lambda: _term(converter, term)):
        try:
            parts.append(build())
        except Exception as error:
            errors.append(error)
    if errors:
        raise ClassValidationError("", errors, LossTerm)
    return LossTerm(loss=parts[0], **parts[1])


def _term(converter: cattrs.Converter, values: dict[str, Any]) -> dict[str, Any]:
    checked, errors = {}, []
    for field in attrs.fields(LossTerm):
        if field.name in values:
            try:
                checked[field.name] = converter.structure(values[field.name], float if field.name == "weight" else int)
                for validate in [field.validator] if field.validator else []:
                    validate(None, field, checked[field.name])
            except Exception as error:
                if not isinstance(error, OptionError):  # the error names its field itself
                    error.__notes__ = [AttributeValidationNote("", field.name, None)]
                errors.append(error)
    if errors:
        raise ClassValidationError("", errors, LossTerm)
    return checked


def _mapping(value: Any, expected: str = "a mapping") -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"must be {expected}, got {kind_of(value)}")
    return value


def _primitive(value: Any, hint: type) -> Any:
    if hint in (int, float) and isinstance(value, int) and not isinstance(value, bool):
        if abs(value) >= 1 << 63:
            raise ValueError(f"must be a number below 2^63, got {kind_of(value)}")
        value = hint(value)
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        raise ValueError(f"must be {article(type_name(hint))}, got {kind_of(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"must be a finite number, got {value}")
    if isinstance(value, float) and abs(value) > LARGEST:
        raise ValueError(f"must be a number that float32 can compute with, up to {LARGEST:g}, got {value:g}")
    return _text(value) if isinstance(value, str) else value


def _text(value: str) -> str:
    """Convert to text; in a path, `~` or `$HOME` at the beginning is replaced."""
    if "\0" in value:
        raise ValueError("must not hold the character NUL")
    if _CONTROL.search(value):
        raise ValueError(
            f"must not hold a line break, a tab or another control character, got {shortened(repr(value))}; between double quotes, YAML "
            "takes a backslash for the beginning of one: write single quotes"
        )
    unknown = unknown_start(value)
    if unknown is not None:
        raise ValueError(f"begins with {unknown}, which is no {'user' if unknown[0] == '~' else 'environment variable'} here")
    return expand_path(value)


def _literal(value: Any, hint: Any) -> Any:
    choices = typing.get_args(hint)
    if any(value == choice and type(value) is type(choice) for choice in choices):
        return value
    hint = did_you_mean(shortened(value), map(str, choices), before="; ")
    raise ValueError(f"must be one of {', '.join(map(str, choices))}, got {shortened(repr(value))}{hint}")


def _origin(hint: Any) -> Any:
    return typing.get_origin(hint)


def _is_optional(hint: Any) -> bool:
    return _origin(hint) in (typing.Union, types.UnionType)


def _optional(converter: cattrs.Converter, value: Any, hint: Any) -> Any:
    """Convert `X | None` and small unions such as `str | list[str]`: the first member type that accepts the value is taken."""
    members = [member for member in typing.get_args(hint) if member is not type(None)]
    if value is None and len(members) < len(typing.get_args(hint)):
        return None
    for member in members[:-1]:
        try:
            return converter.structure(value, member)
        except Exception:
            continue
    return converter.structure(value, members[-1])


def _list(converter: cattrs.Converter, value: Any, hint: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"must be a list, got {kind_of(value)}")
    member = (typing.get_args(hint) or (Any,))[0]
    items, errors = [], []
    for index, item in enumerate(value):
        try:
            items.append(converter.structure(item, member))
        except Exception as error:
            error.__notes__ = [IterableValidationNote("", index, member)]
            errors.append(error)
    if errors:
        raise IterableValidationError("", errors, list)
    return items


def _problems(error: BaseException, path: str) -> typing.Iterator[str]:
    """Flatten cattrs' error tree into lines `path: what is wrong`."""
    if isinstance(error, (ClassValidationError, IterableValidationError)):
        noted, others = error.group_exceptions()
        for inner, note in noted:
            key = str(note.index if isinstance(note, IterableValidationNote) else note.name.removeprefix("_"))
            yield from _problems(inner, f"{path}.{key}" if path else key)
        for inner in others:
            yield from _problems(inner, path)
    elif isinstance(error, ForbiddenExtraKeysError):
        known = [option_name(field) for field in option_fields(error.cl)]
        if error.cl is not Experiment and error.cl not in (Phase, Pretrain):
            known = ["name", *known]
        for key in sorted(error.extra_fields, key=str):
            hint = did_you_mean(str(key), known, f", there are: {', '.join(known)}", cutoff=0.5)
            yield f"{path + '.' if path else ''}{key}: unknown key{hint}"
    elif isinstance(error, OptionError):
        yield f"{path + '.' if path else ''}{error.name}: {error.problem}"
    elif isinstance(error, KeyError) and not refused_at(error):
        yield f"{path}: is missing"
    elif isinstance(error, (ValueError, NernError, TypeError)):
        said = f"{error}{refused_at(error)}"
        yield f"{path}: {said}" if path else said
    else:
        yield f"{path}: {type(error).__name__}: {shortened(error)}{refused_at(error)}"
