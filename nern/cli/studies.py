"""Verbs around runs: grids of them, original networks for them, and what can be learnt from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from nern.cli import arguments
from nern.cli.arguments import JSON, NO_PLUGIN, OVERRIDES, percent
from nern.cli.plots import plot


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
    from nern.studies.sweep import parse_grid
    from nern.studies.sweep import sweep as run_all

    axes, single = parse_grid(overrides)
    table, folder = run_all(experiment, axes, single, disabled=disabled, report=lambda line: click.echo(line, err=True))
    click.echo(json.dumps({**table.to_dict(), "folder": str(folder)}) if as_json else table.markdown(), nl=as_json)
    click.echo(f"tables: {folder / 'sweep.md'}, .csv, .json", err=True)


@click.command()
@click.argument("experiment", metavar="PRESET_OR_YAML")
@OVERRIDES
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The .safetensors (or .pt, .pth) file to write.")
@JSON
@NO_PLUGIN
def pretrain(experiment: str, overrides: tuple[str, ...], output: Path, as_json: bool, disabled: tuple[str, ...]) -> None:
    """Train an experiment's original network from scratch, with smooth kernels where pretrain.smoothness is above 0.

    Called again after an interruption it goes on from the last epoch.
    """
    from nern.run.pretraining import train_original

    parsed, registry = arguments.experiment(experiment, overrides, disabled)
    found = train_original(parsed, registry, output)
    if as_json:
        click.echo(json.dumps(found.to_dict()))
        return
    top1 = found.score.top1 if found.score else None
    click.echo(f"top-1 {percent(top1)}   eq. 6: {found.smoothness:,.0f}   {found.epochs} epochs   {found.seconds:.0f} s; {found.file}")


@click.command()
@click.argument("run", metavar="RUN_DIR_OR_FILE", type=click.Path(path_type=Path))
@OVERRIDES
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder for the pruned files and the tables.")
@JSON
def prune(run: Path, overrides: tuple[str, ...], output: Path | None, as_json: bool) -> None:
    """Prune the predictor: accuracy and bytes on disk for ratios=0,0.1,… (all tenths by default).

    scope=layer lets entries compete inside each matrix instead of over all of them; finetune=STEPS trains on after
    pruning, with the zeros kept. Other overrides are those of nern evaluate.
    """
    from nern.studies.opening import open_representation
    from nern.studies.pruning import RATIOS
    from nern.studies.pruning import prune as prune_to

    own, others = _own_options(overrides, {"ratios": list(RATIOS), "scope": "global", "finetune": 0})
    ratios = own["ratios"] if isinstance(own["ratios"], list) else [own["ratios"]]
    folder = output or (run / "pruned" if run.is_dir() else run.with_name(f"{run.stem}-pruned"))
    opened = open_representation(run, others)
    say = lambda line: click.echo(line, err=True)  # noqa: E731
    curve = prune_to(opened, folder, ratios, scope=own["scope"], finetune=own["finetune"], report=say)
    click.echo(json.dumps({**curve.to_dict(), "folder": str(folder)}) if as_json else curve.markdown(), nl=as_json)
    click.echo(f"files: {folder}", err=True)


@click.command()
@click.argument("run", metavar="RUN_DIR_OR_FILE", type=click.Path(path_type=Path))
@OVERRIDES
@click.option("--layer", help="The layer whose filters' activations are looked at; the last one by default.")
@click.option("--filters", default=10, type=click.IntRange(1), help="How many filters of lowest and of highest error.")
@click.option("--images", default=1000, type=click.IntRange(1), help="How many test images to average over.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder for importance.json and importance.safetensors.")
@JSON
def importance(
    run: Path, overrides: tuple[str, ...], layer: str | None, filters: int, images: int, output: Path | None, as_json: bool
) -> None:
    """Relative reconstruction errors of layers, filters and kernels, and activations of the best and worst filters."""
    from nern.studies.importance import importance as measure
    from nern.studies.opening import open_representation

    folder = output or (run / "importance" if run.is_dir() else run.with_name(f"{run.stem}-importance"))
    found = measure(open_representation(run, overrides), layer, filters, images)
    found.save(folder)
    if as_json:
        click.echo(json.dumps({"folder": str(folder), **json.loads((folder / "importance.json").read_text(encoding="utf-8"))}))
        return
    width = max(map(len, found.errors))
    for name, errors in found.errors.items():
        click.echo(f"{name:<{width}}  {errors.layer:.4f}")
    click.echo(f"{found.layer}: lowest error {found.lowest}, highest error {found.highest}")
    click.echo(f"rank correlation of error and activation strength: {found.correlation:.3f}")
    click.echo(f"files: {folder}", err=True)


def _own_options(overrides: tuple[str, ...], defaults: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A verb's own `key=value` words and the others."""
    from nern.errors import ConfigError
    from nern.studies.sweep import parse_grid

    mine = [text for text in overrides if text.partition("=")[0].strip() in defaults]
    axes, single = parse_grid(mine)
    found = {**defaults, **axes, **single}
    if found.get("scope") not in ("global", "layer"):
        raise ConfigError(f"scope: must be one of global, layer, got {found['scope']!r}")
    if isinstance(found["finetune"], bool) or not isinstance(found["finetune"], int) or found["finetune"] < 0:
        raise ConfigError(f"finetune: must be a number of steps, got {found['finetune']!r}")
    return found, [text for text in overrides if text not in mine]


VERBS = (sweep, pretrain, prune, importance, plot)
