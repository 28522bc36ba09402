"""Reads and writes the YAML of experiments safely, by the core schema of YAML 1.2, and with limits on length and nesting."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError, SafeConstructor
from yaml.representer import SafeRepresenter

from nern.errors import ConfigError
from nern.registry.kinds import OwnName
from nern.support.messages import first_line

LONGEST = 200_000  # most characters of a text; the longest shipped configuration has a few thousand
DEEPEST = 40  # most levels of nested lists and mappings
MOST = 100_000  # most values, each counted as often as aliases repeat it

_NUMBERS = {
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+.0123456789"),
}
#: The core schema of YAML 1.2, in which 010 is ten, and 1:30, yes and off are text: tag → (pattern, possible first characters).
_SCHEMA = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    **{tag: (pattern, list(first)) for tag, (pattern, first) in _NUMBERS.items()},
    "merge": (r"<<", ["<"]),
}


class _Loader(yaml.SafeLoader):
    """Reads plain values only; refuses values that are nested too deep or repeated too often, and keys that appear twice."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}  # type: ignore[misc]
    yaml_constructors: ClassVar[dict[Any, Any]] = {
        f"tag:yaml.org,2002:{name}": SafeConstructor.yaml_constructors[f"tag:yaml.org,2002:{name}"]
        for name in ("null", "bool", "float", "str", "seq", "map")
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._sizes: dict[int, int] = {}  # number of values below each finished node

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        mark, alias = self.peek_event().start_mark, self.check_event(yaml.AliasEvent)  # type: ignore[no-untyped-call]
        self._depth += 1
        try:
            if self._depth > DEEPEST:
                raise ComposerError(None, None, f"values are nested more than {DEEPEST} deep", mark)
            node: yaml.Node = super().compose_node(parent, index)  # type: ignore[assignment]
        finally:
            self._depth -= 1
        if alias and id(node) not in self._sizes:
            raise ComposerError(None, None, "an alias repeats the value that it stands in", mark)
        if not alias:
            self._sizes[id(node)] = 1 + sum(self._sizes[id(child)] for child in _children(node))
        if self._sizes[id(node)] > MOST:
            raise ComposerError(None, None, f"aliases repeat values until there are more than {MOST:,} of them", mark)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)  # type: ignore[no-untyped-call]
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception as error:  # a value that does not match its tag can raise anything
            problem = f"{_shortened(node.value)} is not {node.tag.replace('tag:yaml.org,2002:', '!!')}"
            raise ConstructorError(None, None, problem, node.start_mark) from error

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode):
                raise ConstructorError(None, None, "a key must be a word", key.start_mark)
            value = self.construct_object(key, deep=True)
            if key.tag != "tag:yaml.org,2002:merge" and not isinstance(value, str):
                raise ConstructorError(None, None, f"the key {key.value} must be a word; put it in quotes", key.start_mark)
            if value in seen:
                raise ConstructorError(None, None, f"the key '{value}' appears twice", key.start_mark)
            seen.add(value)
        return super().construct_mapping(node, deep)  # type: ignore[arg-type]

    def whole(self, node: yaml.ScalarNode) -> int:
        """An integer: decimal, 0o17 or 0x1F."""
        text = str(self.construct_scalar(node))
        if len(text) > 20:
            raise ConstructorError(None, None, f"{_shortened(text)} is a number of too many digits", node.start_mark)
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)

    def text(self, node: yaml.ScalarNode) -> str:
        """Text; the character NUL is refused, because no name and no path can hold it."""
        value = str(self.construct_scalar(node))
        if "\0" in value:
            raise ConstructorError(None, None, "text must not hold the character NUL", node.start_mark)
        return value


class _Dumper(yaml.SafeDumper):
    """Writes text in quotes where YAML 1.1 or 1.2 would read it as something else."""


for _tag, (_pattern, _first) in _SCHEMA.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)
for _writer in (yaml.SafeDumper, _Dumper):
    _writer.add_representer(OwnName, SafeRepresenter.represent_str)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.whole)
_Loader.add_constructor("tag:yaml.org,2002:str", _Loader.text)
_Loader.add_constructor("tag:yaml.org,2002:merge", _Loader.text)
_Loader.add_constructor(None, SafeConstructor.construct_undefined)  # type: ignore[type-var]


def read_yaml(text: str, source: str) -> Any:
    """Parse YAML safely.

    Raises:
        ConfigError: the text is not YAML, too long, nested too deep, or repeats values too often; the message names `source`, line
            and column.
    """
    if len(text) > LONGEST:
        raise ConfigError(f"{source}: a configuration has at most {LONGEST:,} characters, this has {len(text):,}")
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        raise ConfigError(f"{place}: {_explained(error)}") from error
    except Exception as error:  # errors that the library itself does not foresee
        raise ConfigError(f"{source}: cannot be read as YAML ({first_line(error)})") from error


def _explained(error: yaml.YAMLError) -> str:
    """What is wrong with a text, and what to do about common mistakes."""
    problem: str = getattr(error, "problem", None) or first_line(error)
    if problem == "found character '\\t' that cannot start any token":
        return "there is a tab, where YAML allows spaces alone"
    if "cannot start any token" in problem:
        return f"{problem}; put such text in quotes"
    if "escape" in problem:
        return f"{problem}; between double quotes a backslash begins an escape, between single quotes it is a backslash"
    if problem == "but found another document":
        return "a line --- begins another document; a configuration is one document"
    return problem


def read_yaml_file(path: Path) -> Any:
    """Parse a file of YAML.

    Raises:
        ConfigError: the file cannot be read or is no ordinary file, or its text is refused by `read_yaml`.
    """
    try:
        if not path.is_file():
            raise ConfigError(
                f"cannot read the configuration {path}: " + ("it is no ordinary file" if path.exists() else "it does not exist")
            )
        with path.open(encoding="utf-8") as file:
            text = file.read(LONGEST + 1)
    except UnicodeDecodeError as error:
        raise ConfigError(f"cannot read the configuration {_shortened(str(path))}: it is no text in UTF-8; save it as UTF-8") from error
    except (OSError, ValueError) as error:  # ValueError: no file can have this path
        raise ConfigError(f"cannot read the configuration {_shortened(str(path))}: {getattr(error, 'strerror', None) or error}") from error
    return read_yaml(text, str(path))


def write_yaml(value: Any) -> str:
    """Write nested dictionaries, lists, text and numbers as YAML from which `read_yaml` reads the same values."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _shortened(value: object) -> str:
    text = str(value) if isinstance(value, (str, int, float)) else "a list or mapping"
    return repr(text) if len(text) <= 60 else f"{text[:60]!r}…"
