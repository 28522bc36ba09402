"""`nern report` and `nern info`: show what runs and files hold."""

from __future__ import annotations

import json
from pathlib import Path

import click

from nern.cli import arguments, printing
from nern.cli.arguments import JSON, PATH, PLUGINS, RUN, example


@click.command(epilog=example("nern report runs/digits -o report.html"))
@click.argument("runs", nargs=-1, required=True, metavar="[LABEL=]RUN_DIR_OR_FILE...")
@click.option("--weights", type=PATH, show_default="where the run found them", help="The file of the original weights.")
@arguments.output("the page", default="report.html")
@JSON
@PLUGINS
def report(
    runs: tuple[str, ...], weights: Path | None, output: Path | None, as_json: bool, plugins: tuple[str, ...], disabled: tuple[str, ...]
) -> None:
    """Write one HTML page about runs, to be read or sent.

    It shows accuracy, bytes, curves, errors and kernels. The page needs no internet connection and no other file. No images are
    needed to make it.
    """
    from nern.studies.report.page import report as make

    written = make(*runs, weights=weights, plugins=plugins, disabled=disabled).save(output or Path("report.html"))
    size = written.stat().st_size
    click.echo(json.dumps({"file": str(written), "bytes": size}) if as_json else f"{written}: {size:,} bytes")


@click.command(epilog=example("nern info runs/digits/model.nern"))
@RUN
@PLUGINS
@JSON
def info(run: Path, plugins: tuple[str, ...], disabled: tuple[str, ...], as_json: bool) -> None:
    """Print what is in a run folder or a representation file.

    It prints the network, the predictor, the figures and the bytes by part. Neither images nor the network's weights are needed.
    """
    from nern.registry.discovery import create_registry
    from nern.run.folder import plugins_of
    from nern.studies.description import describe_place

    description = describe_place(run, create_registry([*plugins_of(run), *plugins], disabled=disabled))
    if as_json:
        click.echo(json.dumps(description.to_dict()))
        return
    width = printing.width_of_terminal()
    click.echo(printing.two_columns(description.facts.items(), width=width))
    if description.bytes is None:
        return
    total, original = description.bytes["total"], description.bytes["original"]
    click.echo(f"\n{total:,} bytes; the original network has {original:,}, {original / total:.2f} times as many\n")
    parts = {part: size for part, size in description.bytes.items() if part in printing.PARTS and size}
    rows = [(part, f"{size:,}", f"{100 * size / total:.1f} %", printing.PARTS[part][0]) for part, size in parts.items()]
    printing.table(("part", "bytes", "share", "what it is"), rows)


VERBS = (report, info)
