"""Writes the skeleton of a plugin package, which is installable and tested, and has one place to fill in."""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from string import Template

from nern.errors import ConfigError, PluginError
from nern.options import article
from nern.registry.kinds import HOOKS
from nern.support.messages import cannot_write
from nern.support.version import __version__

#: The check that the generated test calls, and how the README's experiment uses the component.
CALLS = {"task": "{cls}(), Preprocessing(mean=(0.5,), std=(0.3,), size=(1, 8, 8))"}
EXAMPLES = {"loss": "losses:\n  {name}: {{}}", "observer": "observers:\n  {name}: {{}}", "metric": "metrics:\n  top1: {{}}\n  {name}: {{}}"}


def new_plugin(name: str, kind: str | Sequence[str], folder: Path = Path()) -> Path:
    """Write the package `name` into `folder`; returns its own folder.

    Args:
        kind: one or several extension points; with several, each has its own module in the package.

    Raises:
        ConfigError: a kind is no extension point, or `name` is no possible name of a package.
        PluginError: there is something of that name already, or the folder cannot be written.
    """
    kinds = [kind] if isinstance(kind, str) else list(dict.fromkeys(kind))
    for one in kinds:
        if one not in HOOKS:
            raise ConfigError(f"--kind {one}: there is no such extension point (there are: {', '.join(HOOKS)})")
    module, target = _module(name), folder / name
    if target.exists():
        raise PluginError(f"{target} exists already; name another plugin, or another folder with -o")
    if len(kinds) == 1:
        files = _component_files(name, kinds[0], module, f"{module}/__init__.py", f"tests/test_{module}.py")
    else:
        files, imports = {}, []
        for one in kinds:
            files |= _component_files(name, one, f"{module}.{one}", f"{module}/{one}.py", f"tests/test_{one}.py")
            imports.append(f"from {module}.{one} import {HOOKS[one]} as {HOOKS[one]}\n")
        files[f"{module}/__init__.py"] = f'"""Components for nern: {", ".join(kinds)}."""\n\n' + "".join(sorted(imports))
    about = _names(name, kinds[0], module)
    what = " and ".join(map(article, kinds))
    about |= {"a_kind": what, "A_kind": what[0].upper() + what[1:], "kind": " and ".join(kinds)}
    about["usage"] = _usage([_names(name, one, module) for one in kinds])
    about["place"] = f"{module}/__init__.py" if len(kinds) == 1 else f"{module}/{kinds[0]}.py"
    files |= {path: _template(path).substitute(about) for path in ("pyproject.toml", "README.md")}
    for path, text in files.items():
        try:
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (target / path).write_text(text, encoding="utf-8")
        except OSError as error:
            raise PluginError(cannot_write(target / path, error, "name another folder with -o")) from error
    return target


def _component_files(name: str, kind: str, module: str, code: str, test: str) -> dict[str, str]:
    """The component's own module and its test: path → text."""
    names = _names(name, kind, module)
    tested = _template("test.py").substitute(names)
    if kind == "task":
        tested = tested.replace("from nern import create_registry", "from nern import Preprocessing, create_registry")
    return {code: _template(f"kinds/{kind}.py").substitute(names), test: tested}


def _names(name: str, kind: str, module: str) -> dict[str, str]:
    """The values of the templates' placeholders."""
    component = re.sub(r"^nern-", "", name.replace("_", "-"))
    major, minor = __version__.split(".")[:2]
    cls = _class(component, kind)
    return {
        "package": name,
        "module": module,
        "component": component,
        "cls": cls,
        "kind": kind,
        "a_kind": article(kind),
        "A_kind": article(kind).capitalize(),
        "nern_version": f"{major}.{minor}",
        "nern_next": f"{major}.{int(minor) + 1}",
        "call": CALLS.get(kind, "{cls}()").format(cls=cls),
        "example": EXAMPLES.get(kind, "{kind}: {{name: {name}}}").format(kind=kind, name=component),
    }


def _usage(components: Sequence[dict[str, str]]) -> str:
    """How each component is used, for the README: launchers in a sweep's command, all others in an experiment."""
    examples = [names["example"] for names in components if names["kind"] != "launcher"]
    parts = ["An experiment uses the component by its name:\n\n```yaml\n" + "\n".join(examples) + "\n```"] if examples else []
    parts += [
        f"A sweep uses the launcher by its name:\n\n```sh\nnern sweep digits seed=0,1 --launcher {names['component']}\n```"
        for names in components
        if names["kind"] == "launcher"
    ]
    return "\n\n".join(parts)


def _module(name: str) -> str:
    """The name of a package's module; raises ConfigError for names that pip or Python would refuse."""
    module = name.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", name):
        raise ConfigError(f"'{name}' is no package name: use lower-case letters, digits and hyphens, such as nern-my-sampler")
    if keyword.iskeyword(module) or module in sys.stdlib_module_names:
        raise ConfigError(f"'{name}' is a word or a module of Python's own; name it nern-{name}")
    if importlib.util.find_spec(module) is not None:
        raise ConfigError(f"a module '{module}' is installed already; name the plugin differently")
    return module


def _class(component: str, kind: str) -> str:
    """The class name of a component, such as `TwoStepSampler` for `two-step`."""
    name = "".join(part.capitalize() for part in component.split("-"))
    if not name.lower().endswith(kind):
        name += kind.capitalize()
    return name if name[0].isalpha() and name.lower() != kind else f"My{name}"


def _template(name: str) -> Template:
    return Template(resources.files("nern").joinpath("scaffold", "templates", f"{name}.template").read_text(encoding="utf-8"))
