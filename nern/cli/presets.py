"""`nern presets`: lists the experiments that ship, and prints one."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import click

from nern.cli import arguments, printing
from nern.cli.arguments import JSON, example, say
from nern.errors import ConfigError


@click.command(epilog=example("nern presets digits -o mine.yaml"))
@click.argument("name", required=False)
@arguments.output("the YAML of the preset or recipe NAME", default="stdout")
@JSON
def presets(name: str | None, output: Path | None, as_json: bool) -> None:
    """List the shipped experiments, or print one as YAML.

    A family such as table1 lists its rows. The name of an experiment prints its YAML, ready to edit. The names of recipes
    (data-free, fast, paper, quick, small) print what a recipe sets.
    """
    from nern.config.recipes import recipe, recipes
    from nern.config.sources import no_such_preset, presets
    from nern.studies.report.measured import measured

    if name is not None and name in recipes():
        text = recipes()[name]
        described = {"name": name, "summary": text.splitlines()[0].removeprefix("# "), "values": recipe(name)}
        arguments.show_yaml(text, described, output, as_json)
        return
    shipped = presets()
    if name is not None and name in shipped:
        described = {"name": name, "summary": shipped.summary(name), "values": shipped.values_of(name)}
        arguments.show_yaml(shipped[name], described, output, as_json)
        return
    if output is not None:
        raise click.UsageError("-o writes the YAML of one preset; name it")
    listed = [preset for preset in shipped if name is None or preset.startswith(f"{name.rstrip('/')}/")]
    if not listed and name is not None:
        raise ConfigError(no_such_preset(name))
    known, width = measured(), printing.width_of_terminal()
    if as_json:
        facts = [
            {"name": name, "summary": shipped.summary(name), "measured": attrs.asdict(known[name]) if name in known else None}
            for name in listed
        ]
        click.echo(json.dumps({"presets": facts}))
        return
    told = {preset: f"{known[preset]}; {shipped.summary(preset)}" if preset in known else shipped.summary(preset) for preset in listed}
    if name is not None:
        click.echo(printing.two_columns(told.items(), width=width))
    else:
        families = _families(listed)
        titles = {name: shipped.summary(rows[0]).partition(":")[0] for name, rows in families.items()}
        counts = {
            name: f"{len(rows)} experiments, {len(known.keys() & set(rows)) or 'none'} of them measured" for name, rows in families.items()
        }
        lines = {name: f"{counts[name]}: {titles[name]}" if name.endswith("/") else told[name] for name in families}
        click.echo(printing.one_line_each(lines.items(), width=width))
        say("nern presets NAME lists the rows of a family such as table1, or prints the YAML of an experiment")


def _families(names: list[str]) -> dict[str, list[str]]:
    """Presets by family, such as `table1/`; a preset that is no row of a table is a family of its own."""
    families: dict[str, list[str]] = {}
    for name in names:
        family, row, _ = name.partition("/")
        families.setdefault(f"{family}/" if row else name, []).append(name)
    return families
