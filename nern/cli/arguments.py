"""Arguments that several verbs of the command line share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

OVERRIDES = click.argument("overrides", nargs=-1, metavar="[KEY.SUB=VALUE]...")
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout; messages go to stderr.")
NO_PLUGIN = click.option(
    "--no-plugin", "disabled", multiple=True, metavar="NAME", help="Leave out a plugin, by its name or package (may be repeated)."
)
PLUGIN = click.option(
    "--plugin", "local", multiple=True, metavar="FILE_OR_MODULE", help="Use a plugin that is not installed (may be repeated)."
)


def experiment(reference: str, overrides: Sequence[str], disabled: Sequence[str] = ()) -> Any:
    """A preset, a YAML file or a run directory, with overrides: (Experiment, Registry)."""
    from nern.config.loading import load_experiment
    from nern.config.overrides import parse_override

    values = dict(parse_override(text) for text in overrides)
    if Path(reference).is_dir() and (Path(reference) / "config.yaml").is_file():
        values, reference = {"output": reference, **values}, str(Path(reference) / "config.yaml")
    return load_experiment(reference, values, disabled=disabled)


def percent(value: float | None) -> str:
    """` 91.50 %`, or a dash."""
    return f"{value:6.2f} %" if value is not None else "     — %"
