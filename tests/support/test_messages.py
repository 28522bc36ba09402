"""Words that many messages share, and that they are written in one place."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from nern.support.messages import cannot_write, did_you_mean, first_line, some

PACKAGE = Path(__file__).resolve().parents[2] / "nern"
HOME = PACKAGE / "support" / "messages.py"
SHARED = ("did you mean", "cannot write")


def written_again(text: str) -> Iterator[str]:
    """Shared words in the texts of a module that are no docstrings, and imports of what only the shared functions need."""
    tree = ast.parse(text)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {id(node.body[0].value) for node in ast.walk(tree) if isinstance(node, documented) and isinstance(node.body[0], ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield from (words for words in SHARED if words in node.value)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name == "difflib")


def test_shared_words_are_written_in_one_place() -> None:
    repeated = {str(path): list(written_again(path.read_text(encoding="utf-8"))) for path in PACKAGE.rglob("*.py") if path != HOME}
    assert {path: words for path, words in repeated.items() if words} == {}


@pytest.mark.parametrize("text", ["import difflib", "x = f', did you mean {name}?'", "raise E('cannot write x')"])
def test_words_that_are_written_again_are_found(text: str) -> None:
    assert list(written_again(text))


def test_did_you_mean() -> None:
    assert did_you_mean("digit", ["digits", "cifar10"]) == ", did you mean 'digits'?"
    assert did_you_mean("zzz", ["digits"], " (there are: digits)") == " (there are: digits)"
    assert did_you_mean("digit", ["digits"], before="; ") == "; did you mean 'digits'?"


def test_cannot_write_says_why_whatever_the_error_holds() -> None:
    assert cannot_write("x", OSError(28, "No space left on device"), "free space") == "cannot write x (No space left on device); free space"
    assert cannot_write("x", OSError("odd"), "free space") == "cannot write x (odd); free space"


def test_first_line_of_errors_with_and_without_text() -> None:
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(ValueError()) == "ValueError"


def test_a_long_list_ends_with_the_number_of_what_is_left_out() -> None:
    assert some(["a", "b"]) == "a, b"
    assert some(["a", "b", "c", "d", "e"], 3, "; ") == "a; b; c and 2 more"
