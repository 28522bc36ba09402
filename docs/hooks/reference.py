"""Makes the reference pages from the code when the site is built: extension points, configuration, presets, verbs, API.

An option, component, hook or verb without a description fails the build. The repository holds none of these pages, so they cannot
be out of date.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import pkgutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs
import click
import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

import nern
from nern import hookspecs, interfaces, testing, toolkit
from nern.cli.main import cli
from nern.config import experiment
from nern.config.defaults import DEFAULTS
from nern.config.sources import presets as shipped_presets
from nern.options import OptionInfo, describe
from nern.registry.discovery import create_registry
from nern.registry.registry import KINDS, Entry, Registry

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


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """Add the generated pages and their navigation entries."""
    registry = create_registry(entry_points=False)  # the site must not depend on installed plugins
    pages = dict(all_pages(registry))
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    config.nav = complete_navigation(config.nav or [], [file.src_uri for file in files.documentation_pages()], list(pages))
    return files


def all_pages(registry: Registry) -> Iterator[tuple[str, str]]:
    """The Markdown of all generated pages, by path."""
    yield "extend/index.md", extension_points(registry)
    for kind in KINDS:
        yield f"extend/{kind}.md", extension_point(kind, registry)
    yield "reference/configuration.md", configuration_reference()
    yield "reference/presets.md", presets(shipped_presets())
    yield "reference/cli.md", verbs(cli)
    yield from api_pages()


def complete_navigation(nav: list[Any], existing: list[str], made: list[str]) -> list[Any]:
    """Expand entries such as `Title: api/`, and put pages that no entry names under "More"."""

    def written(entry: Any) -> Any:
        if isinstance(entry, dict):
            return {title: written(value) for title, value in entry.items()}
        if isinstance(entry, list):
            return [written(item) for item in entry]
        return [path for path in made if path.startswith(entry)] if entry.endswith("/") else entry

    complete = written(nav)
    named = set(_paths(complete))
    more = [path for path in existing if path not in named]
    return [*complete, {"More": more}] if more else complete


def _paths(entry: Any) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    for item in entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ():
        yield from _paths(item)


# -- extension points ------------------------------------------------------------------------------------------------


def plural(kind: str) -> str:
    """The plural of an extension point as the hook spells it: `Samplers` for `sampler`."""
    return KINDS[kind][0].removeprefix("nern_").capitalize()


def extension_points(registry: Registry) -> str:
    """The page that lists all extension points."""
    rows = [
        (
            f"[{plural(kind)}]({kind}.md)",
            f"`{hook}`",
            documented(getattr(hookspecs, hook), hook),
            ", ".join(f"[`{name}`]({kind}.md#{name})" for name in registry.names(kind)),
        )
        for kind, (hook, _) in KINDS.items()
    ]
    return f"""# Extension points

{inspect.getdoc(hookspecs)}

{table(("what", "hook", "what a component is", "built in"), rows)}

The hooks that watch a run stand with the [observers](observer.md). What components have in common:

{inspect.getdoc(interfaces)}

[Write an architecture plugin](../architecture-plugin.md) builds a package from nothing.
"""


def extension_point(kind: str, registry: Registry) -> str:
    """The page of one extension point: its hook, its interface, and the built-in components with all options."""
    hook, interface = KINDS[kind]
    check_attributes(interface)
    entries = registry.entries(kind)
    rows = [(f"[`{entry.name}`](#{entry.name})", component_summary(entry)) for entry in entries]
    watching = watch_hooks() if kind == "observer" else ""
    return f"""# {plural(kind)}

{documented(getattr(hookspecs, hook), hook)}

{table(("name", "what it is"), rows)}

{watching}
## Hook

::: nern.hookspecs.{hook}
    options: {{heading_level: 3}}

## Interface

::: nern.interfaces.{interface.__name__}
    options: {{heading_level: 3}}

[`nern.testing.check_{kind}`][nern.testing.check_{kind}] checks a component against all of this.

## Built in

