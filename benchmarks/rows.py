"""Runs rows of the paper's tables and keeps their results for the reproduction page.

    python -m benchmarks.rows 'table1/resnet20-*-fast' 'table5/resnet20-*-fast' \
        --seeds 0,1,2,3 --jobs 2 task.root=DIR architecture.weights=FILE

Presets may be patterns. All rows form one queue, several side by side, those first that have the fewest results: a row that was
never run comes before a second seed of another. Finished runs are skipped and interrupted ones resumed, so that the same command
can be repeated; a row that fails does not stop the others. Rows that are the same experiment in two tables are run once.

Results are small JSON files without paths of this machine. Each keeps the preset's values that made it, so that a result does not
stand for a preset that was changed afterwards.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nern.config.defaults import DEFAULTS
from nern.config.loading import load_experiment
from nern.config.preset_families import spelled
from nern.config.recipes import overridden
from nern.config.sources import no_such_preset, presets
from nern.errors import ConfigError, Interrupted, NernError
from nern.registry.discovery import create_registry
from nern.run.folder import FREE, differing_keys
from nern.studies.scheduling import Outcome, PlannedRun, work_through
from nern.studies.sweep import launcher_of, parse_grid
from nern.support.files import write_text
from nern.support.seeding import derive

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"

#: Overrides of paths and devices, which do not change the meaning of a result.
PLACES = {"task.root": "DIR", "architecture.weights": "FILE"}
MACHINE = ("device", "threads", "output", "observers")


def matching(patterns: Sequence[str]) -> list[str]:
    """Presets that match any pattern, in the order of the tables.

    Raises:
        ConfigError: a pattern matches none.
    """
    shipped = list(presets())
    for pattern in patterns:
        if not fnmatch.filter(shipped, pattern):
            raise ConfigError(no_such_preset(pattern))
    return [name for name in shipped if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]


def record(preset: str, seed: int, overrides: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a run's result.json that the page needs, without paths."""
    changed = _kept_overrides(overrides)
    words = [f"{key}={place}" for key, place in PLACES.items() if key in overrides]
    words += [f"{key}={spelled(value)}" for key, value in {**changed, "seed": seed}.items()]
    kept = ("original_top1", "reconstructed_top1", "seconds", "iterations", "bytes", "checkpoints", "smoothness", "environment")
    return {
        "preset": preset,
        "seed": seed,
        "overrides": changed,
        "command": shlex.join(["nern", "train", preset, *words]),
        **{key: result[key] for key in kept},
        "configuration": configuration(preset, changed),
    }


