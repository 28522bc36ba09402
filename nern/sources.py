"""Where a configuration comes from: YAML files, presets and dotted overrides, as nested dictionaries."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import attrs
import yaml

from nern.errors import ConfigError
from nern.options import kind_of
from nern.registry import KINDS


class _Loader(yaml.SafeLoader):
    """YAML's safe loader that reads 1e-4 as a number (as YAML 1.2 does) and refuses a key that stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            value = self.construct_object(key, deep=True)  # type: ignore[no-untyped-call]
            if value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key '{value}' stands twice", key.start_mark)
            seen.add(value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read_yaml(text: str, source: str) -> Any:
    """Parse YAML safely.

    Raises:
        ConfigError: the text is not YAML; names `source`, line and column.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        raise ConfigError(f"{place}: {getattr(error, 'problem', None) or error}") from error


def presets() -> dict[str, str]:
    """Shipped experiments: name → YAML text, sorted by name."""
    files = [file for file in resources.files("nern").joinpath("presets").iterdir() if file.name.endswith(".yaml")]
    return {file.name.removesuffix(".yaml"): file.read_text(encoding="utf-8") for file in sorted(files, key=lambda file: file.name)}


def no_such_preset(name: str) -> str:
    """What to tell a user who asked for a preset that does not exist."""
    near = difflib.get_close_matches(name, presets(), n=1)
    hint = f", did you mean '{near[0]}'?" if near else f" (presets: {', '.join(presets())})"
    return f"there is no preset and no YAML file called '{name}'{hint}"


@attrs.frozen
class Source:
    """A configuration before it is checked."""

    name: str
    place: str  # what messages call it
    folder: Path | None  # local plugins are relative to it
    values: dict[str, Any]


def read_source(reference: str | Path) -> Source:
    """A YAML file, or the preset of that name.

    Raises:
        ConfigError: there is neither, or it does not hold a mapping.
    """
    path = Path(reference)
    shipped = presets()
    if path.suffix in (".yaml", ".yml") or path.is_file():
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read the configuration {path}: {getattr(error, 'strerror', None) or error}") from error
        name, folder = path.stem, path.resolve().parent
    elif str(reference) in shipped:
        text, name, folder = shipped[str(reference)], str(reference), None
    else:
        raise ConfigError(no_such_preset(str(reference)))
    values = read_yaml(text, str(path))
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: an experiment is a mapping of keys such as 'architecture' and 'task', got {kind_of(values)}")
    return Source(name, str(reference), folder, values)


def parse_override(text: str) -> tuple[str, Any]:
    """`key.sub=value` → path and value; the value is read as YAML."""
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise ConfigError(f"override '{text}' must look like key.sub=value")
    return path.strip(), read_yaml(value, f"override {path}")


def apply_overrides(values: dict[str, Any], overrides: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `values` with every dotted path set; a list is entered by position (`phases.0.iterations`).

    Giving a component another `name` drops the options that belonged to the old one, unless they are overridden too.
    """
    values = copied(values)
    for path in sorted(overrides, key=lambda path: not path.endswith(".name") and overrides[path] is not None):
        _set(values, path, overrides[path], defaults)
    return values


def _set(values: Any, path: str, value: Any, defaults: Mapping[str, Any]) -> None:
    *parents, last = path.split(".")
    for depth, key in enumerate(parents):
        if isinstance(values, dict):
            if isinstance(values.get(key), str) and key in KINDS:  # `predictor: mlp` is short for {name: mlp}
                values[key] = {"name": values[key]}
            if values.get(key) is None:
                values[key] = copied(defaults.get(key, {})) if depth == 0 else {}
            values = values[key]
        elif isinstance(values, list):
            values = values[_position(values, key, path)]
        else:
            raise ConfigError(f"{path}: '{'.'.join(parents[:depth])}' is {kind_of(values)} and has no '{key}'")
    if isinstance(values, list):
        values[_position(values, last, path)] = value
    elif isinstance(values, dict):
        if last == "name" and value != values.get("name") and parents and parents[-1] in KINDS:
            kept = {"weights"} if parents[-1] == "architecture" else {"root"} if parents[-1] == "task" else set()
            for key in set(values) - kept:
                del values[key]
        values[last] = value
    else:
        raise ConfigError(f"{path}: '{'.'.join(parents)}' is {kind_of(values)} and has no '{last}'")


def _position(values: list[Any], key: str, path: str) -> int:
    names = [item.get("name") if isinstance(item, dict) else None for item in values]
    if key in names:
        return names.index(key)
    if key.isdigit() and int(key) < len(values):
        return int(key)
    known = ", ".join([f"0 to {len(values) - 1}", *filter(None, names)])
    raise ConfigError(f"{path}: the list has no entry '{key}' (there are: {known})")


def copied(value: Any) -> Any:
    """A copy of nested dictionaries and lists."""
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, list) else value