{"".join(component(entry) for entry in entries)}"""


def component(entry: Entry) -> str:
    """The section of one component."""
    options = describe(entry.cls)
    check_described(options, f"{entry.kind} '{entry.name}'")
    details = inspect.cleandoc(entry.cls.__dict__.get("__doc__") or "").partition("\n\n")[2].strip()
    section = f"### `{entry.name}` {{ #{entry.name} }}\n\n{component_summary(entry)}\n\n"
    section += f"{details}\n\n" if details else ""
    section += option_table(options) if options else "It has no options.\n"
    if entry.kind == "launcher":
        section += f"\n```text\nnern sweep PRESET_OR_YAML seed=0,1 --launcher {entry.name} --jobs 2\n```\n"
    elif not any(option.required for option in options):
        values = {"name": entry.name, **{option.name: option.default for option in options}}
        key = {"loss": "losses", "observer": "observers"}.get(entry.kind, entry.kind)
        written = {entry.name: {k: v for k, v in values.items() if k != "name"}} if key in ("losses", "observers") else values
        section += f"\n```yaml\n{yaml.safe_dump({key: written}, sort_keys=False, allow_unicode=True).rstrip()}\n```\n"
    return f"{section}\nFrom `{entry.cls.__module__}`.\n\n"


def component_summary(entry: Entry) -> str:
    """The first line of a component's docstring.

    Raises:
        PluginError: the component has no docstring.
    """
    if not entry.summary:
        raise PluginError(f"{entry.kind} '{entry.name}' has no docstring")
    return escape(entry.summary)


def watch_hooks() -> str:
    """The hooks that are called during a run, each with its arguments."""
    text = "## Hooks that watch a run\n\nAn implementation takes any subset of the arguments.\n\n"
    offering = {hook for hook, _ in KINDS.values()}
    for name, hook in vars(hookspecs).items():
        if name.startswith("nern_") and name not in offering:
            documented(hook, name)
            text += f"::: nern.hookspecs.{name}\n    options: {{heading_level: 3}}\n\n"
    return text


# -- configuration ---------------------------------------------------------------------------------------------------


def sections() -> dict[str, type]:
    """The attrs classes that a configuration is made of, by name."""
    return {
        name: cls
        for name, cls in reversed(vars(experiment).items())
        if isinstance(cls, type) and attrs.has(cls) and cls.__module__ == experiment.__name__
    }


def section_options(cls: type) -> list[OptionInfo]:
    """The options of a section. The options of a loss term's component stand in the same mapping, so its field `loss` is left out."""
    options = [option for option in describe(cls) if cls is not experiment.LossTerm or option.name != "loss"]
    defaults = DEFAULTS if cls is experiment.Experiment else {}
    return [attrs.evolve(option, default=defaults.get(option.name, option.default)) for option in options]


def configuration_reference() -> str:
    """The page of all configuration keys."""
    text = """# Configuration

An experiment is a YAML file, or the name of a [preset](presets.md). Every value can be overridden on the command line
by its dotted path, `predictor.hidden=140` or `phases.0.iterations=100` (or `phases.NAME.iterations=100`), and in Python
by a mapping from such paths to values. `nern config FILE` checks an experiment and prints every value that it resolves
to. Numbers such as `1e-4` are read as numbers.

A *component* (`architecture`, `embedding`, `predictor`, …) is a mapping with its `name` and its own options, which stand
on the page of its [extension point](../extend/index.md); a component without options may be written as its name alone.
`losses` and `observers` map a component's name to its options; a term that the defaults contain is switched off by
`null`.

"""
    for name, cls in sections().items():
        options = section_options(cls)
        check_described(options, f"configuration section {name}")
        text += f"## {name}\n\n{escape(inspect.getdoc(cls) or '')}\n\n{option_table(options, KIND_LINKS)}\n"
    return text


KIND_LINKS = {interface.__name__: f"../extend/{kind}.md" for kind, (_, interface) in KINDS.items()}


def presets(shipped: Mapping[str, str]) -> str:
    """The page of the shipped experiments: single ones with their YAML, families as tables."""
    text = "# Presets\n\n`nern presets` lists them; `nern presets NAME -o mine.yaml` writes one in full, ready to edit.\n\n"
    families: dict[str, list[str]] = {}
    for name in shipped:
        families.setdefault(name.partition("/")[0] if "/" in name else "", []).append(name)
    alone = families.pop("", [])
    text += table(("name", "what it is"), [(f"[`{name}`](#{name})", escape(headline(shipped[name]))) for name in alone])
    for name in alone:
        body = "\n    ".join(["```yaml", *shipped[name].rstrip().splitlines(), "```"])
        text += f"\n## `{name}` {{ #{name} }}\n\n{escape(headline(shipped[name]))}\n\n"
        text += f'??? note "{name}.yaml"\n\n    {body}\n'
    for family, names in families.items():
        title = headline(shipped[names[0]]).partition(":")[0]
        text += f"\n## {escape(title)} {{ #{family} }}\n\nEach row is another experiment with some values set.\n\n"
        text += table(("name", "experiment and values"), [(f"`{name}`", _settings(headline(shipped[name]))) for name in names])
    return text


def _settings(text: str) -> str:
    """Format the summary `Table 1: base a=1 b=2`, with the base and each value as code."""
    return " ".join(f"`{word}`" for word in text.rpartition(": ")[2].replace("|", "&#124;").split())


def headline(text: str) -> str:
    """The comment in a preset's first line."""
    return text.splitlines()[0].removeprefix("# ")