def configuration(preset: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a preset as it is now, with overrides and without those that make no difference to its result.

    Defaults of components are no part of it: an option that a component gains does not put every result out of date.
    """
    values = overridden(presets().values_of(preset), overrides, DEFAULTS)
    return {key: value for key, value in values.items() if key not in FREE}


def changed_since(kept: Mapping[str, Any]) -> list[str]:
    """The keys of a result's preset that had other values when the result was made; none where the result is the preset's."""
    try:
        now = configuration(kept["preset"], kept["overrides"])
    except (KeyError, ConfigError):  # there is no such preset any more, or it has lost what was overridden
        now = {}
    return differing_keys(kept.get("configuration", {}), now)


def _kept_overrides(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Those that change a result's meaning."""
    return {key: value for key, value in overrides.items() if key not in PLACES and key.split(".")[0] not in MACHINE}


def result_file(folder: Path, kept: Mapping[str, Any]) -> Path:
    """The name of a result file, such as `table1.resnet20-cross-filter-160.seed0.json`; with a hash where values were overridden."""
    name = f"{kept['preset'].replace('/', '.')}.seed{kept['seed']}"
    return folder / (f"{name}.{derive(0, kept['overrides']):016x}.json" if kept["overrides"] else f"{name}.json")


def queue(presets: Sequence[str], seeds: Sequence[int], overrides: Mapping[str, Any], results: Path) -> list[tuple[str, int]]:
    """Presets and seeds in the order in which they are needed: of the presets with the fewest results the next seed each.

    Seeds that have their result already come first: their runs are only looked at.
    """
    order: list[tuple[int, str, int]] = []
    for preset in presets:
        results_of_preset = sum(_is_current(file) for file in results.glob(f"{preset.replace('/', '.')}.seed*.json"))
        for seed in seeds:
            there = _is_current(result_file(results, {"preset": preset, "seed": seed, "overrides": _kept_overrides(overrides)}))
            order.append((-1 if there else results_of_preset, preset, seed))
            results_of_preset += not there
    return [(preset, seed) for _, preset, seed in sorted(order, key=lambda entry: entry[0])]


def same_experiment(preset: str, seed: int, overrides: Mapping[str, Any], results: Path) -> dict[str, Any] | None:
    """The result of another preset that, with its overrides, is the same experiment with the same seed; None where there is none."""
    wanted = {"seed": seed, "configuration": configuration(preset, _kept_overrides(overrides))}
    for file in sorted(results.glob(f"*.seed{seed}*.json")):
        kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if kept["preset"] != preset and all(kept.get(key) == value for key, value in wanted.items()):
            return kept
    return None


def _is_current(file: Path) -> bool:
    """Whether the file holds a result of its preset as it is now."""
    return file.exists() and not changed_since(json.loads(file.read_text(encoding="utf-8")))


def run(presets: Sequence[str], seeds: Sequence[int], overrides: Mapping[str, Any], runs: Path, results: Path, jobs: int = 1) -> list[str]:
    """Run every preset with every seed; returns a line for each that failed.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; the same call continues where it stopped.
    """
    failed: list[str] = []
    settings = {f"{preset} seed={seed}": (preset, seed) for preset, seed in queue(presets, seeds, overrides, results)}
    results.mkdir(parents=True, exist_ok=True)

    def planned() -> Iterator[PlannedRun]:
        for name, (preset, seed) in settings.items():
            output = runs / preset / f"seed={seed}"
            try:
                if not output.exists() and (equal := same_experiment(preset, seed, overrides, results)):
                    keep(preset, seed, equal)
                    _say(f"{name}: {_figure(equal)} (the same experiment as {equal['preset']})")
                    continue
                experiment, registry = load_experiment(preset, {**overrides, "seed": seed, "output": str(output)})
                yield PlannedRun(name, experiment, registry, {"preset": preset, "seed": seed})
            except NernError as error:
                fail(name, str(error))

    def keep(preset: str, seed: int, result: Mapping[str, Any]) -> None:
        kept = record(preset, seed, overrides, result)
        write_text(result_file(results, kept), json.dumps(kept, indent=1) + "\n")

    def fail(name: str, reason: str) -> None:
        failed.append(f"{name}: {reason}")
        _say(f"failed: {failed[-1]}")

    def done(outcome: Outcome) -> None:
        if outcome.result is None:
            fail(outcome.run.name, outcome.failed or "it has no result")
            return
        keep(*settings[outcome.run.name], outcome.result)
        _say(f"{outcome.run.name}: {_figure(outcome.result)}{' (was there)' if outcome.was_there else ''}")

    launcher = launcher_of({"name": "local", "jobs": jobs}, create_registry())
    work_through(planned(), launcher, runs, done, lookahead=1, report=_say)
    return failed


def _figure(result: Mapping[str, Any]) -> str:
    top1 = result["reconstructed_top1"]
    return "no test set" if top1 is None else f"{top1:.2f} of {result['original_top1']:.2f} %, {result['bytes']['total']:,} bytes"


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rows", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("words", nargs="+", metavar="PATTERN | KEY.SUB=VALUE")
    parser.add_argument("--seeds", default="0", help="comma-separated; 0 by default")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, which share the threads; 1 by default")
    parser.add_argument("--runs", type=Path, default=Path("runs/rows"), help="where run directories go")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where results go")
    chosen = parser.parse_intermixed_args(arguments)
    try:
        axes, overrides = parse_grid([word for word in chosen.words if "=" in word])
        if axes:
            raise ConfigError(f"{next(iter(axes))}: takes one value here")
        presets = matching([word for word in chosen.words if "=" not in word])
        failed = run(presets, [int(seed) for seed in chosen.seeds.split(",")], overrides, chosen.runs, chosen.results, chosen.jobs)
    except Interrupted as error:
        _say(str(error))
        return 130
    except (NernError, ValueError) as error:
        _say(str(error))
        return 2
    for line in failed:
        _say(line)
    return 1 if failed else 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
