"""Every file, module, name, command and verb that the prose mentions exists, and this check can fail."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path

import pytest

from nern.cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(page for pattern in ("*.md", "docs/**/*.md", "plugins/*/README.md", "benchmarks/*.py") for page in ROOT.glob(pattern))
PATH = re.compile(r"(?<![\w./-])(?:nern|tests|benchmarks|plugins|docs)/[\w./-]*\w")
NAME = re.compile(r"(?<![\w./-])nern(?:\.[A-Za-z_]\w*)+")
MODULE = re.compile(r"\bpython -m ([\w.]*\w)")
VERB = re.compile(r"`nern ([a-z][a-z-]*)(?: ([a-z]+))?")
WRITTEN_BY_THE_READER: tuple[str, ...] = ()
MOVED = ("nern.weights",)  # an old name, which the changelog tells of


def missing(text: str, folder: Path = ROOT) -> list[str]:
    """What a page names and what is not there: paths from the root, modules, dotted names, verbs of the command."""
    absent = [path for path in PATH.findall(text) if path not in WRITTEN_BY_THE_READER and not (ROOT / path).exists()]
    absent += [name for name in NAME.findall(text) if name not in MOVED and not _is_name(name)]
    absent += [f"python -m {name}" for name in MODULE.findall(text) if not _is_module(name, folder)]
    return absent + [verb for name, word in VERB.findall(text) for verb in _missing_verb(name, word)]


def _is_name(name: str) -> bool:
    parts = name.split(".")
    target: object = importlib.import_module(parts[0])
    for at, part in enumerate(parts[1:], 2):
        try:
            target = getattr(target, part)
        except AttributeError:
            try:
                target = importlib.import_module(".".join(parts[:at]))
            except ImportError:
                return False
    return True


def _is_module(name: str, folder: Path) -> bool:
    if any((folder / f"{name.replace('.', '/')}{ending}").exists() for ending in (".py", "/__main__.py")):
        return True  # of a package that need not be installed
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _missing_verb(name: str, word: str) -> list[str]:
    command = cli.commands.get(name)
    if command is None:
        return [f"nern {name}"]
    figures = getattr(command, "commands", {word: None})
    return [f"nern {name} {word}"] if word and word not in figures else []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_the_prose_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert missing(text, page.parent) == []


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        ("in `nern/paths.py`", "nern/paths.py"),
        ("`nern.kernels.nowhere`", "nern.kernels.nowhere"),
        ("`nern.Engine.fitted`", "nern.Engine.fitted"),
        ("`python -m benchmarks.nothing --keep`", "python -m benchmarks.nothing"),
        ("`nern shrink runs/a`", "nern shrink"),
        ("`nern plot pie`", "nern plot pie"),
    ],
)
def test_what_is_missing_is_found(text: str, gone: str) -> None:
    assert missing(text) == [gone]
    assert missing("`nern/kernels/greedy_path.py`, `nern.Engine.fit`, `python -m nern plot`, `nern plot kernels`") == []
