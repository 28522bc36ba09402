"""Makes the reference pages from the code when the site is built: extension points, configuration, presets, verbs, API.

An option, component, hook or verb without a description fails the build. The repository holds none of these pages, so they cannot
be out of date.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from reference_pages.api import api_pages
from reference_pages.command_line import verbs
from reference_pages.configuration import configuration_reference, presets
from reference_pages.extension_points import extension_point, extension_points

from nern.cli.main import cli
from nern.config.sources import presets as shipped_presets
from nern.registry.discovery import create_registry
from nern.registry.registry import KINDS, Registry


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """Add the generated pages and their navigation entries."""
    registry = create_registry(entry_points=False)  # the site must not depend on installed plugins
    pages = dict(all_pages(registry))
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    config.nav = complete_navigation(config.nav or [], [file.src_uri for file in files.documentation_pages()], list(pages))
    return files


def all_pages(registry: Registry) -> Iterator[tuple[str, str]]:
    """The Markdown of all generated pages, by path."""
    yield "extend/index.md", extension_points(registry)
    for kind in KINDS:
        yield f"extend/{kind}.md", extension_point(kind, registry)
    yield "reference/configuration.md", configuration_reference()
    yield "reference/presets.md", presets(shipped_presets())
    yield "reference/cli.md", verbs(cli)
    yield from api_pages()


def complete_navigation(nav: list[Any], existing: list[str], made: list[str]) -> list[Any]:
    """Expand entries such as `Title: api/`, and put pages that no entry names under "More"."""

    def written(entry: Any) -> Any:
        if isinstance(entry, dict):
            return {title: written(value) for title, value in entry.items()}
        if isinstance(entry, list):
            return [written(item) for item in entry]
        return [path for path in made if path.startswith(entry)] if entry.endswith("/") else entry

    complete = written(nav)
    named = set(_paths(complete))
    more = [path for path in existing if path not in named]
    return [*complete, {"More": more}] if more else complete


def _paths(entry: Any) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    for item in entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ():
        yield from _paths(item)
