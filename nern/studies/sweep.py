"""A grid of runs, each in its own folder, and their means with confidence intervals."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nern.config.loading import load_experiment
from nern.config.overrides import parse_override
from nern.config.preset_families import spelled
from nern.config.structuring import unstructure
from nern.engine import Engine
from nern.errors import ConfigError, Interrupted, TrainingError
from nern.run.original import original_fingerprint
from nern.studies.tables import FIGURES, Table, tabulate
from nern.support.files import write_text
from nern.support.messages import cannot_write
from nern.support.seeding import fingerprint


def parse_grid(overrides: Sequence[str]) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """`seed=0,1 predictor.hidden=140` → axes with their values, and single values.

    A comma inside brackets, braces or quotes belongs to a value.

    Raises:
        ConfigError: a text is no override, or an axis has an empty or a repeated value.
    """
    axes: dict[str, list[Any]] = {}
    single: dict[str, Any] = {}
    for text in overrides:
        path, _, values = text.partition("=")
        parts = _split(values)
        if len(parts) == 1:
            name, single[name] = parse_override(text)[0], parse_override(text)[1]
            continue
        swept = [parse_override(f"{path}={part}")[1] for part in parts]
        if "" in (part.strip() for part in parts) or len(set(map(repr, swept))) < len(swept):
            raise ConfigError(f"{path.strip()}: a list of values to sweep over has an empty or a repeated value: {values}")
        axes[path.strip()] = swept
    return axes, single


def sweep(
    reference: str | Path,
    axes: Mapping[str, Sequence[Any]],
    overrides: Mapping[str, Any] | None = None,
    *,
    plugins: Sequence[str] = (),
    disabled: Sequence[str] = (),
    report: Callable[[str], None] = lambda line: None,
) -> tuple[Table, Path]:
    """Run every combination of the axes; finished runs are skipped, interrupted ones are resumed.

    Each run has its own folder below `output`, where `sweep.csv`, `sweep.json` and `sweep.md` are brought up to date
    after every run. Runs whose original network is trained alike share it.

    Args:
        axes: dotted paths to the values they take.
        overrides: dotted paths to single values; `output` is the sweep's folder, by default the run's with `-sweep`.
        plugins: local plugins besides those that the experiment names.
        disabled: plugins to leave out.
        report: called with one line per run.

    Returns:
        The table and the folder.

    Raises:
        ConfigError: an override is wrong (before anything runs), or a folder holds another run.
        Interrupted: Ctrl-C or SIGTERM; the same call continues where it stopped.
    """
    overrides = dict(overrides or {})
    if "output" in axes:
        raise ConfigError("output: is the sweep's folder and cannot be swept over")
    combinations = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    first, _ = load_experiment(reference, {**overrides, **combinations[0]}, disabled=disabled, plugins=plugins)
    folder = Path(overrides["output"]) if "output" in overrides else Path(f"{first.output}-sweep")
    settings = [{**overrides, **values, "output": str(folder / folder_name(values))} for values in combinations]
    experiments = [load_experiment(reference, setting, disabled=disabled, plugins=plugins) for setting in settings]
    runs: list[dict[str, Any]] = []
    originals: dict[str, Path] = {}
    for count, (values, experiment) in enumerate(zip(combinations, experiments, strict=True), start=1):
        engine = Engine(*experiment)  # its images go when it goes
        done, result = _run(engine, originals)
        runs.append({"values": values, "run": engine.run.path.name, **_figures(result)})
        report(f"{count}/{len(combinations)} {engine.run.path.name}: {_line(runs[-1])}{' (was there)' if done else ''}")
        table = tabulate(list(axes), runs)
        _write(folder, table)
    return table, folder


def folder_name(values: Mapping[str, Any]) -> str:
    """`predictor.hidden=140_seed=0`; what a file name cannot hold is replaced, and told apart by a hash."""
    name = "_".join(f"{key}={spelled(value)}" for key, value in values.items()) or "run"
    safe = re.sub(r"[^\w.=+-]+", "-", name)[:150]
    return safe if safe == name else f"{safe}-{fingerprint(name)}"[:160]


def _run(engine: Engine, originals: dict[str, Path]) -> tuple[bool, dict[str, Any]]:
    """Fit, resume, or read the result that is there: whether it was there, and the result."""
    resolved = unstructure(engine.experiment, engine.registry)
    key = original_fingerprint(engine.experiment, engine.registry)
    run, started = engine.run, engine.run.config.exists()
    if started:
        run.check(resolved, resume=True, registry=engine.registry)
    if started and run.result.exists():
        try:
            result = json.loads(run.result.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise TrainingError(f"{run.result} is damaged; remove {run.path} to run it again") from error
        if result["iterations"] >= sum(phase.iterations for phase in engine.experiment.phases):
            originals.setdefault(key, run.original)
            return True, result
    if key in originals and originals[key].exists() and not run.original.exists():
        run.path.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(originals[key], run.original)
    try:
        result = engine.fit(resume=started).to_dict()
    except Interrupted as error:
        stopped = str(error).partition(";")[0]
        raise Interrupted(f"{run.path.name}: {stopped}; the same nern sweep command continues from there") from error
    originals.setdefault(key, run.original)
    return False, result


def _figures(result: Mapping[str, Any]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for name, path in FIGURES.items():
        value: Any = result
        for key in path:
            value = (value or {}).get(key)
        figures[name] = value
    return figures


def _line(run: Mapping[str, Any]) -> str:
    accuracy = run["reconstructed_top1"]
    return "no test set" if accuracy is None else f"reconstructed {accuracy:.2f} %, original {run['original_top1']:.2f} %"


def _write(folder: Path, table: Table) -> None:
    try:
        write_text(folder / "sweep.json", json.dumps(table.to_dict(), indent=2) + "\n")
        write_text(folder / "sweep.csv", table.csv())
        write_text(folder / "sweep.md", table.markdown())
    except OSError as error:
        raise TrainingError(cannot_write(f"the sweep's tables in {folder}", error, "free space or set output")) from error


def _split(values: str) -> list[str]:
    """Split at commas outside brackets, braces and quotes."""
    parts, depth, quote = [""], 0, ""
    for character in values:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "[{":
            depth += 1
        elif character in "]}":
            depth -= 1
        elif character == "," and depth == 0:
            parts.append("")
            continue
        parts[-1] += character
    return parts
