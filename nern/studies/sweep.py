"""Sweeps: many runs that differ in some values, each in its own folder, and their means with confidence intervals."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from nern.config.loading import load_experiment
from nern.config.overrides import parse_override
from nern.config.preset_families import spelled
from nern.config.structuring import structure_component
from nern.errors import ConfigError, NernError, TrainingError
from nern.launching import Launcher
from nern.registry.registry import Registry
from nern.studies.objective import Objective
from nern.studies.scheduling import Outcome, PlannedRun, work_through
from nern.studies.search import Axis, Range, Search, create_search
from nern.studies.tables import FIGURES, Table, tabulate
from nern.support.files import write_text
from nern.support.messages import cannot_write
from nern.support.seeding import fingerprint

_RANGE = re.compile(r"(?P<log>log\()?\s*(?P<low>[-+.\de]+?)\s*\.\.\s*(?P<high>[-+.\de]+?)\s*(?(log)\))", re.IGNORECASE)


def parse_grid(overrides: Sequence[str]) -> tuple[dict[str, Axis], dict[str, Any]]:
    """`seed=0,1 predictor.hidden=140` → axes with their values, and single values.

    A comma inside brackets, braces or quotes belongs to a value. `1e-4..1e-2` is an axis of all numbers between two bounds, and in
    `log(1e-4..1e-2)` equal ratios are equally likely.

    Raises:
        ConfigError: a text is no override, an axis has an empty or a repeated value, or a range's bounds are impossible.
    """
    axes: dict[str, Axis] = {}
    single: dict[str, Any] = {}
    for text in overrides:
        path, _, values = text.partition("=")
        bounds = _RANGE.fullmatch(values.strip())
        if bounds:
            axes[path.strip()] = _range(path.strip(), bounds)
            continue
        parts = _split(values)
        if len(parts) == 1:
            name, single[name] = parse_override(text)[0], parse_override(text)[1]
            continue
        listed = [parse_override(f"{path}={part}")[1] for part in parts]
        if "" in (part.strip() for part in parts) or len(set(map(repr, listed))) < len(listed):
            raise ConfigError(f"{path.strip()}: a list of values to sweep over has an empty or a repeated value: {values}")
        axes[path.strip()] = listed
    return axes, single


def sweep(
    reference: str | Path,
    axes: Mapping[str, Axis],
    overrides: Mapping[str, Any] | None = None,
    *,
    plugins: Sequence[str] = (),
    disabled: Sequence[str] = (),
    report: Callable[[str], None] = lambda line: None,
    launcher: Launcher | Mapping[str, Any] | None = None,
    retries: int = 1,
    sampler: str = "grid",
    budget: int | None = None,
    objective: str | None = None,
) -> tuple[Table, Path]:
    """Run combinations of values. Finished runs are skipped, interrupted ones are resumed, and failed ones are listed in the table.

    Each run has its own folder below `output`, where `sweep.csv`, `sweep.json` and `sweep.md` are brought up to date
    after every run. Runs whose original network is trained alike share it.

    Args:
        axes: dotted paths to the values they take, or to a `Range`.
        overrides: dotted paths to single values; `output` is the sweep's folder, by default the run's with `-sweep`.
        plugins: local plugins besides those that the experiment names.
        disabled: plugins to leave out.
        report: called with one line per run.
        launcher: starts the runs: a component, or its options such as `{"name": "ray", "jobs": 4}`; by default runs are made one
            after the other on this machine.
        retries: how often a run is started again that was ended from outside, such as by a signal.
        sampler: "grid" tries every combination, "random" draws settings, "optuna" lets Optuna propose them.
        budget: how many settings random and optuna try, each with every seed.
        objective: the figure that the sweep optimises: a metric on held-out images, or `total_bytes`, `predictor_bytes` or
            `seconds`. By default, optuna optimises the metric that chooses checkpoints, and the other samplers optimise nothing.

    Returns:
        The table and the folder.

    Raises:
        ConfigError: an override is wrong (before anything runs), or a folder holds another run.
        Interrupted: Ctrl-C or SIGTERM; the same call continues where it stopped.
    """
    overrides = dict(overrides or {})
    if "output" in axes:
        raise ConfigError("output: is the sweep's folder and cannot be swept over")
    seeds = axes.get("seed") if sampler != "grid" else None
    if isinstance(seeds, Range):
        raise ConfigError(f"seed={seeds}: seeds are not searched; list those that every setting is run with, as in seed=0,1,2")
    searched = {path: axis for path, axis in axes.items() if seeds is None or path != "seed"}
    example = {path: axis.at(0.5) if isinstance(axis, Range) else axis[0] for path, axis in axes.items()}
    first, registry = load_experiment(reference, {**overrides, **example}, disabled=disabled, plugins=plugins)
    folder = Path(overrides["output"]) if "output" in overrides else Path(f"{first.output}-sweep")
    search = create_search(sampler, searched, budget, folder)
    wanted = Objective.of(objective, first) if objective is not None or sampler == "optuna" else None

    def load(setting: dict[str, Any]) -> PlannedRun:
        name = folder_name(setting)
        changed = {**overrides, **setting, "output": str(folder / name)}
        experiment, own_registry = load_experiment(reference, changed, disabled=disabled, plugins=plugins)
        return PlannedRun(name, experiment, own_registry, setting)

    sheet = _Sheet(list(axes), folder, search, wanted, list(seeds) if seeds is not None else None, report)
    if sampler == "grid":
        planned = [load(setting) for setting in search.settings()]
        sheet.total = len(planned)
        runs = iter(planned)
    else:
        sheet.total = (budget or 0) * len(seeds or [None])
        runs = sheet.plan(load)
    work_through(
        runs, launcher_of(launcher, registry), folder, sheet.done,
        retries=retries, disabled=disabled, lookahead=search.lookahead, report=report,
    )  # fmt: skip
    return sheet.table(), folder


def launcher_of(launcher: Launcher | Mapping[str, Any] | None, registry: Registry) -> Launcher:
    """Make a launcher from its options; `local` where they name none.

    Raises:
        ConfigError: the launcher or an option does not exist.
    """
    if isinstance(launcher, Launcher):
        return launcher
    made: Launcher = structure_component("launcher", {"name": "local", **(launcher or {})}, registry, "launcher")
    return made


def folder_name(values: Mapping[str, Any]) -> str:
    """The name of a run's folder, such as `predictor.hidden=140_seed=0`. Impossible characters are replaced, and a hash is added."""
    name = "_".join(f"{key}={spelled(value)}" for key, value in values.items()) or "run"
    safe = re.sub(r"[^\w.=+-]+", "-", name)[:150]
    return safe if safe == name else f"{safe}-{fingerprint(name)}"[:160]


