"""Options of components and of the configuration: attrs fields that carry their own documentation."""

from __future__ import annotations

import inspect
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import attrs

from nern.errors import ConfigError, OptionError

Validator = Callable[[Any, "attrs.Attribute[Any]", Any], None]


@contextmanager
def located(path: str) -> Iterator[None]:
    """Add the place in the configuration to the error that a block raises about an option.

    Raises:
        ConfigError: the block raised an `OptionError`; its message begins with `path` and the option's name.
    """
    try:
        yield
    except OptionError as error:
        raise ConfigError(f"{path}.{error.name}: {error.problem}") from error


def option(default: Any = attrs.NOTHING, *, help: str, check: Validator | Sequence[Validator] = (), factory: Any = None) -> Any:
    """An attrs field with a one-line description.

    Args:
        default: the value when the configuration names none; without it (and without `factory`) the option is required.
        help: what the option does, with units; shown by `nern plugins --json` and the documentation.
        check: validators, such as those of `attrs.validators`; they raise ValueError, or better `OptionError`, whose
            message is shown after the option's path.
        factory: makes a default that must not be shared between instances.
    """
    checks = [check] if callable(check) else list(check)
    settings: dict[str, Any] = {"metadata": {"help": help}, "validator": checks, "kw_only": True}
    return attrs.field(factory=factory, **settings) if factory else attrs.field(default=default, **settings)


def _bound(symbol: str, holds: Callable[[Any, Any], bool]) -> Callable[[float], Validator]:
    def bounded(limit: float) -> Validator:
        def validate(instance: Any, attribute: Any, value: Any) -> None:
            if value is not None and not holds(value, limit):
                raise OptionError(attribute.name, f"must be {symbol} {limit}, got {value}")

        return validate

    return bounded


at_least = _bound(">=", lambda value, limit: value >= limit)
at_most = _bound("<=", lambda value, limit: value <= limit)
above = _bound(">", lambda value, limit: value > limit)
below = _bound("<", lambda value, limit: value < limit)


@attrs.frozen
class OptionInfo:
    """One option as the documentation shows it."""

    name: str
    type: str
    default: Any  # attrs.NOTHING when required
    help: str

    @property
    def required(self) -> bool:
        return self.default is attrs.NOTHING


def option_fields(cls: type) -> list[attrs.Attribute[Any]]:
    """The fields of a component class that a configuration sets; fields with `init=False` hold state and are left out."""
    return [field for field in attrs.fields(cls) if field.init]


def option_name(field: attrs.Attribute[Any]) -> str:
    """The name of a field in a configuration: without the leading underscore that it has where a method has the plain name."""
    return field.alias or field.name


def describe(cls: type) -> list[OptionInfo]:
    """The options of a component class, in the order of its fields."""
    hints = typing.get_type_hints(cls)
    described = []
    for field in option_fields(cls):
        default: Any = field.default
        if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
            default = "computed from the other options" if default.takes_self else default.factory()
        described.append(OptionInfo(option_name(field), type_name(hints[field.name]), default, field.metadata.get("help", "")))
    return described


def problem_with_options(cls: type) -> str | None:
    """The reason why a configuration cannot hold the options of a component class, as the end of a sentence; None where it can."""
    if "__attrs_attrs__" not in vars(cls):
        return f"whose class {cls.__name__} is not decorated itself; write @attrs.frozen above it"
    try:
        hints = typing.get_type_hints(cls)
    except (NameError, AttributeError, TypeError) as error:
        return f"whose class {cls.__name__} names a type that is not there at run time ({error}); import it outside of TYPE_CHECKING"
    except Exception as error:  # an annotation in quotes may be any code
        return f"whose class {cls.__name__} has an annotation that is no type ({type(error).__name__}: {error})"
    for field in option_fields(cls):
        name = option_name(field)
        if field.name not in hints:
            return f"whose option '{name}' has no type; write {name}: float = nern.option(…)"
        if not isinstance(field.metadata.get("help", ""), str):
            return f"whose option '{name}' has a help that is no text"
        default: Any = field.default
        if default is attrs.NOTHING:
            continue
        if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
            if default.takes_self:
                continue
            default = default.factory()
        if not _is_plain(default):
            of = type(default).__name__
            return f"whose option '{name}' has a default that no configuration can hold ({of}); use numbers, text, lists or mappings"
        if not _fits(hints[field.name], default):
            return f"whose option '{name}' is {type_name(hints[field.name])}, but its default is {kind_of(default)}"
    return None


def _is_plain(value: Any) -> bool:
    """Whether a configuration can hold a value: numbers, text, null, lists and mappings of them, and components."""
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if type(value) is float:
        return math.isfinite(value)
    return type(value) in (bool, int, str, type(None)) or attrs.has(type(value))


def _fits(hint: Any, value: Any) -> bool:
    """Whether a default has the type of its option; types that a configuration does not know itself are accepted."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return value in arguments
    if origin in (typing.Union, types.UnionType):
        return any(_fits(argument, value) for argument in arguments)
    if origin in (list, tuple):
        return isinstance(value, (list, tuple))
    if hint in (bool, int, str, type(None)):
        return type(value) is hint
    return isinstance(value, (int, float)) and not isinstance(value, bool) if hint is float else True


def summary(cls: type) -> str:
    """The first line of a component's own docstring, or an empty string."""
    text = cls.__dict__.get("__doc__")
    return (inspect.cleandoc(text).splitlines() or [""])[0] if isinstance(text, str) else ""


def type_name(hint: Any) -> str:
    """A type as text for users: `int`, `"a" | "b"`, `list of int`, `int or null`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return " | ".join(f'"{choice}"' for choice in arguments)
    if hint is type(None):
        return "null"
    if origin in (list, tuple):
        return f"list of {type_name(arguments[0])}" if arguments else "empty list"
    if origin is dict:
        return f"mapping of {type_name(arguments[1])}"
    if arguments:
        return " or ".join(type_name(argument) for argument in arguments)
    return {"str": "text", "bool": "true or false"}.get(getattr(hint, "__name__", ""), getattr(hint, "__name__", str(hint)))


def kind_of(value: Any) -> str:
    """A value as messages describe it: `a mapping`, `text ('abc')`."""
    if value is None:
        return "nothing"
    if isinstance(value, (Mapping, list)):
        return "a mapping" if isinstance(value, Mapping) else "a list"
    text = repr(value) if not isinstance(value, int) or abs(value) < 1 << 200 else "more than 60 digits"
    return f"{article(type_name(type(value)))} ({text if len(text) <= 80 else text[:79] + '…'})"


def article(noun: str) -> str:
    """A noun with its article: `an int`, `a float`, `text`."""
    return noun if noun in ("text", "true or false", "null") else f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
