"""YAML as experiments are written in it: read safely, with numbers as YAML 1.2 has them."""

from __future__ import annotations

from typing import Any

import yaml

from nern.errors import ConfigError


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
