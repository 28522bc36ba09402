"""The place of an error: the line of the plugin that nern called, whatever that line called."""

from __future__ import annotations

import builtins
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nern.support.contracts import place_of

PLUGIN = """\
import numpy as np
from attrs import field, frozen
from place_of_helper import fails

def library():
    return np.linalg.inv(np.zeros((2, 2)))

def helper():
    return fails()

def imports():
    import a_module_that_nobody_has

@frozen
class Component:
    option: int = 0

    def __attrs_post_init__(self):
        raise ValueError("no such option")

def called_back(again):
    return again(lambda: 1 / 0)
"""
HOOK = """\
import builtins
plain = builtins.__import__

def hooked(*arguments, **options):
    return plain(*arguments, **options)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "plugin.py").write_text(PLUGIN)
    (tmp_path / "mine" / "place_of_helper.py").write_text("def fails():\n    return {}['x']\n")
    (tmp_path / "hook.py").write_text(HOOK)
    monkeypatch.syspath_prepend(str(tmp_path / "mine"))
    yield tmp_path
    sys.modules.pop("place_of_helper", None)


def load(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "file", "line"),
    [
        ("library", "plugin", 6),
        ("helper", "place_of_helper", 2),
        ("imports", "plugin", 12),
        ("Component", "plugin", 19),
        ("called_back", "plugin", 22),
    ],
)
def test_the_place_is_the_plugins_own_line(name: str, file: str, line: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin, hook = load(folder / "mine" / "plugin.py"), load(folder / "hook.py")
    monkeypatch.setattr(builtins, "__import__", hook.hooked)
    arguments = (lambda function: function(),) if name == "called_back" else ()
    try:
        getattr(plugin, name)(*arguments)
    except Exception as error:
        error.__traceback__ = error.__traceback__.tb_next  # type: ignore[union-attr]  # nern's caller, which is this test here
        place = place_of(error)
    monkeypatch.undo()
    assert place == f" ({folder / 'mine' / file}.py, line {line})"
