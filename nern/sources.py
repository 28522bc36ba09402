"""Where a configuration comes from: YAML files, presets and dotted overrides, as nested dictionaries."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import attrs
import yaml

from nern import families
from nern.errors import ConfigError
from nern.experiment import DEFAULTS
from nern.families import Row
from nern.options import kind_of
from nern.registry import KINDS


class _Loader(yaml.SafeLoader):
    """YAML's safe loader that reads 1e-4 as a number (as YAML 1.2 does) and refuses a key that stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            value = self.construct_object(key, deep=True)  # type: ignore[no-untyped-call]
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word or a number", key.start_mark)
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


class Presets(Mapping[str, str]):
    """Shipped experiments: name → complete YAML text, which begins with a comment that says what it is."""

    def __init__(self, rows: Mapping[str, str | Row]) -> None:
        self._rows = dict(sorted(rows.items(), key=lambda item: _natural(item[0])))

    def __getitem__(self, name: str) -> str:
        row = self._rows[name]
        if isinstance(row, str) and "extends" not in read_yaml(row, f"preset {name}"):
            return row
        body: str = yaml.safe_dump(self.values_of(name), sort_keys=False, allow_unicode=True, width=100)
        return f"# {self.summary(name)}\n{body}"

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def summary(self, name: str) -> str:
        """What a preset is, in a line."""
        row = self._rows[name]
        return row.splitlines()[0].removeprefix("# ") if isinstance(row, str) else row.summary

    def values_of(self, name: str) -> dict[str, Any]:
        """The configuration of a preset, complete."""
        row = self._rows[name]
        if isinstance(row, str):
            return _extended(read_yaml(row, f"preset {name}"), None, (name,))
        return apply_overrides(self.values_of(row.extends), row.overrides, DEFAULTS)


@functools.cache
def presets() -> Presets:
    """The shipped experiments, by name: single ones, and the rows of families such as `table1/…`."""
    rows: dict[str, str | Row] = {}
    for file in resources.files("nern").joinpath("presets").iterdir():
        if file.name.endswith(".yaml"):
            name, text = file.name.removesuffix(".yaml"), file.read_text(encoding="utf-8")
            values = read_yaml(text, f"preset {name}")
            rows |= families.rows(name, text.splitlines()[0].removeprefix("# "), values) if "rows" in values else {name: text}
    return Presets(rows)


def no_such_preset(name: str) -> str:
    """What to tell a user who asked for a preset that does not exist."""
    near = difflib.get_close_matches(name, presets(), n=1)
    hint = f", did you mean '{near[0]}'?" if near else " (nern presets lists them)"
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

    A file with `extends: PRESET_OR_FILE` starts from another experiment: `set` changes single values by their dotted
    paths, and a section that the file writes itself replaces the other's.

    Raises:
        ConfigError: there is neither, or it does not hold a mapping.
    """
    return _read_source(reference, None, ())


def _read_source(reference: str | Path, folder: Path | None, seen: tuple[str, ...]) -> Source:
    path = (folder or Path()) / reference
    shipped = presets()
    if path.suffix not in (".yaml", ".yml") and not path.is_file():
        if str(reference) not in shipped:
            raise ConfigError(no_such_preset(str(reference)))
        return Source(str(reference), str(reference), None, shipped.values_of(str(reference)))
    place = str(path.resolve())
    if place in seen:
        raise ConfigError(f"{reference}: extends itself, by way of {' and '.join(seen)}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {path}: {getattr(error, 'strerror', None) or error}") from error
    values = read_yaml(text, str(path))
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: an experiment is a mapping of keys such as 'architecture' and 'task', got {kind_of(values)}")
    return Source(path.stem, str(reference), path.resolve().parent, _extended(values, path.resolve().parent, (*seen, place)))


def _extended(values: dict[str, Any], folder: Path | None, seen: tuple[str, ...]) -> dict[str, Any]:
    """The values of a file over those of the experiment that it extends."""
    if "extends" not in values:
        return values
    own = {key: value for key, value in values.items() if key not in ("extends", "set")}
    changes = values.get("set") or {}
    if not isinstance(values["extends"], str) or not isinstance(changes, dict):
        raise ConfigError(f"{seen[-1]}: 'extends' is the name of a preset or file, and 'set' a mapping of dotted paths to values")
    base = _read_source(values["extends"], folder, seen)
    inherited = copied(base.values)
    if base.folder and isinstance(inherited.get("plugins"), list):
        inherited["plugins"] = [str(base.folder / p) if str(p).endswith(".py") else p for p in inherited["plugins"]]
    return apply_overrides({**inherited, **own}, changes, DEFAULTS)


def parse_override(text: str) -> tuple[str, Any]:
    """`key.sub=value` → path and value; the value is read as YAML."""
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise ConfigError(f"override '{text}' must look like key.sub=value")
    return path.strip(), read_yaml(value, f"override {path}")


def apply_overrides(values: dict[str, Any], overrides: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `values` with every dotted path set; a list is entered by position or name (`phases.0.iterations`).

    Null at an entry of a list removes it (`phases.distillation=null`). Giving a component another `name` drops the
    options that belonged to the old one, unless they are overridden too.
    """
    values = copied(values)
    for path in sorted(overrides, key=lambda path: (path.count("."), not path.endswith(".name"))):  # a section before what is in it
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
    if isinstance(values, list) and value is None:
        del values[_position(values, last, path)]
    elif isinstance(values, list):
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


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """A key that sorts table2 before table10, and single presets before families."""
    parts = re.findall(r"\d+|[^\d]+", name)
    return [("/" in name, 0, ""), *((not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts)]
