"""Whose contract is broken: one line with the component and its package, what it did and what it should do, file and line."""

from __future__ import annotations

import functools
import inspect
import os
import re
import sysconfig
import traceback
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch

from nern.errors import ConfigError, NernError, OptionError
from nern.support.messages import text_of
from nern.support.settings import kept

_NERN = os.path.dirname(os.path.dirname(__file__)) + os.sep
_TORCH = os.path.dirname(torch.__file__) + os.sep
_PYTHON = sysconfig.get_path("stdlib") + os.sep

#: Class of a component → (extension point, `package:name`), of every component that was ever registered.
_OWNERS: weakref.WeakKeyDictionary[type, tuple[str, str]] = weakref.WeakKeyDictionary()


@functools.cache
def _between() -> tuple[str, ...]:
    """Folders of packages through which calls of components go; looked up at an error only, since files are read without some of them."""
    specs = [find_spec(name) for name in ("pluggy", "attr", "cattrs")]
    return tuple(os.path.dirname(str(spec.origin)) + os.sep for spec in specs if spec is not None)


class ContractError(ConfigError):
    """A component does something else than its extension point asks for."""


def remember(cls: type, kind: str, name: str) -> None:
    """Keep what messages call a component.

    Args:
        kind: the extension point.
        name: the component's package and name, `package:name`.
    """
    _OWNERS[cls] = kind, name


@contextmanager
def renamed_for_now(cls: type) -> Iterator[None]:
    """A block may register a component under another name, which messages forget after it."""
    known = _OWNERS.get(cls)
    try:
        yield
    finally:
        _OWNERS.pop(cls, None)
        if known is not None:
            _OWNERS[cls] = known


def is_own(component: Any) -> bool:
    """Whether nern itself offers a component (or a component's class), or defines what one has made."""
    cls = _class_of(component)
    known = _OWNERS.get(cls)
    return known[1].startswith("nern:") if known else cls.__module__.partition(".")[0] == "nern"


def owner_of(component: Any) -> str | None:
    """`package:name` of a component that was registered."""
    known = _OWNERS.get(type(component))
    return known[1] if known else None


def called(component: Any, kind: str) -> str:
    """`component package:name (kind)`. What a component has made, such as a task's data, is called after its package's one."""
    cls = _class_of(component)
    known = _OWNERS.get(cls) or next(iter(_offered_beside(cls, kind)), None)
    return f"component {known[1] if known else cls.__name__} ({kind})"


def _class_of(component: Any) -> type:
    return component if isinstance(component, type) else type(component)


def _offered_beside(made: type, kind: str) -> list[tuple[str, str]]:
    """The only component of an extension point in the package that defines the class of what a component has made."""
    beside = {owner for owner in offered(made.__module__).values() if owner[0] == kind}
    return list(beside) if len(beside) == 1 else []


def refusal_of(cls: type, error: BaseException) -> Exception:
    """The error to report where making a component raised another: one that names the component of a plugin.

    An error that names an option or explains itself stays as it is, and so do those of nern's own components.

    Args:
        cls: the component's class.
    """
    known = _OWNERS.get(cls)
    if isinstance(error, Exception) and (known is None or is_own(cls) or isinstance(error, (NernError, OptionError, MemoryError))):
        return error
    refusal = broken(cls, known[0] if known else "component", raised(error))
    refusal.__cause__ = error
    return refusal


def offered(module: str) -> dict[type, tuple[str, str]]:
    """What the plugin that a module belongs to offers: class → (extension point, `package:name`); nothing for nern's own."""
    package = module.partition(".")[0]
    return {} if package == "nern" else {cls: owner for cls, owner in _OWNERS.items() if cls.__module__.partition(".")[0] == package}


