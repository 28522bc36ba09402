"""Verbs around runs: sweeps, training of original networks, and studies of finished runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import click

from nern.cli import arguments, printing
from nern.cli.arguments import EXPERIMENT, JSON, OVERRIDES, PLUGINS, RUN, Numbers, example, figure, percent, say
from nern.cli.plots import plot


@click.command(epilog=example("nern sweep digits seed=0,1,2 predictor.hidden=32,64 --jobs 2 -o runs/grid"))
@EXPERIMENT
@OVERRIDES
@click.option("--jobs", type=click.IntRange(1), default=1, help="How many runs there are at a time.")
@click.option("--launcher", default="local", metavar="NAME", help="What starts the runs; nern plugins lists the launchers.")
@click.option("--retries", type=click.IntRange(0), default=1, help="How often a run that was killed is started again.")
@click.option(
    "--sampler",
    type=click.Choice(["grid", "random", "optuna"]),
    default="grid",
    help="Which settings are tried: every combination, random ones, or those that Optuna proposes.",
)
@click.option(
    "--budget", type=click.IntRange(1), show_default="none", help="How many settings random and optuna try, each with every seed."
)
@click.option(
    "--objective",
    metavar="FIGURE",
    show_default="with --sampler optuna, the metric that chooses checkpoints",
    help="The figure to optimise: a held-out metric such as kl, or total_bytes, predictor_bytes or seconds.",
)
@arguments.output("the runs and the tables: a folder", default="the experiment's output with -sweep added to its name")
@PLUGINS
@JSON
def sweep(
    experiment: str,
    overrides: tuple[str, ...],
    jobs: int,
    launcher: str,
    retries: int,
    sampler: str,
    budget: int | None,
    objective: str | None,
    output: Path | None,
    plugins: tuple[str, ...],
    disabled: tuple[str, ...],
    as_json: bool,
) -> None:
    """Run a grid of settings, or a search.

    Values separated by commas are combined, as in seed=0,1,2,3 predictor.hidden=140,160. With --sampler random or optuna an
    axis may also be a range, as in optimizer.lr=log(1e-4..1e-2). Options of the launcher are written as launcher.KEY=VALUE.
    The same command, called again, continues where it stopped. The tables (CSV, JSON and Markdown) have the mean over the seeds
    ± its 95 % confidence interval. A run that fails is listed in them with the reason, and the exit code is then 1.
    """
    from nern.config.overrides import parse_override
    from nern.studies.sweep import parse_grid
    from nern.studies.sweep import sweep as run_all

    prefix = "launcher."
    options = dict(parse_override(text.removeprefix(prefix)) for text in overrides if text.startswith(prefix))
    axes, single = parse_grid([text for text in overrides if not text.startswith(prefix)])
    single = arguments.run_directory(single, output)
    table, folder = run_all(
        experiment, axes, single, plugins=plugins, disabled=disabled, report=say, launcher={"jobs": jobs, **options, "name": launcher},
        retries=retries, sampler=sampler, budget=budget, objective=objective,
    )  # fmt: skip
    if as_json:
        click.echo(json.dumps({**table.to_dict(), "folder": str(folder)}))
    else:
        printing.table(*table.cells())
    say(f"tables: {folder / 'sweep.md'}, .csv, .json")
    if table.failures:
        click.get_current_context().exit(1)


@click.command(epilog=example("nern pretrain digits pretrain.smoothness=1e-3 -o smooth.safetensors"))
@EXPERIMENT
@OVERRIDES
@arguments.output("the weights: a .safetensors, .pt or .pth file", required=True)
@PLUGINS
@JSON
def pretrain(
    experiment: str, overrides: tuple[str, ...], output: Path, plugins: tuple[str, ...], disabled: tuple[str, ...], as_json: bool
) -> None:
    """Train an experiment's original network.

    Training starts from scratch, or from the weights that pretrain.weights names. With pretrain.smoothness above 0 the network's
    kernels become smooth. The same command, called again after an interruption, continues from the last epoch.
    """
    from nern.run.pretraining import train_original

    parsed, registry = arguments.load(experiment, overrides, plugins, disabled)
    trained = train_original(parsed, registry, output)
    if as_json:
        click.echo(json.dumps(trained.to_dict()))
        return
    headline = figure(*trained.score.headline) if trained.score else f"top-1 {percent(None)}"
    click.echo(f"{headline}   eq. 6: {trained.smoothness:,.0f}   {trained.epochs} epochs   {trained.seconds:.0f} s; {trained.file}")


@click.command(epilog=example("nern prune runs/digits --ratios 0,0.3,0.6 --finetune 50 -o pruned"))
@RUN
@OVERRIDES
@click.option(
    "--ratios",
    type=Numbers(),
    default="0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9",
    help="Which parts of the predictor's entries are set to zero. Each ratio starts from the same trained predictor.",
)
@click.option(
    "--scope",
    type=click.Choice(["global", "layer"]),
    show_default="global; layer for compensated",
    help="Whether the entries are chosen over the whole predictor or in each of its matrices.",
)
@click.option(
    "--method",
    type=click.Choice(["magnitude", "compensated"]),
    default="magnitude",
    help="magnitude: the smallest entries are removed, as in the paper; compensated: the entries that stay make up for those that are "
    "removed (SparseGPT).",
)
@click.option(
    "--finetune", type=click.IntRange(0), default=0, help="Steps of fine-tuning after pruning, as in the run's last phase; zeros stay zero."
)
@click.option(
    "--stages",
    type=click.IntRange(1),
    default=1,
    help="In how many stages entries are set to zero, over the first half of the fine-tuning; 1: all at once, before it.",
)
@arguments.output("the pruned files and the tables: a folder", default="RUN_DIR/pruned or FILE-pruned")
@PLUGINS
@JSON
def prune(
    run: Path,
    overrides: tuple[str, ...],
    ratios: list[float],
    scope: Literal["global", "layer"] | None,
    method: Literal["magnitude", "compensated"],
    finetune: int,
    stages: int,
    output: Path | None,
    plugins: tuple[str, ...],
    disabled: tuple[str, ...],
    as_json: bool,
) -> None:
    """Prune the predictor, and measure accuracy and bytes.

    The bytes are those on disk. Overrides are those of nern evaluate.
    """
    from nern.studies.opening import open_representation
    from nern.studies.pruning import prune as prune_to

    folder = output or _beside(run, "pruned")
    opened = open_representation(run, overrides, plugins=plugins, disabled=disabled)
    curve = prune_to(opened, folder, ratios, scope=scope, method=method, finetune=finetune, stages=stages, report=say)
    if as_json:
        click.echo(json.dumps({**curve.to_dict(), "folder": str(folder)}))
    else:
        printing.table(*curve.cells())
    say(f"files: {folder}")


@click.command(epilog=example("nern importance runs/digits --layer layer3.0.conv2 -o importance"))
@RUN
@OVERRIDES
@click.option("--layer", show_default="the last one", help="The layer whose filters' activations are measured.")
@click.option(
    "--filters", default=10, type=click.IntRange(1), help="How many filters with the lowest and with the highest error are shown."
)
@click.option("--images", default=1000, type=click.IntRange(1), help="How many test images to average over.")
@arguments.output("importance.json and importance.safetensors: a folder", default="RUN_DIR/importance or FILE-importance")
@PLUGINS
@JSON
def importance(
    run: Path,
    overrides: tuple[str, ...],
    layer: str | None,
    filters: int,
    images: int,
    output: Path | None,
    plugins: tuple[str, ...],
    disabled: tuple[str, ...],
    as_json: bool,
) -> None:
    """Measure errors of layers, filters and kernels.

    Errors are relative to the original weights. The activations of the filters with the lowest and the highest error are written,
    too.
    """
    from nern.studies.importance import importance as measure
    from nern.studies.opening import open_representation

    folder = output or _beside(run, "importance")
    measured = measure(open_representation(run, overrides, plugins=plugins, disabled=disabled), layer, filters, images)
    measured.save(folder)
    if as_json:
        click.echo(json.dumps({"folder": str(folder), **json.loads((folder / "importance.json").read_text(encoding="utf-8"))}))
        return
    rows = [(name, f"{errors.layer:.4f}") for name, errors in measured.errors.items()]
    click.echo(printing.two_columns(rows, width=printing.width_of_terminal()))
    extremes = [(f"{which} error", ", ".join(map(str, getattr(measured, which)))) for which in ("lowest", "highest")]
    correlation = ("rank correlation", f"{measured.correlation:.3f} of the filters' errors and the strength of their activations")
    click.echo(f"filters of {measured.layer}:")
    click.echo(printing.two_columns([*extremes, correlation], indent="  ", width=printing.width_of_terminal()))
    say(f"files: {folder}")


@click.command(epilog=example("nern compare runs/digits -o compared"))
@click.argument("runs", nargs=-1, required=True, metavar="FILE_OR_RUN... [KEY.SUB=VALUE]...")
@click.option(
    "--train-baselines", is_flag=True, help="Also train integers of 4 and 3 bits, for as many steps as the first run's last phase."
)
@arguments.output("the baselines' files, table and plot: a folder", default="RUN_DIR/compared or FILE-compared")
@PLUGINS
@JSON
def compare(
    runs: tuple[str, ...], train_baselines: bool, output: Path | None, plugins: tuple[str, ...], disabled: tuple[str, ...], as_json: bool
) -> None:
    """Compare representations with simpler compressions.

    Bytes and accuracy of files or runs are compared with those of baselines: the original network with rounded weights, with
    integers and with a palette of values. Every baseline is written by the same entropy coder, read back and measured on the
    test set. Overrides are those of nern evaluate; architecture.weights names the original network's weights. The command
    writes a table (JSON, CSV, Markdown) and, where matplotlib is installed, a plot (PNG, SVG).
    """
    from nern.studies.comparing import compare as measure

    paths = [Path(word) for word in runs if "=" not in word or Path(word).exists()]
    overrides = [word for word in runs if "=" in word and not Path(word).exists()]
    if not paths:
        raise click.UsageError("name at least one representation file or run directory")
    folder = output or _beside(paths[0], "compared")
    table = measure(paths, folder, overrides, train_baselines=train_baselines, plugins=plugins, disabled=disabled, report=say)
    click.echo(json.dumps({**table.to_dict(), "folder": str(folder)}) if as_json else table.markdown(), nl=as_json)
    say(f"files: {folder}")
    _draw_comparison(folder, table.to_dict())


def _draw_comparison(folder: Path, table: dict[str, Any]) -> None:
    """Draw the plot of a comparison where matplotlib is installed."""
    from nern.errors import DataError, PluginError
    from nern.studies import drawing, figures

    try:
        written = drawing.save(figures.comparison(table), folder / "compare")
    except (DataError, PluginError) as error:
        say(f"no plot: {error}")
    else:
        say(f"plot: {', '.join(map(str, written))}")


def _beside(run: Path, study: str) -> Path:
    """The default folder of a study: inside the run directory, or beside the representation file."""
    return run / study if run.is_dir() else run.with_name(f"{run.stem}-{study}")


VERBS = (sweep, pretrain, prune, importance, compare, plot)
