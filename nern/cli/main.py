"""The command line: verbs, each a few lines over the public API."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nern.cli import arguments, export, plugins, presets, printing, reports, represent, studies
from nern.cli.arguments import EXPERIMENT, JSON, OVERRIDES, PLUGINS, RUN, example, expanded_argument, figure, percent, say
from nern.errors import Interrupted, NernError, OptionError
from nern.support.messages import cannot_write
from nern.support.version import __version__

if TYPE_CHECKING:
    from nern.engine import Engine


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True},
    epilog=example("nern train digits output=runs/digits"),
)
@click.version_option(__version__, prog_name="nern")
def cli() -> None:
    """Neural representations for neural networks: a pre-trained CNN as a small predictor network in one file."""


@cli.command(epilog=example("nern train digits predictor.hidden=64 seed=1 -o runs/digits-64"))
@EXPERIMENT
@OVERRIDES
@arguments.output("the run: a new folder", default="the experiment's output")
@click.option("--resume", is_flag=True, help="Continue from the last checkpoint of the run directory.")
@PLUGINS
@JSON
def train(
    experiment: str,
    overrides: tuple[str, ...],
    output: Path | None,
    resume: bool,
    plugins: tuple[str, ...],
    disabled: tuple[str, ...],
    as_json: bool,
) -> None:
    """Train a representation as an experiment describes it.

    Any value of the experiment can be changed by its dotted path, as in predictor.hidden=80.
    """
    from nern.engine import Engine
    from nern.training.processes import is_first

    engine = Engine(*arguments.load(experiment, overrides, plugins, disabled, output))
    result = engine.fit(resume=resume)
    if not is_first():
        return
    if as_json:
        click.echo(json.dumps(result.to_dict()))
        return
    headlines = {whose: _headline(result, whose) for whose in ("original", "reconstructed")}
    stored_as = engine.artifact.representation.storage.name
    lines = [*printing.end_of_run(result, headlines, stored_as), *_reported(engine)]
    click.echo("\n".join(printing.wrapped(lines, printing.width_of_terminal())))


def _reported(engine: Engine) -> list[str]:
    """The accuracies that the paper and the documentation's reproduction page give for the preset that was run."""
    from nern.config.structuring import unstructure
    from nern.studies.report.measured import measured
    from nern.studies.report.paper import paper_row

    row = paper_row(unstructure(engine.experiment, engine.registry), engine.registry)
    if row is None:
        return []
    original = "" if row.original is None else f" of {row.original:.2f}"
    known = measured().get(row.preset)
    lines = [f"the paper has   {row.value}{original} ({row.table})"]
    if known is not None:
        lines.append(f"nern's page has {known}, {known.seeds} seed{'s' * (known.seeds > 1)} (nern train {row.preset})")
    return lines


def _headline(result: Any, whose: str) -> str:
    """The first figure of a network on the test set as text, with its name unless it is a classifier's accuracy."""
    test = result.checkpoints["chosen"].get("test")
    figures = result.original if whose == "original" else test
    name = next(iter(test or result.original or {}), "top1")
    value = (figures or {}).get(name)
    return percent(value) if name == "top1" else figure(name, value)


@cli.command("config", epilog=example("nern config digits predictor.hidden=64 -o mine.yaml"))
@EXPERIMENT
@OVERRIDES
@arguments.output("the YAML", default="stdout")
@PLUGINS
@JSON
def show_config(
    experiment: str, overrides: tuple[str, ...], output: Path | None, plugins: tuple[str, ...], disabled: tuple[str, ...], as_json: bool
) -> None:
    """Check an experiment and print its complete YAML.

    Nothing is trained. The command also checks what nern train checks before it looks at images, such as whether the weights file
    exists. Each mistake is one line on stderr, after the YAML, and the exit code is then 2.
    """
    from nern.config.structuring import to_yaml, unstructure
    from nern.engine import Engine

    resolved = arguments.load(experiment, overrides, plugins, disabled)
    arguments.show_yaml(to_yaml(*resolved), unstructure(*resolved), output, as_json)
    Engine(*resolved).check()


