"""The command line: verbs, each a few lines over the public API."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from nern.cli import arguments, studies
from nern.cli.arguments import JSON, NO_PLUGIN, OVERRIDES, PLUGIN, percent
from nern.errors import ConfigError, Interrupted, NernError
from nern.version import __version__


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="nern")
def cli() -> None:
    """Neural representations for neural networks: a pre-trained CNN as a small predictor network in one file."""


@cli.command()
@click.argument("name", required=False)
def presets(name: str | None) -> None:
    """List the shipped experiments, or those of a table (table1), or print one's YAML, ready to edit.

    The names of recipes (data-free, fast, paper, small) print what a recipe sets.
    """
    from nern.config.recipes import recipes
    from nern.config.sources import no_such_preset, presets

    if name is not None and name in recipes():
        click.echo(recipes()[name], nl=False)
        return

    shipped = presets()
    if name is not None and name in shipped:
        click.echo(shipped[name], nl=False)
        return
    listed = [preset for preset in shipped if name is None or preset.startswith(f"{name.rstrip('/')}/")]
    if not listed and name is not None:
        raise ConfigError(no_such_preset(name))
    width = max(map(len, listed))
    for preset in listed:
        click.echo(f"{preset:<{width}}  {shipped.summary(preset)}")


@cli.command()
@click.argument("experiment", metavar="PRESET_OR_YAML")
@OVERRIDES
@JSON
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint of the run directory.")
@NO_PLUGIN
def train(experiment: str, overrides: tuple[str, ...], as_json: bool, resume: bool, disabled: tuple[str, ...]) -> None:
    """Run an experiment; every value can be overridden by its dotted path."""
    from nern.engine import Engine
    from nern.training.processes import is_first

    engine = Engine(*arguments.experiment(experiment, overrides, disabled))
    result = engine.fit(resume=resume)
    if not is_first():
        return
    if as_json:
        click.echo(json.dumps(result.to_dict()))
        return
    sizes = result.bytes
    click.echo(f"original       {percent(result.original_top1)}   {sizes.original:>12,} bytes")
    click.echo(f"reconstructed  {percent(result.reconstructed_top1)}   {sizes.total:>12,} bytes")
    parts = ", ".join(f"{name} {getattr(sizes, name):,}" for name in ("predictor", "embedding", "ordering", "zeros", "copied", "header"))
    click.echo(f"               ({parts})")
    click.echo(f"{result.iterations:,} steps in {result.seconds:.0f} s; {result.artifact}")


@cli.command("config")
@click.argument("experiment", metavar="PRESET_OR_YAML")
@OVERRIDES
@NO_PLUGIN
def show_config(experiment: str, overrides: tuple[str, ...], disabled: tuple[str, ...]) -> None:
    """Check an experiment and print the fully resolved YAML; trains nothing."""
    from nern.config.structuring import to_yaml

    click.echo(to_yaml(*arguments.experiment(experiment, overrides, disabled)), nl=False)


@cli.command()
@click.argument("run", metavar="RUN_DIR_OR_FILE", type=click.Path(path_type=Path))
@OVERRIDES
@JSON
@PLUGIN
@NO_PLUGIN
def evaluate(run: Path, overrides: tuple[str, ...], as_json: bool, local: tuple[str, ...], disabled: tuple[str, ...]) -> None:
    """Measure the reconstructed network beside the original one on the test set."""
    from nern.engine import Engine
    from nern.registry.discovery import create_registry
    from nern.studies.opening import evaluate_file

    if run.is_dir():
        found = Engine.from_run(run, overrides, plugins=local, disabled=disabled).evaluate()
    else:
        found = evaluate_file(run, overrides, create_registry(local, disabled=disabled))
    if as_json:
        click.echo(json.dumps(found.to_dict()))
        return
    for name, score in (("original", found.original), ("reconstructed", found.reconstructed)):
        if score is not None:
            more = "".join(f"   {key} {value:.2f}" for key, value in score.metrics().items() if key in ("top5", "agreement"))
            click.echo(f"{name:<13}  top-1 {percent(score.top1)}{more}   ({score.images:,} images)")
        else:
            click.echo(f"{name:<13}  not measured: name its weights with architecture.weights=FILE")


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The .safetensors (or .pt, .pth) file to write.")
@PLUGIN
@NO_PLUGIN
def reconstruct(file: Path, output: Path, local: tuple[str, ...], disabled: tuple[str, ...]) -> None:
    """Write the network's complete state dict; the original weights are not needed."""
    from nern.artifact.artifact import load
    from nern.networks.state_dicts import write_state_dict
    from nern.registry.discovery import create_registry

    state = load(file, create_registry(local, disabled=disabled)).reconstruct().state_dict()
    write_state_dict(state, output)
    click.echo(f"{len(state)} entries, {output.stat().st_size:,} bytes: {output}", err=True)


