"""Accuracy on the held-out images against wall time: the paper's recipe and the fast one, as their runs logged it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.report import RESULTS, publish, save_plot, table
from nern import Engine, config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", default="resnet20-cifar10-fast", help="preset of the fast recipe, or the folder of a run of it")
    parser.add_argument("--paper", default="resnet20-cifar10", help="preset of the paper's recipe, or the folder of a run of it")
    parser.add_argument("--shorten", type=float, default=1.0, help="part of every phase's length that presets are run for")
    parser.add_argument("--points", type=int, default=20, help="evaluations over each run")
    parser.add_argument("--runs", type=Path, default=RESULTS / "runs", help="where presets are run; finished runs are not run again")
    parser.add_argument("overrides", nargs="*", help="key.sub=value for both presets")
    options = parser.parse_args()
    curves = {}
    for label, reference in (("fast", options.fast), ("paper", options.paper)):
        folder = Path(reference)
        if not (folder / "metrics.jsonl").exists():
            folder = run(reference, options.overrides, options.shorten, options.points, options.runs)
        curves[label] = curve(folder)
    plot(curves)
    rows = [
        [label, found["iterations"], f"{found['minutes'][-1]:.1f}", best(found), percent(found["test"])] for label, found in curves.items()
    ]
    head = ["recipe", "steps", "minutes", "best held-out top-1 %", "test top-1 % of the chosen checkpoint"]
    text = table(head, rows) + "\n\n![Held-out accuracy against wall time](assets/accuracy.svg)"
    if options.shorten != 1:
        text = f"Every phase is run for {options.shorten:g} of its length.\n\n{text}"
    publish("accuracy", {"shorten": options.shorten, "curves": curves}, text)


def run(preset: str, overrides: list[str], shorten: float, points: int, runs: Path) -> Path:
    """Run a preset, or go on with a run of it."""
    folder = runs / f"{preset}-{shorten:g}"
    experiment, _ = config.load_experiment(preset, overrides)
    lengths = [max(1, round(phase.iterations * shorten)) for phase in experiment.phases]
    every = max(1, sum(lengths) // points)
    shortened = [f"phases.{index}.iterations={length}" for index, length in enumerate(lengths)]
    engine = Engine.from_yaml(preset, [*overrides, *shortened, f"evaluate_every={every}", f"output={folder}"])
    if not (folder / "result.json").exists():
        engine.fit(resume=(folder / "metrics.jsonl").exists())
    return folder


def curve(folder: Path) -> dict[str, Any]:
    """Minutes and held-out top-1 % of every evaluation in a run's metrics."""
    minutes, top1, seconds = [], [], 0.0
    for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        seconds = entry.get("seconds", seconds)
        if "top1" in entry.get("heldout", {}):
            minutes.append(seconds / 60)
            top1.append(entry["heldout"]["top1"])
    result = json.loads((folder / "result.json").read_text(encoding="utf-8")) if (folder / "result.json").exists() else {}
    return {
        "minutes": minutes, "top1": top1, "iterations": result.get("iterations", "unfinished"),
        "original": result.get("original_top1"), "test": result.get("reconstructed_top1", "unfinished"),
    }  # fmt: skip


def best(found: dict[str, Any]) -> str:
    return percent(max(found["top1"]))


def percent(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.2f}"


def plot(curves: dict[str, dict[str, Any]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(6, 3.2))
    for label, found in curves.items():
        axis.plot(found["minutes"], found["top1"], "o-", markersize=3, label=label)
    originals = [found["original"] for found in curves.values() if found["original"]]
    if originals:
        axis.axhline(originals[0], color="0.5", linestyle=":", label="original network (test)")
    axis.set(xlabel="wall time, minutes", ylabel="held-out top-1 %", xscale="log")
    axis.legend(fontsize=8)
    figure.tight_layout()
    save_plot(figure, "accuracy")


if __name__ == "__main__":
    main()
