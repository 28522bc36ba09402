"""`nern plugins` and `nern new-plugin`: show the components that were found, and write the skeleton of a package of new ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from nern.cli import arguments, printing
from nern.cli.arguments import JSON, PLUGINS, example, say
from nern.registry.kinds import HOOKS

if TYPE_CHECKING:
    from nern.options import OptionInfo
    from nern.registry.registry import Registry


@click.command(epilog=example("nern plugins --plugin ./my_sampler.py"))
@PLUGINS
@JSON
def plugins(plugins: tuple[str, ...], disabled: tuple[str, ...], as_json: bool) -> None:
    """List all components, and plugins that failed.

    Components are listed by extension point. A plugin that failed is listed with the reason.
    """
    from nern.registry.discovery import create_registry

    registry = create_registry(plugins, disabled=disabled)
    if as_json:
        click.echo(json.dumps(_described(registry)))
        return
    for kind in HOOKS:
        click.echo(f"{kind}")
        rows = [(entry.name, f"{entry.package} {entry.version}  {entry.summary}") for entry in registry.entries(kind)]
        click.echo(printing.two_columns(rows, indent="  ", width=printing.width_of_terminal()))
    for heading, lines in (("conflict", registry.conflicts()), ("failed", registry.failures), ("left out", registry.left_out)):
        for line in lines:
            say(f"{heading}: {line}")


def _option(option: OptionInfo) -> dict[str, Any]:
    """An option as JSON can hold it: a default that is a component becomes a mapping of its options."""
    default = None if option.required else attrs.asdict(option)["default"]
    return {"name": option.name, "type": option.type, "required": option.required, "default": default, "help": option.help}


def _described(registry: Registry) -> dict[str, Any]:
    from nern.options import describe

    components = [
        {
            "kind": entry.kind, "name": entry.name, "package": entry.package, "version": entry.version,
            "plugin": entry.plugin, "summary": entry.summary,
            "options": [_option(option) for option in describe(entry.cls)],
        }
        for entry in registry.entries()
    ]  # fmt: skip
    return {
        "components": components,
        "failures": [attrs.asdict(failure) for failure in registry.failures],
        "conflicts": registry.conflicts(),
        "left_out": registry.left_out,
    }


@click.command("new-plugin", epilog=example("nern new-plugin nern-my-sampler --kind sampler"))
@click.argument("name")
@click.option(
    "--kind", "kinds", required=True, multiple=True, metavar="KIND", help=f"What the plugin adds (may be repeated): {', '.join(HOOKS)}."
)
@arguments.output("the package: the folder in which its own folder is made", default="the working directory")
@JSON
def new_plugin(name: str, kinds: tuple[str, ...], output: Path | None, as_json: bool) -> None:
    """Write a plugin package to fill in.

    The package installs and has a passing test. One place for each kind of component is marked FILL IN.
    """
    from nern.scaffold import package as scaffold

    target = scaffold.new_plugin(name, kinds, output or Path())
    if as_json:
        click.echo(json.dumps({"folder": str(target)}))
        return
    click.echo(f"{target}: fill in what is marked FILL IN, then\n  pip install -e '{target}[test]' && pytest {target}")


VERBS = (plugins, new_plugin)