@cli.command(epilog=example("nern evaluate runs/digits/model.nern architecture.weights=runs/digits/original.safetensors"))
@RUN
@OVERRIDES
@PLUGINS
@JSON
def evaluate(run: Path, overrides: tuple[str, ...], plugins: tuple[str, ...], disabled: tuple[str, ...], as_json: bool) -> None:
    """Measure a reconstructed network on the test set.

    The original network is measured as well, if its weights are found.
    """
    from nern.engine import Engine
    from nern.registry.discovery import create_registry
    from nern.studies.opening import evaluate_file

    if run.is_dir():
        evaluation = Engine.from_run(run, overrides, plugins=plugins, disabled=disabled).evaluate()
    else:
        evaluation = evaluate_file(run, overrides, create_registry(plugins, disabled=disabled))
    if as_json:
        click.echo(json.dumps(evaluation.to_dict()))
        return
    for name, score in (("original", evaluation.original), ("reconstructed", evaluation.reconstructed)):
        if score is not None:
            first, value = score.headline
            others = {key: value for key, value in score.metrics().items() if key != first}
            if first == "top1":
                more = "".join(f"   {key} {value:.2f}" for key, value in others.items() if key != "kl")
            else:
                more = "".join(f"   {figure(key, value)}" for key, value in others.items())
            click.echo(f"{name:<13}  {figure(first, value)}{more}   ({score.images:,} examples)")
        else:
            click.echo(f"{name:<13}  not measured: name its weights with architecture.weights=FILE")


@cli.command(epilog=example("nern reconstruct runs/digits/model.nern -o weights.safetensors"))
@RUN
@arguments.output("the weights: a .safetensors, .pt or .pth file", required=True)
@PLUGINS
@JSON
def reconstruct(run: Path, output: Path, plugins: tuple[str, ...], disabled: tuple[str, ...], as_json: bool) -> None:
    """Write the state dict of the reconstructed network.

    The state dict is complete, and the original weights are not needed.
    """
    from nern.artifact.reading import load
    from nern.networks.state_dicts import write_state_dict
    from nern.registry.discovery import create_registry
    from nern.run.folder import file_of, plugins_of

    state = load(file_of(run), create_registry([*plugins_of(run), *plugins], disabled=disabled)).state_dict()
    write_state_dict(state, output)
    written = output.stat().st_size
    if as_json:
        click.echo(json.dumps({"file": str(output), "entries": len(state), "bytes": written}))
        return
    say(f"{len(state)} entries, {written:,} bytes: {output}")


for _verb in (presets.presets, represent.represent, export.export, *studies.VERBS, *reports.VERBS, *plugins.VERBS):
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
        words = [expanded_argument(text) for text in (sys.argv[1:] if arguments is None else arguments)]
        with printing.alone(sys.stdout) if "--json" in words else contextlib.nullcontext():
            code = cli.main(args=words, standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0  # click returns the exit code that a verb has passed to exit()
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show(sys.stderr)
        return 2
    except (Interrupted, KeyboardInterrupt, click.Abort) as error:
        print(f"nern: {str(error) or 'interrupted'}", file=sys.stderr)
        return 130
    except (NernError, OptionError) as error:
        if os.environ.get("NERN_TRACEBACK"):
            traceback.print_exc()
        for line in str(error).splitlines():
            print(f"nern: {line}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as error:  # stdout is a file on a full disk; errors of other files are explained where they are written
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # drop the rest of the buffer, which cannot be written either
        message = cannot_write(error.filename or "to stdout", error, "free space, or send the output elsewhere")
        print(f"nern: {message}", file=sys.stderr)
        return 1
    except (Exception, SystemExit) as error:
        from nern.registry.blame import blamed

        reason = blamed(error)
        if reason is None and isinstance(error, SystemExit):
            raise
        if reason is None or os.environ.get("NERN_TRACEBACK"):
            traceback.print_exc()
        if reason is None:
            return 1
        print(f"nern: {reason}", file=sys.stderr)
        return 2
