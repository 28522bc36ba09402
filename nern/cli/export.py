"""`nern export`: the reconstructed network in the formats that other programs read."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import click

from nern.cli import arguments
from nern.cli.arguments import JSON, NETWORK_ARGUMENTS, PLUGINS, REFERENCES, RUN, example, named, say


@click.command(epilog=example("nern export model.nern -o model.onnx"))
@RUN
@arguments.output("the network: .onnx, .pt2 (torch.export), or its state dict as .safetensors, .pt or .pth", required=True)
@click.option("--model", metavar="REFERENCE", show_default="what the run or the file names", help=REFERENCES)
@NETWORK_ARGUMENTS
@PLUGINS
@JSON
def export(
    run: Path,
    output: Path,
    model: str | None,
    options: tuple[str, ...],
    plugins: tuple[str, ...],
    disabled: tuple[str, ...],
    as_json: bool,
) -> None:
    """Write the reconstructed network for other programs. The file is then read back and compared with the network."""
    from nern.artifact.reading import load
    from nern.engine import Engine
    from nern.own.by_reference import network_of
    from nern.own.export import export as write
    from nern.registry.discovery import create_registry
    from nern.run.folder import plugins_of

    if options and model is None:
        raise click.UsageError("--arguments are those of the network that --model names; name it, too")
    registry = create_registry([*plugins_of(run), *plugins], disabled=disabled)
    source = Engine.from_run(run, plugins=plugins, disabled=disabled).artifact if run.is_dir() else load(run, registry)
    network = network_of(model, named(options), registry) if model is not None else None
    exported = write(source, output, network)
    if as_json:
        click.echo(json.dumps(attrs.asdict(exported)))
        return
    say(f"{exported.bytes:,} bytes, read back with a largest relative difference of {exported.difference:.1e}: {output}")
