"""`nern export`: the reconstructed network in the formats that other programs read."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import click

from nern.cli import arguments
from nern.cli.arguments import JSON, PATH, PLUGINS, example, say


@click.command(epilog=example("nern export model.nern -o model.onnx"))
@click.argument("file", type=PATH)
@arguments.output("the network: .onnx, .pt2 (torch.export), or its state dict as .safetensors, .pt or .pth", required=True)
@click.option(
    "--model",
    metavar="REFERENCE",
    show_default="what the file names",
    help="What builds the network: file.py:Class or package.module:function.",
)
@click.option(
    "--arguments", "options", multiple=True, show_default="none", metavar="NAME=VALUE", help="An argument of it (may be repeated)."
)
@PLUGINS
@JSON
def export(
    file: Path,
    output: Path,
    model: str | None,
    options: tuple[str, ...],
    plugins: tuple[str, ...],
    disabled: tuple[str, ...],
    as_json: bool,
) -> None:
    """Write the reconstructed network for other programs. The file is then read back and compared with the network."""
    from nern.artifact.reading import load
    from nern.config.overrides import parse_override
    from nern.own.export import export as write
    from nern.registry.discovery import create_registry
    from nern.toolkit.references import build_reference

    source = load(file, create_registry(plugins, disabled=disabled))
    network = build_reference(model, dict(parse_override(text) for text in options)) if model is not None else None
    exported = write(source, output, network)
    if as_json:
        click.echo(json.dumps(attrs.asdict(exported)))
        return
    say(f"{exported.bytes:,} bytes, read back with a largest relative difference of {exported.difference:.1e}: {output}")