@cli.command()
@JSON
@PLUGIN
@NO_PLUGIN
def plugins(as_json: bool, local: tuple[str, ...], disabled: tuple[str, ...]) -> None:
    """List every registered component by extension point, and the plugins that failed, with the reason."""
    from nern.registry.discovery import create_registry
    from nern.registry.registry import KINDS

    registry = create_registry(local, disabled=disabled)
    if as_json:
        click.echo(json.dumps(_described(registry)))
        return
    for kind in KINDS:
        click.echo(f"{kind}")
        for entry in registry.entries(kind):
            click.echo(f"  {entry.name:<20} {entry.package} {entry.version}  {entry.summary}")
    for heading, lines in (("conflict", registry.conflicts()), ("failed", registry.failures), ("left out", registry.left_out)):
        for line in lines:
            click.echo(f"{heading}: {line}", err=True)


def _described(registry: Any) -> dict[str, Any]:
    import attrs

    from nern.options import describe

    components = [
        {
            "kind": entry.kind, "name": entry.name, "package": entry.package, "version": entry.version,
            "plugin": entry.plugin, "summary": entry.summary,
            "options": [
                {"name": o.name, "type": o.type, "required": o.required, "default": None if o.required else o.default, "help": o.help}
                for o in describe(entry.cls)
            ],
        }
        for entry in registry.entries()
    ]  # fmt: skip
    return {
        "components": components,
        "failures": [attrs.asdict(failure) for failure in registry.failures],
        "conflicts": registry.conflicts(),
        "left_out": registry.left_out,
    }


@cli.command("new-plugin")
@click.argument("name")
@click.option("--kind", required=True, metavar="KIND", help="What it adds: architecture, embedding, predictor, sampler, smoother, loss, …")
@click.option("--output", "folder", default=".", type=click.Path(path_type=Path), help="The folder that the package's own is made in.")
def new_plugin(name: str, kind: str, folder: Path) -> None:
    """Write a plugin package that installs, with a passing test and one place to fill in."""
    from nern.scaffold import package as scaffold

    target = scaffold.new_plugin(name, kind, folder)
    click.echo(f"{target}: fill in the place marked FILL IN, then\n  pip install -e '{target}[test]' && pytest {target}")


for _verb in studies.VERBS:
    cli.add_command(_verb)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 2 the user's mistake, 130 interrupted, 1 anything else."""
    code = run(arguments)
    if "WORLD_SIZE" in os.environ:
        from nern.training.processes import leave_at_once

        leave_at_once(code)
    sys.exit(code)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        cli.main(args=list(arguments) if arguments is not None else None, standalone_mode=False)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show(sys.stderr)
        return 2
    except (Interrupted, KeyboardInterrupt, click.Abort) as error:
        print(f"nern: {str(error) or 'interrupted'}", file=sys.stderr)
        return 130
    except NernError as error:
        for line in str(error).splitlines():
            print(f"nern: {line}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except Exception:
        traceback.print_exc()
        return 1
    return 0
