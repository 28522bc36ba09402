"""Reads the built site, and says what it lacks."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import attrs
import click

from nern import hookspecs
from nern.options import describe
from nern.registry.registry import Registry

HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")


class Page(HTMLParser):
    """What a page says under each heading: its text, and the rows of its tables."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text: dict[str, str] = {}  # heading's id → everything up to the next heading
        self.rows: dict[str, list[list[str]]] = {}
        self.fetched: list[str] = []  # addresses that a browser fetches to show the page
        self._section, self._row, self._cell = "", None, False
        self._row: list[str] | None
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        if tag in HEADINGS and "id" in given:
            self._section = given["id"]
            self.text.setdefault(self._section, "")
        if tag == "tr":
            self._row = []
        if tag == "td" and self._row is not None:
            self._row.append("")
            self._cell = True
        if "src" in given:
            self.fetched.append(given["src"])
        if tag == "link" and given.get("rel") in ("stylesheet", "icon", "preload", "preconnect", "modulepreload"):
            self.fetched.append(given["href"])

    def handle_endtag(self, tag: str) -> None:
        if tag == "td":
            self._cell = False
        if tag == "tr" and self._row:
            self.rows.setdefault(self._section, []).append(self._row)
            self._row = None

    def handle_data(self, data: str) -> None:
        if self._section:
            self.text[self._section] += data
        if self._cell and self._row:
            self._row[-1] += data


@attrs.frozen
class Site:
    """A built site."""

    pages: Mapping[str, Page]  # path relative to the site's root

    @classmethod
    def read(cls, folder: Path) -> Site:
        return cls({str(file.relative_to(folder)): Page(file.read_text(encoding="utf-8")) for file in sorted(folder.rglob("*.html"))})

    def sections(self, name: str) -> list[str]:
        """The text under every heading with this id."""
        return [page.text[name] for page in self.pages.values() if name in page.text]

    def row(self, page: str, section: str, first: str) -> list[str] | None:
        """The row of a section's table whose first cell is `first`."""
        rows = self.pages[page].rows.get(section, []) if page in self.pages else []
        return next((row for row in rows if row[0].strip() == first), None)


def undocumented_hooks(site: Site, hooks: Mapping[str, Callable[..., Any]]) -> list[str]:
    """Hooks without a section of their own, and arguments that it does not name."""
    missing = []
    for name, hook in hooks.items():
        texts = site.sections(f"nern.hookspecs.{name}")
        if not texts:
            missing.append(name)
            continue
        words = set(re.findall(r"\w+", " ".join(texts)))
        missing += [f"{name}({argument})" for argument in inspect.signature(hook).parameters if argument not in words]
    return missing


def undocumented_options(site: Site, registry: Registry) -> list[str]:
    """Components without a section, and options without a row that says what they do."""
    missing = []
    for entry in registry.entries():
        page = f"extend/{entry.kind}.html"
        if page not in site.pages or entry.name not in site.pages[page].text:
            missing.append(f"{entry.kind} {entry.name}")
            continue
        for option in describe(entry.cls):
            row = site.row(page, entry.name, option.name)
            if row is None or not row[-1].strip():
                missing.append(f"{entry.kind} {entry.name}.{option.name}")
    return missing


def undocumented_keys(site: Site, sections: Mapping[str, Iterable[str]]) -> list[str]:
    """Configuration keys without a row that says what they do."""
    missing = []
    for section, keys in sections.items():
        for key in keys:
            row = site.row("reference/configuration.html", section.lower(), key)
            if row is None or not row[-1].strip():
                missing.append(f"{section}.{key}")
    return missing


def undocumented_names(site: Site, names: Iterable[str], module_of: Callable[[str], str]) -> list[str]:
    """Public names without a section that says more than the name, or without a row in the list of them."""
    missing = []
    for name in names:
        full = f"{module_of(name)}.{name}"
        described = any(len(text.split()) > 3 for text in site.sections(full))
        listed = site.row("api/index.html", "public-names", f"nern.{name}")
        if not described or listed is None or not listed[-1].strip():
            missing.append(name)
    return missing


def undocumented_verbs(site: Site, commands: Mapping[str, click.Command]) -> list[str]:
    """Verbs without a section on the command-line page, and options that it does not name."""
    missing = []
    text = site.pages["reference/cli.html"].text
    for path, command in commands.items():
        section = text.get(path.replace(" ", "-"))
        if section is None:
            missing.append(path)
            continue
        options = [option for parameter in command.params if isinstance(parameter, click.Option) for option in parameter.opts]
        missing += [f"{path} {option}" for option in options if option not in section.split() and f"{option}," not in section.split()]
    return missing


def every_hook() -> dict[str, Callable[..., Any]]:
    return {name: hook for name, hook in vars(hookspecs).items() if name.startswith("nern_")}
