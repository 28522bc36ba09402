"""What is public stays as it is, or the changelog says so.

`public_api.txt` holds every public name with its signature. After a change that the changelog tells of, write it anew:

    python tests/test_public_api.py
"""

from __future__ import annotations

import difflib
import enum
import hashlib
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

import nern
from nern import hookspecs, testing, toolkit

SNAPSHOT = Path(__file__).with_name("public_api.txt")
CHANGELOG = Path(__file__).parents[1] / "CHANGELOG.md"
HEADER = "# changelog "


def surface() -> list[str]:
    """Every public name with its signature, one a line."""
    lines = [line for name in nern.__all__ for line in _describe(f"nern.{name}", getattr(nern, name))]
    lines += [f"hook {name}{_signature(function)}" for name, function in vars(hookspecs).items() if name.startswith("nern_")]
    lines += [line for name in testing.__all__ for line in _describe(f"nern.testing.{name}", getattr(testing, name))]
    lines += [line for path, value in _of_toolkit() for line in _describe(path, value)]
    return lines


def _of_toolkit() -> Iterator[tuple[str, Any]]:
    """What the modules of the toolkit define, or hand on where they define nothing."""
    for info in sorted(pkgutil.iter_modules(toolkit.__path__), key=lambda info: info.name):
        module = importlib.import_module(f"{toolkit.__name__}.{info.name}")
        values = {name: value for name, value in vars(module).items() if not name.startswith("_") and hasattr(value, "__module__")}
        own = {name: value for name, value in values.items() if value.__module__ == module.__name__}
        handed_on = {name: value for name, value in values.items() if value.__module__.startswith("nern.")}
        yield from ((f"{module.__name__}.{name}", value) for name, value in sorted((own or handed_on).items()))


def _describe(path: str, value: Any) -> Iterator[str]:
    if path.endswith(".__version__"):
        return
    if not inspect.isclass(value):
        yield f"{path}{_signature(value)}" if inspect.isroutine(value) else f"{path}: {type(value).__name__}"
        return
    bases = ", ".join(base.__name__ for base in value.__bases__ if base not in (object, enum.Enum) and base.__name__ != "ABC")
    yield f"class {path}({bases})"
    if attrs.has(value):
        for field in attrs.fields(value):
            if field.init and not field.name.startswith("_"):
                default = "" if field.default is attrs.NOTHING else f" = {_default(field.default)}"
                yield f"{path}.{field.name}: {_annotation(value, field.name)}{default}"
    elif value.__init__ is not object.__init__ and not issubclass(value, Exception):
        yield f"{path}.__init__{_signature(value.__init__)}"
    own = {name: member for cls in reversed(value.__mro__) if cls.__module__.startswith("nern") for name, member in vars(cls).items()}
    for name, member in sorted(own.items()):
        if name.startswith("_") and name != "__call__":
            continue
        if isinstance(member, (staticmethod, classmethod)):
            yield f"{path}.{name}{_signature(member.__func__)}"
        elif inspect.isfunction(member):
            yield f"{path}.{name}{_signature(member)}"
        elif isinstance(member, property) or type(member).__name__ == "cached_property":
            yield f"{path}.{name} (property)"


def _annotation(cls: type, name: str) -> str:
    """A field's type as its class writes it; `attrs.fields` gives another text once anybody has resolved the class's types."""
    return next(str(vars(base)["__annotations__"][name]) for base in cls.__mro__ if name in vars(base).get("__annotations__", {}))


def _signature(function: Any) -> str:
    if not callable(function):
        return ""
    return re.sub(r"<function (\w+) at 0x[0-9a-f]+>", r"\1", str(inspect.signature(function))).replace("'", "")


def _default(default: Any) -> str:
    return "…" if isinstance(default, attrs.Factory) or callable(default) else repr(default)  # type: ignore[arg-type]


def top_section(changelog: str) -> str:
    """The newest section of a changelog, which is the one in the making."""
    return re.split(r"^## ", changelog, flags=re.MULTILINE)[1].strip()


def digest(changelog: str) -> str:
    return hashlib.sha256(top_section(changelog).encode()).hexdigest()[:16]


def updated(before: str, lines: list[str], changelog: str) -> str:
    """The snapshot's new text; refuses a changed surface where the changelog is still as it was."""
    recorded, old = before.partition("\n")[0].removeprefix(HEADER), before.splitlines()[1:]
    if old and old != lines and recorded == digest(changelog):
        raise SystemExit("the public names or signatures changed, and CHANGELOG.md says nothing new; tell its readers first")
    return "\n".join([HEADER + digest(changelog), *lines]) + "\n"


def test_public_names_and_signatures_are_as_recorded() -> None:
    recorded = SNAPSHOT.read_text(encoding="utf-8").splitlines()[1:]
    difference = [
        line for line in difflib.unified_diff(recorded, surface(), lineterm="", n=0) if line[:1] in "+-" and line[:3] not in ("+++", "---")
    ]
    assert not difference, "public API changed; add an entry to CHANGELOG.md, then run python tests/test_public_api.py:\n" + "\n".join(
        difference
    )


def test_changed_surface_needs_a_changelog_entry() -> None:
    changelog = "# Changelog\n\n## [0.2.0]\n\n- Added x.\n\n## [0.1.0]\n\n- All.\n"
    before = updated("", ["nern.a()"], changelog)
    assert updated(before, ["nern.a()"], changelog) == before
    with pytest.raises(SystemExit, match="CHANGELOG"):
        updated(before, ["nern.a(x)"], changelog)
    older = changelog.replace("- All.", "- All, and more.")
    with pytest.raises(SystemExit, match="CHANGELOG"):  # an entry under an old release is none
        updated(before, ["nern.a(x)"], older)
    told = updated(before, ["nern.a(x)"], changelog.replace("- Added x.", "- Added x.\n- `nern.a` takes x."))
    assert told.splitlines()[1:] == ["nern.a(x)"]


def test_surface_sees_names_fields_methods_and_hooks() -> None:
    lines = surface()
    for expected in (
        "class nern.Architecture()",
        "nern.Architecture.weights: str | None = None",
        "nern.Architecture.build(self) -> nn.Module",
        "nern.Engine.fit(self, resume: bool = False) -> Result",
        "nern.LayerMapping.count (property)",
        "nern.hookimpl: ",
        "hook nern_checkpoint_saved(path: Path, iteration: int) -> None",
        "nern.testing.check_sampler(sampler: Sampler) -> None",
        "nern.toolkit.messages.did_you_mean(word: str, known: Iterable[str], otherwise: str = , ",
        "class nern.toolkit.images.ImageData(Data)",
    ):
        assert any(line.startswith(expected) for line in lines), expected


def test_type_checkers_and_the_interpreter_see_the_same_names() -> None:
    source = Path(nern.__file__).read_text(encoding="utf-8")
    block = source.partition("if TYPE_CHECKING:")[2].partition("_PLACES")[0]
    declared = set(re.findall(r"\b[A-Za-z_]+\b", re.sub(r"from nern\S* import|\w+ as", "", block)))
    assert declared == set(nern.__all__) - {"__version__"}
    for name in nern.__all__:
        assert getattr(nern, name) is not None


if __name__ == "__main__":
    old = SNAPSHOT.read_text(encoding="utf-8") if SNAPSHOT.exists() else ""
    SNAPSHOT.write_text(updated(old, surface(), CHANGELOG.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"{SNAPSHOT}: {len(surface())} public names and signatures\n")
