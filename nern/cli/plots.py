"""`nern plot`: figures of runs and the paper's figures, as PNG, SVG or PDF."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nern.cli import arguments
from nern.cli.arguments import JSON, OVERRIDES, PATH, PLUGINS, RUN, example

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OUTPUT = arguments.output("the figure: x.png, x.svg or x.pdf, or x alone for x.png and x.svg", required=True)
LABELLED_RUNS = click.argument("runs", nargs=-1, required=True, metavar="[LABEL=]RUN_DIR...")


@click.group(epilog=example("nern plot kernels runs/digits -o kernels"))
def plot() -> None:
    """Draw figures of runs and figures of the paper.

    They are drawn from the files that runs, sweeps and studies wrote.
    """


@plot.command(epilog=example("nern plot smoothness smooth -o figure3"))
@click.argument("sweep", type=PATH)
@OUTPUT
@JSON
def smoothness(sweep: Path, output: Path, as_json: bool) -> None:
    """Figure 3: accuracy against the smoothness factor.

    It is drawn from the folder of a sweep over pretrain.smoothness.
    """
    from nern.studies import figures as plots

    _save(plots.smoothness(plots.read(sweep, "sweep.json")), output, as_json)


@plot.command(epilog=example('nern plot training "alone=runs/plain" "distilled=runs/distilled" -o figure4'))
@LABELLED_RUNS
@OUTPUT
@JSON
def training(runs: tuple[str, ...], output: Path, as_json: bool) -> None:
    """Figure 4: held-out accuracy over the steps of runs."""
    from nern.studies import figures as plots
    from nern.studies.curves import labelled

    _save(plots.training(labelled(runs)), output, as_json)


@plot.command(epilog=example("nern plot losses runs/digits -o losses.pdf"))
@LABELLED_RUNS
@OUTPUT
@JSON
def losses(runs: tuple[str, ...], output: Path, as_json: bool) -> None:
    """Losses over the steps, on a logarithmic scale.

    For one run the figure shows every term, for several runs their totals. The phases are shaded.
    """
    from nern.studies import run_figures
    from nern.studies.curves import labelled, read_curves

    _save(run_figures.losses({label: read_curves(run) for label, run in labelled(runs).items()}), output, as_json)


@plot.command(epilog=example("nern plot errors runs/digits -o errors"))
@RUN
@OVERRIDES
@OUTPUT
@JSON
@PLUGINS
def errors(run: Path, overrides: tuple[str, ...], output: Path, as_json: bool, plugins: tuple[str, ...], disabled: tuple[str, ...]) -> None:
    """Relative errors of layers and filters.

    No images are needed.
    """
    from nern.studies import run_figures
    from nern.studies.importance import errors_of
    from nern.studies.opening import open_representation

    opened = open_representation(run, overrides, plugins=plugins, disabled=disabled, weights_alone=True)
    _save(run_figures.errors(errors_of(opened)), output, as_json)


@plot.command(epilog=example('nern plot pruning "pruned=runs/digits/pruned" "fine-tuned=tuned" -o figure5'))
@click.argument("curves", nargs=-1, required=True, metavar="[LABEL=]FOLDER...")
@OUTPUT
@JSON
def pruning(curves: tuple[str, ...], output: Path, as_json: bool) -> None:
    """Figure 5, left: accuracy of pruned predictors.

    It is drawn from one or more folders that nern prune wrote.
    """
    from nern.studies import figures as plots
    from nern.studies.curves import labelled

    read = {label: plots.read(folder, "pruning.json") for label, folder in labelled(curves).items()}
    _save(plots.pruning(read), output, as_json)


@plot.command("bytes", epilog=example("nern plot bytes runs/digits/compared -o bytes"))
@click.argument("comparison", type=PATH)
@OUTPUT
@JSON
def bytes_(comparison: Path, output: Path, as_json: bool) -> None:
    """Accuracy against bytes on disk.

    It is drawn from a folder that nern compare wrote, with a line for every kind of file.
    """
    from nern.studies import figures as plots

    _save(plots.comparison(plots.read(comparison, "compare.json")), output, as_json)


@plot.command(epilog=example("nern plot importance runs/digits/importance -o figure5-importance"))
@click.argument("folder", type=PATH)
@OUTPUT
@JSON
def importance(folder: Path, output: Path, as_json: bool) -> None:
    """Figure 5, right: activations of filters.

    The filters are those with the lowest and the highest error, from a folder that nern importance wrote.
    """
    from nern.studies import figures as plots

    _save(plots.importance(folder), output, as_json)


@plot.command(epilog=example("nern plot kernels runs/digits --layer layer3.0.conv2 -o kernels"))
@RUN
@OVERRIDES
@click.option("--layer", show_default="the second represented one", help="The layer whose kernels are shown.")
@click.option("--channel", default=0, type=click.IntRange(0), help="The channel whose kernels are shown.")
@click.option("--side", default=8, type=click.IntRange(1), help="How many kernels along each side.")
@OUTPUT
@PLUGINS
@JSON
def kernels(
    run: Path,
    overrides: tuple[str, ...],
    layer: str | None,
    channel: int,
    side: int,
    output: Path,
    plugins: tuple[str, ...],
    disabled: tuple[str, ...],
    as_json: bool,
) -> None:
    """Figure 6: original and reconstructed kernels."""
    from nern.studies import figures as plots
    from nern.studies.opening import open_representation

    opened = open_representation(run, overrides, plugins=plugins, disabled=disabled, weights_alone=True)
    _save(plots.kernels(opened, layer, channel, side), output, as_json)


@plot.command(epilog=example("nern plot embeddings --base 0.5 --base 0.9 -o figure8"))
@click.option(
    "--base",
    "bases",
    multiple=True,
    type=float,
    default=(0.5, 0.76, 0.9, 1.25),
    help="A base frequency b of the embedding (may be repeated).",
)
@click.option("--frequencies", default=40, type=click.IntRange(1), help="The number N of frequencies.")
@click.option("--channels", default=64, type=click.IntRange(2), help="How many channels are shown.")
@click.option("--at", default=31, type=click.IntRange(0), help="The channel with which the others are compared.")
@OUTPUT
@JSON
def embeddings(bases: tuple[float, ...], frequencies: int, channels: int, at: int, output: Path, as_json: bool) -> None:
    """Figure 8: similarity of positional embeddings.

    The figure has a line for each base frequency.
    """
    from nern.config.structuring import structure_component
    from nern.registry.discovery import create_registry
    from nern.studies import figures as plots

    registry = create_registry()
    values = {f"b = {base:g}": {"name": "positional", "base": base, "frequencies": frequencies} for base in bases}
    variants = {label: structure_component("embedding", value, registry, "embedding") for label, value in values.items()}
    _save(plots.embeddings(variants, channels, at), output, as_json)


def _save(figure: Figure, output: Path, as_json: bool) -> None:
    from nern.studies.drawing import save

    files = [str(path) for path in save(figure, output)]
    click.echo(json.dumps({"files": files}) if as_json else "\n".join(files))
