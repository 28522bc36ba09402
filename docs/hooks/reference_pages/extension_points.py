"""The pages of extension points: each with its hook, its interface and the built-in components."""

from __future__ import annotations

import inspect

import yaml
from mkdocs.exceptions import PluginError

from nern import hookspecs, interfaces
from nern.options import describe
from nern.registry.registry import KINDS, Entry, Registry
from reference_pages.descriptions import check_attributes, check_described, documented
from reference_pages.markdown import escape, option_table, table


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

The hooks that watch a run are on the page [Observers](observer.md). All components have this in common:

{inspect.getdoc(interfaces)}

The page [Write an architecture plugin](../architecture-plugin.md) builds a package from nothing.
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
    text = "## Hooks that watch a run\n\nAn implementation may take any of the arguments, in any order.\n\n"
    offering = {hook for hook, _ in KINDS.values()}
    for name, hook in vars(hookspecs).items():
        if name.startswith("nern_") and name not in offering:
            documented(hook, name)
            text += f"::: nern.hookspecs.{name}\n    options: {{heading_level: 3}}\n\n"
    return text
