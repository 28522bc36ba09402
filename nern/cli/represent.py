"""`nern represent`: represents a network of one's own, given by a weights file and its code, in one command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import click

from nern.cli import arguments
from nern.cli.arguments import JSON, NETWORK_ARGUMENTS, OVERRIDES, PATH, PLUGINS, REFERENCES, Numbers, example, named, say
from nern.errors import OptionError

_UNITS = {"": 1, "b": 1, "k": 1_000, "kb": 1_000, "m": 1_000_000, "mb": 1_000_000, "kib": 1 << 10, "mib": 1 << 20}


class Size(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions of click alone
    """The type of an argument that is a number of bytes, such as `100k`, `1.5MB` or `64KiB`."""

    name = "size"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        text = str(value).strip().lower().replace("_", "")
        number = text.rstrip("bikm")
        try:
            size = round(float(number) * _UNITS[text[len(number) :].strip()])
        except (ValueError, KeyError, OverflowError):
            self.fail(f"'{value}' is not a number of bytes such as 100k or 1.5MB", parameter, context)
        if size <= 0:
            self.fail(f"'{value}' must be above 0", parameter, context)
        return size


@click.command(epilog=example("nern represent net.pth --model net.py:Net --images photographs --bytes 100k -o net.nern"))
@click.argument("weights", type=PATH)
@OVERRIDES
@click.option("--model", required=True, metavar="REFERENCE", help=REFERENCES)
@NETWORK_ARGUMENTS
@click.option("--images", type=PATH, show_default="none", help="Folder of images, with or without folders for classes.")
@click.option("--no-images", is_flag=True, help="Use noise in place of images.")
@click.option("--mean", type=Numbers(), show_default="the model's own", help="Mean of each channel, of values in [0, 1].")
@click.option("--std", type=Numbers(), show_default="the model's own", help="Standard deviation of each channel.")
@click.option("--size", type=Numbers(), show_default="the model's own", help="Side of the inputs in pixels, or channels,height,width.")
@click.option(
    "--resize", type=click.IntRange(1), show_default="the model's own", help="Shorter side of photographs before the centre crop."
)
@click.option("--layers", default="all", show_default=True, help="all, convolutions, or patterns of parameter names, separated by commas.")
@click.option("--recipe", default="fast", show_default=True, help="fast, quick, small, paper or data-free.")
@click.option(
    "--steps", default=1.0, show_default=True, help="Length of the run, as a multiple of the recipe's steps; 0.1 to try things out."
)
@click.option(
    "--bytes",
    "wanted",
    type=Size(),
    show_default="no such target",
    help="Take the largest predictor whose file has at most this many bytes; with the recipe small, aim at a file of this size.",
)
@click.option("--drop", type=float, show_default="no such target", help="Find the smallest predictor that loses at most this many points.")
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@click.option(
    "--run", "folder", type=PATH, metavar="RUN_DIR", show_default="a new one in runs/", help="Where to write the run: a new folder."
)
@arguments.output("the representation: one file", default="only into the run's folder")
@PLUGINS
@JSON
def represent(
    weights: Path,
    overrides: tuple[str, ...],
    model: str,
    options: tuple[str, ...],
    images: Path | None,
    no_images: bool,
    mean: list[float] | None,
    std: list[float] | None,
    size: list[float] | None,
    resize: int | None,
    layers: str,
    recipe: str,
    steps: float,
    wanted: int | None,
    drop: float | None,
    dry_run: bool,
    folder: Path | None,
    output: Path | None,
    plugins: tuple[str, ...],
    disabled: tuple[str, ...],
    as_json: bool,
) -> None:
    """Represent a network of your own.

    WEIGHTS is the file of its weights, and --model names the code that builds it. Before training, the command measures the
    original network and prints what will be represented and what will be copied. The run's folder is like that of nern train.
    """
    from nern.own.by_reference import own_network
    from nern.own.represent import prepared, run
    from nern.registry.discovery import create_registry

    if (images is None) == (not no_images):
        raise click.UsageError("name a folder with --images, or give --no-images for noise in their place")
    if wanted is not None and drop is not None:
        raise click.UsageError("--bytes and --drop are two targets; give one of them")
    registry = create_registry(plugins, disabled=disabled)
    own = own_network(
        model, weights, images, arguments=named(options), layers=_chosen(layers), size=_whole(size), mean=mean, std=std,
        resize=resize, recipe=recipe, steps=steps, registry=registry,
    )  # fmt: skip
    target = _target(wanted, drop)
    if dry_run:
        known = None if target is not None and target.trains else target
        plan = prepared(own, overrides, target=known, output=folder, quiet=as_json, registry=registry).plan()
        if known is not target:
            note = f"--drop {drop:g}: the size is found by short runs, which a dry run leaves out; this is the recipe's own size"
            plan = attrs.evolve(plan, notes=[*plan.notes, note])
        click.echo(json.dumps(plan.to_dict()) if as_json else str(plan))
        return
    result = run(own, overrides, target=target, output=folder, quiet=as_json, registry=registry)
    if output is not None:
        result.save(output)
        say(f"written: {output}")
    if as_json:
        click.echo(json.dumps(result.to_dict()))


def _target(wanted: int | None, drop: float | None) -> Any:
    from nern.own.target import TargetBytes, TargetDrop

    if wanted is not None:
        return TargetBytes(wanted)
    if drop is None:
        return None
    try:
        return TargetDrop(points=drop)
    except OptionError as error:
        raise click.UsageError(f"--drop {error.problem}") from error


def _chosen(layers: str) -> str | list[str]:
    return layers if layers in ("all", "convolutions") else [pattern.strip() for pattern in layers.split(",")]


def _whole(size: list[float] | None) -> list[int] | None:
    if size is None:
        return None
    if not all(number.is_integer() and number >= 1 for number in size):
        raise click.UsageError("--size must be whole numbers of at least 1")
    return [int(number) for number in size]
