"""Runs rows of the paper's tables and keeps their results for the reproduction page.

    python -m benchmarks.rows 'table1/resnet20-*-fast' 'table5/resnet20-*-fast' \
        --seeds 0,1,2,3 task.root=DIR architecture.weights=FILE

Presets may be patterns. Finished runs are skipped and interrupted ones resumed, so that the command can be repeated; a row that
fails does not stop the others. Results are small JSON files without paths of this machine.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nern.config.preset_families import spelled
from nern.config.sources import no_such_preset, presets
from nern.errors import ConfigError, Interrupted, NernError
from nern.studies.sweep import parse_grid, sweep
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
    changed = {key: value for key, value in overrides.items() if key not in PLACES and key.split(".")[0] not in MACHINE}
    words = [f"{key}={place}" for key, place in PLACES.items() if key in overrides]
    words += [f"{key}={spelled(value)}" for key, value in {**changed, "seed": seed}.items()]
    kept = ("original_top1", "reconstructed_top1", "seconds", "iterations", "bytes", "checkpoints", "smoothness", "environment")
    return {
        "preset": preset,
        "seed": seed,
        "overrides": changed,
        "command": " ".join(["nern", "train", preset, *words]),
        **{key: result[key] for key in kept},
    }


def result_file(folder: Path, kept: Mapping[str, Any]) -> Path:
    """The name of a result file, such as `table1.resnet20-cross-filter-160.seed0.json`; with a hash where values were overridden."""
    name = f"{kept['preset'].replace('/', '.')}.seed{kept['seed']}"
    return folder / (f"{name}.{derive(0, kept['overrides']):016x}.json" if kept["overrides"] else f"{name}.json")


def run(presets: Sequence[str], seeds: Sequence[int], overrides: Mapping[str, Any], runs: Path, results: Path) -> list[str]:
    """Run every preset with every seed; returns a line for each that failed.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; the same call continues.
    """
    failed = []
    results.mkdir(parents=True, exist_ok=True)
    for preset in presets:
        for seed in seeds:
            settings = {**overrides, "output": str(runs / preset)}
            try:
                table, folder = sweep(preset, {"seed": [seed]}, settings, report=lambda line, preset=preset: _say(f"{preset} {line}"))
            except Interrupted:
                raise
            except NernError as error:
                failed.append(f"{preset} seed={seed}: {error}")
                _say(f"failed: {failed[-1]}")
                continue
            result = json.loads((folder / table.runs[0]["run"] / "result.json").read_text(encoding="utf-8"))
            kept = record(preset, seed, overrides, result)
            write_text(result_file(results, kept), json.dumps(kept, indent=1) + "\n")
    return failed


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rows", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("words", nargs="+", metavar="PATTERN | KEY.SUB=VALUE")
    parser.add_argument("--seeds", default="0", help="comma-separated; 0 by default")
    parser.add_argument("--runs", type=Path, default=Path("runs/rows"), help="where run directories go")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where results go")
    chosen = parser.parse_intermixed_args(arguments)
    try:
        axes, overrides = parse_grid([word for word in chosen.words if "=" in word])
        if axes:
            raise ConfigError(f"{next(iter(axes))}: takes one value here")
        presets = matching([word for word in chosen.words if "=" not in word])
        failed = run(presets, [int(seed) for seed in chosen.seeds.split(",")], overrides, chosen.runs, chosen.results)
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
