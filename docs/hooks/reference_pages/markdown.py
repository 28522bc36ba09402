"""Tables of a page, and text that Markdown must leave as it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import yaml

from nern.options import OptionInfo


def option_table(options: Iterable[OptionInfo], links: Mapping[str, str] | None = None) -> str:
    """Names, types, defaults and descriptions of options."""
    return table(
        ("option", "type", "default", "what it does"),
        [(f"`{option.name}`", type_text(option.type, links or {}), default_text(option), escape(option.help)) for option in options],
    )


def type_text(name: str, links: Mapping[str, str]) -> str:
    """The name of a type, in which words of `links` are links."""
    words = [f"[{word}]({links[word]})" if word in links else word for word in escape(name).split(" ")]
    return " ".join(words)


def default_text(option: OptionInfo) -> str:
    """A default as YAML."""
    if option.required:
        return "*required*"
    text = yaml.safe_dump(option.default, default_flow_style=True, allow_unicode=True, width=10_000).removesuffix("...\n").strip()
    return f"`{text.replace('|', '&#124;')}`"


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def escape(text: str) -> str:
    """Text on one line, with Markdown's characters escaped, except in code between backticks, where a backslash would be visible."""
    parts = " ".join(text.split()).replace("|", "&#124;").split("`")
    for at in range(0, len(parts), 2):
        for character in "\\*_<$":
            parts[at] = parts[at].replace(character, f"\\{character}")
    return "`".join(parts)
