"""`nern report`: a page about finished runs."""

from __future__ import annotations

import json
from pathlib import Path

import click

from nern.cli import arguments
from nern.cli.arguments import JSON, PATH, PLUGINS, example


@click.command(epilog=example("nern report runs/digits -o report.html"))
@click.argument("runs", nargs=-1, required=True, metavar="[LABEL=]RUN_DIR_OR_FILE...")
@click.option("--weights", type=PATH, help="The original weights, where they are not where the run found them.")
@arguments.output("the page", default="report.html")
@JSON
@PLUGINS
def report(
    runs: tuple[str, ...], weights: Path | None, output: Path | None, as_json: bool, plugins: tuple[str, ...], disabled: tuple[str, ...]
) -> None:
    """Write one HTML page about runs, to be read or sent: accuracy, bytes, curves, errors and kernels.

    The page needs no network and no other file. No images are needed to make it.
    """
    from nern.studies.report.page import report as make

    written = make(*runs, weights=weights, plugins=plugins, disabled=disabled).save(output or Path("report.html"))
    size = written.stat().st_size
    click.echo(json.dumps({"file": str(written), "bytes": size}) if as_json else f"{written}: {size:,} bytes")
