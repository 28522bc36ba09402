"""Arguments and options that several verbs of the command line share; each means the same on every verb that has it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from nern.errors import ConfigError
from nern.support.files import expand_path
from nern.support.messages import cannot_write

Command = TypeVar("Command", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)


def example(command: str) -> str:
    """The example at the end of a verb's help."""
    return f"\b\nExample:\n  {command}"


def _check_overrides(context: click.Context, parameter: click.Parameter, words: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse `ratios=0.5` where the verb has the option --ratios."""
    takes_experiment = any(argument.name == "experiment" for argument in context.command.params)
    options = {name for option in context.command.params if isinstance(option, click.Option) for name in option.opts}
    for word in words:
        key, _, value = word.partition("=")
        if key.strip() == "output" and "--run" in options:  # where -o names one file, not the run
            raise click.UsageError(f"'{word}': the run's folder is an option of this command; write --run {value}".rstrip(), context)
        if f"--{key.strip()}" in options and not (key.strip() == "output" and takes_experiment):
            raise click.UsageError(f"'{word}': {key.strip()} is an option of this command; write --{key.strip()} {value}".rstrip(), context)
    return words


EXPERIMENT = click.argument("experiment", metavar="PRESET_OR_YAML")
RUN = click.argument("run", metavar="RUN_DIR_OR_FILE", type=PATH)
OVERRIDES = click.argument("overrides", nargs=-1, metavar="[KEY.SUB=VALUE]...", callback=_check_overrides)
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout; messages go to stderr.")
_PLUGIN = click.option(
    "--plugin", "plugins", multiple=True, metavar="FILE_OR_MODULE", help="Use a plugin that is not installed (may be repeated)."
)
_NO_PLUGIN = click.option(
    "--no-plugin", "disabled", multiple=True, metavar="NAME", help="Leave out a plugin, by its name or package (may be repeated)."
)


def PLUGINS(command: Command) -> Command:  # noqa: N802
    """The options --plugin and --no-plugin, as the arguments `plugins` and `disabled`."""
    return _PLUGIN(_NO_PLUGIN(command))


REFERENCES = "timm:NAME, torchvision:NAME, cifar-resnet:DEPTH, file.py:Class or package.module:function."
NETWORK_ARGUMENTS = click.option(
    "--arguments",
    "options",
    multiple=True,
    show_default="none",
    metavar="NAME=VALUE",
    help="An argument of the class, the function or the library's constructor (may be repeated).",
)


def named(options: Sequence[str]) -> dict[str, Any]:
    """The values that --arguments gives, by name."""
    from nern.config.overrides import parse_override

    return dict(parse_override(text) for text in options)


def output(what: str, *, required: bool = False, default: str | None = None) -> Callable[[Command], Command]:
    """The option -o, as the argument `output: Path | None`.

    Args:
        what: what the verb writes there, for the help.
        default: where the verb writes without the option, for the help.
    """
    text = f"Where to write {what}."
    return click.option("-o", "--output", type=PATH, required=required, show_default=default or True, help=text)


class Numbers(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions of click alone
    """Numbers separated by commas, such as `0,0.1`."""

    name = "number,number,…"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> list[float]:
        if not isinstance(value, str):
            return list(value)
        try:
            return [float(number) for number in value.split(",")]
        except ValueError:
            self.fail(f"'{value}' is not a list of numbers separated by commas", parameter, context)


def load(
    reference: str, overrides: Sequence[str], plugins: Sequence[str] = (), disabled: Sequence[str] = (), output: Path | None = None
) -> Any:
    """Load a preset, a YAML file or a run directory with overrides; returns (Experiment, Registry).

    Args:
        output: the run directory that -o names, or None.
    """
    from nern.config.loading import load_experiment
    from nern.config.overrides import parse_override

    values = run_directory(dict(parse_override(text) for text in overrides), output)
    if Path(reference).is_dir() and (Path(reference) / "config.yaml").is_file():
        values, reference = {"output": reference, **values}, str(Path(reference) / "config.yaml")
    return load_experiment(reference, values, disabled=disabled, plugins=plugins)


def run_directory(values: dict[str, Any], output: Path | None) -> dict[str, Any]:
    """The overrides, with the run directory that -o names among them."""
    if output is None:
        return values
    if "output" in values and Path(str(values["output"])) != output:
        raise ConfigError(f"output={values['output']} and -o {output} both name the run directory; give one of them")
    return {**values, "output": str(output)}


def show_yaml(text: str, values: Any, output: Path | None, as_json: bool) -> None:
    """Write YAML to the file that -o names, or print it without -o; with --json, print the values as JSON."""
    if output is not None:
        from nern.support.files import write_text

        try:
            write_text(output, text)
        except OSError as error:
            raise ConfigError(cannot_write(output, error, "name another file with -o")) from error
    if as_json:
        click.echo(json.dumps(values))
    elif output is None:
        click.echo(text, nl=False)
    else:
        say(f"written: {output}")


def expanded_argument(text: str) -> str:
    """A command line argument in which `~` or `$HOME` is replaced where its value begins, also after `--option=` and `key=`."""
    key, equals, value = text.partition("=") if re.match(r"[\w.-]+=[~$]", text) else ("", "", text)
    return key + equals + expand_path(value)


def figure(name: str, value: float | None) -> str:
    """A figure with its name, such as `top-1  91.50 %` or `miou 45.1`."""
    if name == "top1":
        return f"top-1 {percent(value)}"
    return f"{name} {value:.4g}" if value is not None else f"{name} —"


def percent(value: float | None) -> str:
    """A percentage of fixed width such as ` 91.50 %`; a dash for None."""
    return f"{value:6.2f} %" if value is not None else "     — %"


def say(line: str) -> None:
    """Print a message for the person at the terminal, on stderr, so that stdout holds results alone."""
    click.echo(line, err=True)
