"""Finds the fenced code blocks of a Markdown page and what a comment before each asks of the tests.

A block may be preceded by a line `<!-- test: MARK -->`:

- `fails`: the command ends with exit code 2, and the text block behind it stands in its output;
- `long`, `needs-cifar`, `needs-network`: the block is checked, not run;
- `file`: the YAML is written to its file, not checked.

A block with a title is a file; blocks with the same title continue it. Text blocks elsewhere are for the reader alone.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import attrs

OPENING = re.compile(r"^(?P<indent> *)(?P<fence>`{3,})(?P<language>\w*)(?P<rest>.*)$")
TITLE = re.compile(r'title="([^"]+)"')
MARK = re.compile(r"^<!-- test: ([\w-]+) -->$")
MARKS = ("fails", "long", "needs-cifar", "needs-network", "file")
CHECKED_ONLY = ("long", "needs-cifar", "needs-network")
LANGUAGES = ("python", "bash", "yaml", "toml", "text", "bibtex")


@attrs.frozen
class Block:
    language: str
    code: str
    line: int  # of the opening fence, from 1
    title: str | None = None
    mark: str | None = None


def blocks(text: str) -> list[Block]:
    """Every fenced block of a page.

    Raises:
        ValueError: a fence is not closed, is indented, or has a language or mark that no test understands.
    """
    return list(_blocks(text.splitlines()))


def _blocks(lines: list[str]) -> Iterator[Block]:
    at = 0
    while at < len(lines):
        opening = OPENING.match(lines[at])
        if not opening:
            at += 1
            continue
        if opening["indent"] or opening["language"] not in LANGUAGES:
            raise ValueError(f"line {at + 1}: no test understands the block {lines[at]!r}")
        end = next((i for i in range(at + 1, len(lines)) if lines[i].rstrip() == opening["fence"]), None)
        if end is None:
            raise ValueError(f"line {at + 1}: the block is not closed")
        before = next((line for line in reversed(lines[:at]) if line.strip()), "")
        mark, title = MARK.match(before), TITLE.search(opening["rest"])
        if mark and mark[1] not in MARKS:
            raise ValueError(f"line {at}: there is no mark '{mark[1]}', only {', '.join(MARKS)}")
        yield Block(
            opening["language"], "\n".join(lines[at + 1 : end]) + "\n", at + 1, title[1] if title else None, mark[1] if mark else None
        )
        at = end + 1


def commands(code: str) -> list[list[str]]:
    """The commands of a shell block, each as its words; lines that end in a backslash are joined."""
    joined = code.replace("\\\n", " ")
    return [words for line in joined.splitlines() if (words := shlex.split(line, comments=True))]


def pages(root: Path) -> list[Path]:
    """The pages whose blocks are tested, relative to the repository."""
    return [Path("README.md"), *sorted(page.relative_to(root) for page in (root / "docs").rglob("*.md"))]