# -- command line ----------------------------------------------------------------------------------------------------


def verbs(group: click.Group) -> str:
    """The page of the command line."""
    text = f"""# Command line

{group.help}

`nern VERB --help` prints the same. With `--json`, stdout is one JSON object and messages go to stderr. Exit codes: 0
done, 2 a mistake that one message explains, 130 interrupted, 1 anything else.

"""
    for path, command in commands(group):
        text += verb(path, command)
    return text


def commands(group: click.Group, path: str = "nern") -> Iterator[tuple[str, click.Command]]:
    """Every verb with its path such as `nern train`, including verbs of groups."""
    context = click.Context(group, info_name=path)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")


def verb(path: str, command: click.Command) -> str:
    """The section of one verb."""
    if not command.help:
        raise PluginError(f"{path} has no help")
    context = click.Context(command, info_name=path, show_default=True)
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    rows = []
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            if not parameter.help:
                raise PluginError(f"{path} {parameter.opts[0]} has no help")
            value = "" if parameter.is_flag else f" {parameter.make_metavar(context)}"
            described = parameter.get_help_record(context)  # the help text with the default, as --help prints it
            text = described[1] if described else parameter.help
            rows.append((", ".join(f"`{option}{value}`" for option in parameter.opts), escape(text)))
    options = table(("option", "what it does"), rows) if rows else ""
    shown = (command.epilog or "").partition("Example:")[2].strip()
    examples = f"```text\n{shown}\n```\n\n" if shown else ""
    return f"## `{path}`\n\n{inspect.cleandoc(command.help)}\n\n```text\n{usage}\n```\n\n{examples}{options}\n"


# -- API -------------------------------------------------------------------------------------------------------------


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

[`nern.testing`](testing.md) holds the contract checks for plugins, [`nern.toolkit`](toolkit.md) what components are made from.
What may change is written down under
[Compatibility](../compatibility.md).
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


def undescribed_attributes(cls: type) -> list[str]:
    """Public data attributes of a class without a description, which is a docstring below them or the help of an option."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(body, ast.ClassDef)
    undescribed = []
    for statement, following in itertools.zip_longest(body.body, body.body[1:]):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            name = statement.target.id
            text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            made_by = getattr(getattr(statement.value, "func", None), "id", None)  # options are described in a table
            if not name.startswith("_") and made_by != "option" and not text:
                undescribed.append(name)
    return undescribed


def check_attributes(cls: type) -> None:
    """Raise PluginError where a public data attribute of a class has no description."""
    missing = undescribed_attributes(cls)
    if missing:
        raise PluginError(f"{cls.__module__}.{cls.__name__}: no docstring below {', '.join(missing)}")


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


# -- tables ----------------------------------------------------------------------------------------------------------


def documented(described: Any, name: str) -> str:
    """The docstring of an object.

    Raises:
        PluginError: the object has no docstring.
    """
    text = inspect.getdoc(described)
    if not text:
        raise PluginError(f"{name} has no docstring")
    return text


def first_line(described: Any, name: str) -> str:
    """The first sentence or line of a docstring."""
    return escape(documented(described, name).splitlines()[0])


def check_described(options: Iterable[OptionInfo], owner: str) -> None:
    """Raise PluginError where an option has no help."""
    missing = [option.name for option in options if not option.help]
    if missing:
        raise PluginError(f"{owner}: no help for {', '.join(missing)}")


def option_table(options: Iterable[OptionInfo], links: Mapping[str, str] | None = None) -> str:
    """Names, types, defaults and descriptions of options."""
    return table(
        ("option", "type", "default", "what it does"),
        [(f"`{option.name}`", type_text(option.type, links or {}), default_text(option), escape(option.help)) for option in options],
    )


def type_text(name: str, links: Mapping[str, str]) -> str:
    """A type's name, linked where it is a component's or a section's."""
    targets = {**links, **{section: f"#{section.lower()}" for section in sections()}} if links else {}
    words = [f"[{word}]({targets[word]})" if word in targets else word for word in escape(name).split(" ")]
    return " ".join(words)


def default_text(option: OptionInfo) -> str:
    """A default as YAML."""
    if option.required:
        return "*required*"
    text = yaml.safe_dump(option.default, default_flow_style=True, allow_unicode=True, width=10_000).removesuffix("...\n").strip()
    return f"`{text.replace('|', '&#124;')}`"


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def escape(text: str) -> str:
    """Text on one line, with Markdown's characters escaped, except in code between backticks, where a backslash would be visible."""
    parts = " ".join(text.split()).replace("|", "&#124;").split("`")
    for at in range(0, len(parts), 2):
        for character in "\\*_<$":
            parts[at] = parts[at].replace(character, f"\\{character}")
    return "`".join(parts)
