"""Adds the changelog and the guide for contributors, which lie in the repository's root, to the site."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}


@event_priority(50)  # must run before the hook that completes the navigation
def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """Add both files as pages."""
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text(encoding="utf-8")))
    return files
