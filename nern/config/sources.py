"""Where a configuration comes from: YAML files and presets, as nested dictionaries."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import attrs

from nern.config import preset_families
from nern.config.defaults import DEFAULTS
from nern.config.overrides import copied, refuse_without_effect
from nern.config.preset_families import Row
from nern.config.recipes import expanded, overridden
from nern.config.yaml_reading import read_yaml, read_yaml_file, write_yaml
from nern.errors import ConfigError
from nern.options import kind_of
from nern.registry.kinds import with_own_names
from nern.support.files import expand_path, is_file
from nern.support.messages import did_you_mean, shortened

DEEPEST = 20  # most files that may extend each other in a chain


#: The first line of the configuration in a run's folder.
RUN_HEADER = "# written by a run of nern\n"


class Presets(Mapping[str, str]):
    """The complete YAML texts of the shipped experiments, by name; each begins with a comment that says what it is."""

    def __init__(self, rows: Mapping[str, str | Row]) -> None:
        self._rows = dict(sorted(rows.items(), key=lambda item: _natural(item[0])))
        self._values: dict[str, dict[str, Any]] = {}

    def __getitem__(self, name: str) -> str:
        row = self._rows[name]
        if isinstance(row, str) and not {"extends", "recipe"} & set(read_yaml(row, f"preset {name}")):
            return row
        return f"# {self.summary(name)}\n{write_yaml(self.values_of(name))}"

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def summary(self, name: str) -> str:
        """One line that says what a preset is."""
        row = self._rows[name]
        return row.splitlines()[0].removeprefix("# ") if isinstance(row, str) else row.summary

    def values_of(self, name: str) -> dict[str, Any]:
        """The complete configuration of a preset."""
        if name not in self._values:
            row = self._rows[name]
            if isinstance(row, str):
                self._values[name] = _extended(read_yaml(row, f"preset {name}"), None, (name,))
            else:
                self._values[name] = overridden(self.values_of(row.extends), row.overrides, DEFAULTS)
        values: dict[str, Any] = copied(self._values[name])
        return values


@functools.cache
def presets() -> Presets:
    """The shipped experiments, by name: single ones, and the rows of families such as `table1/…`."""
    rows: dict[str, str | Row] = {}
    for file in resources.files("nern").joinpath("presets").iterdir():
        if file.name.endswith(".yaml"):
            name, text = file.name.removesuffix(".yaml"), file.read_text(encoding="utf-8")
            values = read_yaml(text, f"preset {name}")
            rows |= preset_families.rows(name, text.splitlines()[0].removeprefix("# "), values) if "rows" in values else {name: text}
    return Presets(rows)


def no_such_preset(name: str) -> str:
    """The error message for a preset that does not exist."""
    return f"there is no preset and no YAML file called '{shortened(name)}'" + did_you_mean(name, presets(), " (nern presets lists them)")


@attrs.frozen
class Source:
    """A configuration that has been read but not checked."""

    name: str
    place: str  # its name in messages
    folder: Path | None  # paths of local plugins are relative to this folder
    values: dict[str, Any]


def read_source(reference: str | Path) -> Source:
    """A YAML file, or the preset of that name.

    A file with `recipe: NAME` has that recipe's sections where it writes none of its own. A file with
    `extends: PRESET_OR_FILE` starts from another experiment: `set` changes single values by their dotted paths, and a
    section that the file writes itself replaces the other's.

    Raises:
        ConfigError: there is neither, or it does not hold a mapping.
    """
    return _read_source(reference, None, ())


def _read_source(reference: str | Path, folder: Path | None, seen: tuple[str, ...]) -> Source:
    reference = expand_path(str(reference))
    path = (folder or Path()) / reference
    shipped = presets()
    if path.suffix not in (".yaml", ".yml") and not is_file(path):
        if reference not in shipped:
            raise ConfigError(no_such_preset(reference))
        return Source(reference, reference, None, with_own_names(shipped.values_of(reference)))
    place = str(path.absolute())
    if place in seen:
        raise ConfigError(f"{reference}: extends itself, by way of {' and '.join(seen)}")
    if len(seen) == DEEPEST:
        raise ConfigError(f"{seen[0]}: more than {DEEPEST} files extend each other")
    values = read_yaml_file(path)
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: an experiment is a mapping of keys such as 'architecture' and 'task', got {kind_of(values)}")
    if _of_an_older_run(path) and values.get("architecture", {}).get("layers") == "all":
        values["architecture"]["layers"] = "convolutions"
    if _of_a_run(path):
        values = with_own_names(values)
    return Source(path.stem, reference, path.resolve().parent, _extended(values, path.resolve().parent, (*seen, place)))


def _of_a_run(path: Path) -> bool:
    """Whether a run wrote this file, and not a user."""
    return _of_an_older_run(path) or (path.name == "config.yaml" and path.read_text(encoding="utf-8").startswith(RUN_HEADER))


def _of_an_older_run(path: Path) -> bool:
    """Whether a run of an old version wrote this file, when `layers: all` meant convolutions alone: it has no comment at its top."""
    if path.name != "config.yaml" or not (path.parent / "metrics.jsonl").is_file():
        return False
    return not path.read_text(encoding="utf-8").startswith(RUN_HEADER)


def _extended(values: dict[str, Any], folder: Path | None, seen: tuple[str, ...]) -> dict[str, Any]:
    """The values of a file, merged into those of the experiment that it extends."""
    changes = values.get("set") or {}
    if not isinstance(values.get("extends", ""), str) or not isinstance(changes, dict):
        raise ConfigError(f"{seen[-1]}: 'extends' is the name of a preset or file, and 'set' a mapping of dotted paths to values")
    own = expanded({key: value for key, value in values.items() if key not in ("extends", "set")})
    if "extends" not in values:
        return overridden(own, changes, DEFAULTS)
    base = _read_source(values["extends"], folder, seen)
    inherited = copied(base.values)
    if base.folder and isinstance(inherited.get("plugins"), list):
        inherited["plugins"] = [str(base.folder / expand_path(str(p))) if str(p).endswith(".py") else p for p in inherited["plugins"]]
    merged = overridden({**inherited, **own}, changes, DEFAULTS)
    refuse_without_effect(merged, changes, f"{seen[-1]}: set: ")
    return merged


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """A key that sorts table2 before table10, and single presets before families."""
    parts = re.findall(r"\d+|[^\d]+", name)
    return [("/" in name, 0, ""), *((not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts)]