@attrs.define(eq=False)
class _Sheet:
    """Collects the rows of a sweep, and tells its search the scores."""

    axes: list[str]
    folder: Path
    search: Search
    objective: Objective | None
    seeds: list[Any] | None  # seeds with which every setting is run; None where the seed is an ordinary axis, or not swept over
    report: Callable[[str], None]
    total: int = 0
    rows: list[dict[str, Any]] = attrs.field(factory=list)
    scores: dict[str, list[float | None]] = attrs.field(factory=dict)  # scores of each setting's runs

    def plan(self, load: Callable[[dict[str, Any]], PlannedRun]) -> Iterator[PlannedRun]:
        """Plan the runs that the search wants; a setting that is no valid experiment becomes a failed row."""
        for setting in self.search.settings():
            for seed in self.seeds or [None]:
                values = setting if seed is None else {**setting, "seed": seed}
                try:
                    run = load(values)
                except ConfigError as error:
                    self._add(values, folder_name(values), None, str(error), "")
                    continue
                yield run

    def done(self, outcome: Outcome) -> None:
        """Add a run's result or failure to the table."""
        note = " (was there)" if outcome.was_there else ""
        self._add(outcome.run.values, outcome.run.name, outcome.result, outcome.failed, note)

    def table(self) -> Table:
        """The table of means over the rows so far."""
        return tabulate(self.axes, self.rows, self.objective.name if self.objective else None)

    def _add(self, values: dict[str, Any], name: str, result: Mapping[str, Any] | None, failed: str | None, note: str) -> None:
        value: float | None = None
        if result is not None and self.objective is not None:
            try:
                value = self.objective.value(result)
            except NernError as error:
                failed = str(error)
        row = {"values": values, "run": name, **_figures(result or {}), "objective": value, "failed": failed}
        self.rows.append(row)
        self.report(f"{len(self.rows)}/{self.total} {name}: {_line(row, self.objective)}{note}")
        self._tell(values, value)
        _write(self.folder, self.table())

    def _tell(self, values: Mapping[str, Any], value: float | None) -> None:
        if self.objective is None:
            return
        setting = {key: item for key, item in values.items() if self.seeds is None or key != "seed"}
        scores = self.scores.setdefault(repr(setting), [])
        scores.append(None if value is None else self.objective.score(value))
        if len(scores) == len(self.seeds or [None]):
            measured = [score for score in scores if score is not None]
            self.search.tell(setting, sum(measured) / len(measured) if measured else None)


def _figures(result: Mapping[str, Any]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for name, path in FIGURES.items():
        value: Any = result
        for key in path:
            value = (value or {}).get(key)
        figures[name] = value
    return figures


def _line(row: Mapping[str, Any], objective: Objective | None) -> str:
    if row["failed"] is not None:
        return f"failed: {row['failed']}"
    accuracy = row["reconstructed_top1"]
    line = "no test set" if accuracy is None else f"reconstructed {accuracy:.2f} %, original {row['original_top1']:.2f} %"
    return line if objective is None else f"{objective.name} {row['objective']:.4g}; {line}"


def _write(folder: Path, table: Table) -> None:
    try:
        write_text(folder / "sweep.json", json.dumps(table.to_dict(), indent=2) + "\n")
        write_text(folder / "sweep.csv", table.csv())
        write_text(folder / "sweep.md", table.markdown())
    except OSError as error:
        raise TrainingError(cannot_write(f"the sweep's tables in {folder}", error, "free space or set output")) from error


def _range(path: str, bounds: re.Match[str]) -> Range:
    try:
        low, high = (int(text) if re.fullmatch(r"[-+]?\d+", text) else float(text) for text in (bounds["low"], bounds["high"]))
    except ValueError as error:
        raise ConfigError(f"{path}={bounds[0]}: the bounds of a range are two numbers, such as 1e-4..1e-2") from error
    log = bounds["log"] is not None
    if low >= high or (log and low <= 0):
        raise ConfigError(f"{path}={bounds[0]}: the first bound must be below the second" + (" and above 0" if log else ""))
    return Range(low, high, log)


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
