"""The pages of public names, and of the modules that define them."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterable, Iterator
from typing import Any

import attrs

import nern
from nern import testing, toolkit
from nern.registry.registry import KINDS
from reference_pages.descriptions import check_attributes, documented, first_line
from reference_pages.markdown import table

#: Descriptions of public names that are neither classes nor functions, and therefore have no docstring.
VALUES = {
    "Draw": "What `Sampler.start` returns: a function from the step number to the rows that carry gradient, or None for all.",
    "above": "`above(limit)` is a check of an option: its value must be greater than the limit.",
    "at_least": "`at_least(limit)` is a check of an option: its value must not be less than the limit.",
    "at_most": "`at_most(limit)` is a check of an option: its value must not be greater than the limit.",
    "below": "`below(limit)` is a check of an option: its value must be less than the limit.",
    "hookimpl": "Marks a function or method as the implementation of the hook of its name.",
    "__version__": "The version of nern.",
}


def api_pages() -> Iterator[tuple[str, str]]:
    """The pages of the modules that public names come from, and the list of all public names."""
    by_module: dict[str, list[str]] = {}
    for name in nern.__all__:
        if name in nern._MODULES:
            by_module.setdefault(nern._MODULES[name], []).append(name)
    shown_elsewhere = {interface.__name__ for _, interface in KINDS.values()}
    rows = []
    for module, names in by_module.items():
        for name in names:
            public = getattr(nern, name)
            rows.append((f"[`nern.{name}`][{module}.{name}]", VALUES.get(name) or first_line(public, name)))
    rows.append(("`nern.__version__`", VALUES["__version__"]))
    yield (
        "api/index.md",
        f"""# Public names

Everything a program or a plugin needs is a name of the package `nern` itself; each is imported when it is first used.

{table(("name", "what it is"), sorted(rows))}

[`nern.testing`](testing.md) has the contract checks for plugins, and [`nern.toolkit`](toolkit.md) has what components are made
from. The page [Compatibility](../compatibility.md) says what may change.
""",
    )
    for module, names in by_module.items():
        members = [name for name in names if name not in shown_elsewhere or module != "nern.interfaces"]
        if members:
            yield f"api/{page_name(module)}.md", api_page(module, members)
    yield "api/testing.md", api_page("nern.testing", testing.__all__)
    yield "api/toolkit.md", toolkit_page()


def toolkit_page() -> str:
    """The page of `nern.toolkit`."""
    text = f"# nern.toolkit\n\n{documented(toolkit, 'nern.toolkit')}\n"
    for module in sorted(info.name for info in pkgutil.iter_modules(toolkit.__path__, "nern.toolkit.")):
        module_object = importlib.import_module(module)
        text += f"\n## {module}\n\n{documented(module_object, module)}\n"
        for name, value in vars(module_object).items():
            if not name.startswith("_") and (inspect.isclass(value) or inspect.isfunction(value)) and is_of_toolkit(value, module):
                if inspect.isclass(value):
                    check_attributes(value)
                text += f"\n::: {module}.{name}\n    options: {{heading_level: 3}}\n"
    return text


def is_of_toolkit(value: Any, module: str) -> bool:
    """Whether a name is defined in a module of the toolkit, or re-exported by a module that defines nothing itself."""
    hands_on = not any(getattr(other, "__module__", None) == module for other in vars(importlib.import_module(module)).values())
    return value.__module__ == module or hands_on


def page_name(module: str) -> str:
    """The name of a module's page: `kernels.orders` for `nern.kernels.orders`."""
    return module.removeprefix("nern.")


def api_page(module: str, members: Iterable[str]) -> str:
    """The page of a module."""
    blocks = ""
    for name in members:
        named = getattr(importlib.import_module(module), name)
        made = ""
        if inspect.isclass(named):
            check_attributes(named)
            made = (
                signature(named) if attrs.has(named) and not issubclass(named, tuple(interface for _, interface in KINDS.values())) else ""
            )
        blocks += f"::: {module}.{name}\n\n{VALUES.get(name, '')}\n{made}\n"
    return f"# {module}\n\n{documented(importlib.import_module(module), module)}\n\n{blocks}"


def signature(cls: type) -> str:
    """The signature of an attrs class that is no component: attrs writes its `__init__`, so that no source shows it."""
    fields = [field for field in attrs.fields(cls) if field.init]
    if not all(field.alias and not field.alias.startswith("_") for field in fields):
        return ""
    lines = []
    for field in fields:
        kind = field.type if isinstance(field.type, str) else getattr(field.type, "__name__", str(field.type))
        default = "" if field.default is attrs.NOTHING else " = …" if isinstance(field.default, attrs.Factory) else f" = {field.default!r}"  # type: ignore[arg-type]
        lines.append(f"    {'*, ' if field.kw_only else ''}{field.alias}: {kind}{default},")
    heading = f"### Signature of `{cls.__name__}` {{ #signature-{cls.__name__.lower()} }}\n"
    return "\n".join([heading, "```python", f"{cls.__name__}(", *lines, ")", "```", ""])
