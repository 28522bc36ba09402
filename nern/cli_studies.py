"""Verbs around runs: grids of them, original networks for them, and what can be learnt from them."""

from __future__ import annotations

import json

import click

from nern.arguments import JSON, NO_PLUGIN, OVERRIDES


@click.command()
@click.argument("experiment", metavar="PRESET_OR_YAML")
@OVERRIDES
@JSON
@NO_PLUGIN
def sweep(experiment: str, overrides: tuple[str, ...], as_json: bool, disabled: tuple[str, ...]) -> None:
    """Run a grid: comma-separated values are swept over, as in seed=0,1,2,3 predictor.hidden=140,160.

    Called again it goes on where it stopped. Writes mean ± 95 % confidence interval over the seeds as CSV, JSON and
    Markdown.
    """
    from nern.sweep import parse_grid
    from nern.sweep import sweep as run_all

    axes, single = parse_grid(overrides)
    table, folder = run_all(experiment, axes, single, disabled=disabled, report=lambda line: click.echo(line, err=True))
    click.echo(json.dumps({**table.to_dict(), "folder": str(folder)}) if as_json else table.markdown(), nl=as_json)
    click.echo(f"tables: {folder / 'sweep.md'}, .csv, .json", err=True)


VERBS = (sweep,)
