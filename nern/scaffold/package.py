"""Writes the skeleton of a plugin package: installable, tested, with one place to fill in."""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from importlib import resources
from pathlib import Path
from string import Template

from nern.errors import ConfigError, PluginError
from nern.options import article
from nern.registry.kinds import HOOKS
from nern.support.messages import cannot_write
from nern.version import __version__

#: What the generated test calls, and how the README's experiment uses the component.
CALLS = {"task": "{cls}(), Preprocessing(mean=(0.5,), std=(0.3,), size=(1, 8, 8))"}
EXAMPLES = {"loss": "losses:\n  {name}: {{}}", "observer": "observers:\n  {name}: {{}}", "metric": "metrics:\n  top1: {{}}\n  {name}: {{}}"}


def new_plugin(name: str, kind: str, folder: Path = Path()) -> Path:
    """Write the package `name` into `folder`; returns its own folder.

    Raises:
        ConfigError: `kind` is no extension point, or `name` cannot be a package's.
        PluginError: there is something of that name already, or the folder cannot be written.
    """
    if kind not in HOOKS:
        raise ConfigError(f"--kind {kind}: there is no such extension point (there are: {', '.join(HOOKS)})")
    module = _module(name)
    target = folder / name
    component = re.sub(r"^nern-", "", name.replace("_", "-"))
    major, minor = __version__.split(".")[:2]
    names = {
        "package": name,
        "module": module,
        "component": component,
        "cls": _class(component, kind),
        "kind": kind,
        "a_kind": article(kind),
        "A_kind": article(kind).capitalize(),
        "nern_version": f"{major}.{minor}",
        "nern_next": f"{major}.{int(minor) + 1}",
    }
    names["call"] = CALLS.get(kind, "{cls}()").format(**names)
    names["example"] = EXAMPLES.get(kind, "{kind}: {{name: {name}}}").format(kind=kind, name=component)
    files = {
        "pyproject.toml": _template("pyproject.toml"),
        "README.md": _template("README.md"),
        f"{module}/__init__.py": _template(f"kinds/{kind}.py"),
        f"tests/test_{module}.py": _template("test.py"),
    }
    if target.exists():
        raise PluginError(f"{target} exists already; name another plugin, or another folder with -o")
    for path, template in files.items():
        text = template.substitute(names)
        if kind == "task" and path.startswith("tests/"):
            text = text.replace("from nern import create_registry", "from nern import Preprocessing, create_registry")
        try:
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (target / path).write_text(text, encoding="utf-8")
        except OSError as error:
            raise PluginError(cannot_write(target / path, error, "name another folder with -o")) from error
    return target


def _module(name: str) -> str:
    """The module of a package; refuses names that pip or Python would not take."""
    module = name.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", name):
        raise ConfigError(f"'{name}' is no package name: use lower-case letters, digits and hyphens, such as nern-my-sampler")
    if keyword.iskeyword(module) or module in sys.stdlib_module_names:
        raise ConfigError(f"'{name}' is a word or a module of Python's own; name it nern-{name}")
    if importlib.util.find_spec(module) is not None:
        raise ConfigError(f"a module '{module}' is installed already; name the plugin differently")
    return module


def _class(component: str, kind: str) -> str:
    """`two-step` → TwoStepSampler."""
    name = "".join(part.capitalize() for part in component.split("-"))
    if not name.lower().endswith(kind):
        name += kind.capitalize()
    return name if name[0].isalpha() and name.lower() != kind else f"My{name}"


def _template(name: str) -> Template:
    return Template(resources.files("nern").joinpath("scaffold", "templates", f"{name}.template").read_text(encoding="utf-8"))