def broken(component: Any, kind: str, problem: str, *made: Any) -> ContractError:
    """The error to raise for a component that breaks its contract.

    Args:
        kind: its extension point.
        problem: what it should do and what it does; where it begins with a method, as in `forward(rows) must give …`, that
            method's line is named.
        made: what the component has made, which may have the method.
    """
    place = "" if re.search(r", line \d+\)$", problem) else place_of_code(problem, *made, component)
    return ContractError(f"{called(component, kind)}: {problem}{place}")


@contextmanager
def at_work(component: Any, kind: str, *made: Any) -> Iterator[None]:
    """Say whose error it is where a block, which does nothing but call a component of a plugin, raises one.

    Raises:
        ContractError: the block raised something that says neither what is wrong nor where, or changed settings that all code shares.
    """
    if is_own(component):
        yield
        return
    try:
        with kept() as changed:
            yield
    except (NernError, OptionError, MemoryError, torch.OutOfMemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise broken(component, kind, raised(error), *made) from error
    if changed:
        raise broken(component, kind, meddling(changed), *made)


def meddling(changed: Sequence[str]) -> str:
    """What is wrong with code that changes settings which all code shares."""
    return f"must leave {' and '.join(changed)} as it finds it, since the rest of the run depends on that"


def raised(error: BaseException) -> str:
    """`raised ValueError: text (FILE, line N)`, in one line."""
    text = text_of(error)
    return f"raised {type(error).__name__}{': ' if text else ''}{text}{place_of(error)}"


def place_of(error: BaseException) -> str:
    """The place of an error, ` (FILE, line N)`, in the code that nern called; empty where there is none.

    It is the last line in the package, or in the folder, of the first file outside of nern, torch and Python's modules. Code of NumPy
    that a plugin calls, and code of other packages that hook into imports, is not the plugin's place.
    """
    if isinstance(error, SyntaxError):  # the message of a SyntaxError contains file and line already
        return f" ({error.filename}, line {error.lineno})" if error.filename and "line" not in str(error) else ""
    frames = traceback.extract_tb(error.__traceback__)
    called = max((index for index, frame in enumerate(frames) if frame.filename.startswith(_NERN)), default=-1) + 1
    outside = [frame for frame in frames[called:] if _is_outside(frame.filename)]
    if not outside:  # nern's own code failed on what a plugin handed to it
        outside = [frame for frame in reversed(frames) if _is_outside(frame.filename)][:1]
    own = [frame for frame in outside if frame.filename.startswith(_home(outside[0].filename))]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""


def _home(file: str) -> str:
    """The folder of an installed file's package, or the folder that another file lies in; the file itself where it is a module alone."""
    before, packages, inside = file.rpartition("-packages" + os.sep)
    if not packages:
        return os.path.dirname(file)
    return before + packages + inside.split(os.sep)[0]


def place_of_code(problem: str, *things: Any) -> str:
    """` (FILE, line N)` of the method that a problem begins with, or else of the first of the things, where that is no code of nern."""
    method = re.match(r"(\w+)\(", problem)
    named = [getattr(thing, method[1], None) for thing in things] if method else []
    for thing in [*named, *things]:
        for code in (thing, type(thing)):
            try:
                code = inspect.unwrap(code)
                file, line = inspect.getsourcefile(code), inspect.getsourcelines(code)[1]
            except (TypeError, OSError, ValueError):
                continue
            if file and _is_outside(file):
                return f" ({file}, line {line})"
    return ""


def _is_outside(file: str) -> bool:
    """Whether a file is none of nern's, of torch's, of pluggy's, of attrs' or of Python's own, and no code without a file."""
    if file.startswith((_NERN, _TORCH, *_between(), "<")):
        return False
    return not file.startswith(_PYTHON) or "-packages" in file[len(_PYTHON) :]


def described_value(value: Any) -> str:
    """`[2, 10] float32`, `a list`, as messages call what a component gave."""
    if isinstance(value, torch.Tensor):
        return f"{list(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    return "nothing" if value is None else f"{'an' if type(value).__name__[0] in 'aeiou' else 'a'} {type(value).__name__}"
