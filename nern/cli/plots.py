"""`nern plot`: the paper's figures as PNG and SVG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from nern.cli.arguments import OVERRIDES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OUTPUT = click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Where to: NAME.png and NAME.svg are written.")


@click.group()
def plot() -> None:
    """Draw the paper's figures from what runs, sweeps and studies wrote."""


@plot.command()
@click.argument("sweep", type=click.Path(path_type=Path))
@OUTPUT
def smoothness(sweep: Path, output: Path) -> None:
    """Figure 3: accuracy against the smoothness factor, from a sweep over pretrain.smoothness."""
    from nern.studies import figures as plots

    _save(plots.smoothness(plots.read(sweep, "sweep.json")), output)


@plot.command()
@click.argument("runs", nargs=-1, required=True, metavar="[LABEL=]RUN_DIR...")
@OUTPUT
def training(runs: tuple[str, ...], output: Path) -> None:
    """Figure 4: held-out accuracy over the steps of one or more runs."""
    from nern.studies import figures as plots

    labelled = [(text.partition("=")[0], text.partition("=")[2]) if "=" in text else (Path(text).name, text) for text in runs]
    _save(plots.training({label: Path(run) for label, run in labelled}), output)


@plot.command()
@click.argument("curve", type=click.Path(path_type=Path))
@OUTPUT
def pruning(curve: Path, output: Path) -> None:
    """Figure 5, left: accuracy of pruned predictors, from a folder that nern prune wrote."""
    from nern.studies import figures as plots

    _save(plots.pruning(plots.read(curve, "pruning.json")), output)


@plot.command()
@click.argument("folder", type=click.Path(path_type=Path))
@OUTPUT
def importance(folder: Path, output: Path) -> None:
    """Figure 5, right: activations of the filters with the lowest and highest error, from nern importance."""
    from nern.studies import figures as plots

    _save(plots.importance(folder), output)


@plot.command()
@click.argument("run", metavar="RUN_DIR_OR_FILE", type=click.Path(path_type=Path))
@OVERRIDES
@click.option("--layer", help="The layer; by default the second represented one.")
@click.option("--channel", default=0, type=click.IntRange(0), help="The channel.")
@click.option("--side", default=8, type=click.IntRange(1), help="How many kernels along each side.")
@OUTPUT
def kernels(run: Path, overrides: tuple[str, ...], layer: str | None, channel: int, side: int, output: Path) -> None:
    """Figure 6: original and reconstructed kernels side by side."""
    from nern.studies import figures as plots
    from nern.studies.opening import open_representation

    _save(plots.kernels(open_representation(run, overrides), layer, channel, side), output)


@plot.command()
@click.option("--base", "bases", multiple=True, type=float, default=(0.5, 0.76, 0.9, 1.25), help="A base frequency b (may be repeated).")
@click.option("--frequencies", default=40, type=click.IntRange(1), help="Number N of frequencies.")
@click.option("--channels", default=64, type=click.IntRange(2), help="Channels to show.")
@click.option("--at", default=31, help="The channel to compare with.")
@OUTPUT
def embeddings(bases: tuple[float, ...], frequencies: int, channels: int, at: int, output: Path) -> None:
    """Figure 8: similarity of positional embeddings for several bases."""
    from nern.config.structuring import structure_component
    from nern.registry.discovery import create_registry
    from nern.studies import figures as plots

    registry = create_registry()
    values = {f"b = {base:g}": {"name": "positional", "base": base, "frequencies": frequencies} for base in bases}
    variants = {label: structure_component("embedding", value, registry, "embedding") for label, value in values.items()}
    _save(plots.embeddings(variants, channels, at), output)


def _save(figure: Figure, output: Path) -> None:
    from nern.studies import figures as plots

    for path in plots.save(figure, output):
        click.echo(path)
