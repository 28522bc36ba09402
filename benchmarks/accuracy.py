"""Plots accuracy on the held-out images against wall time, as runs logged it.

    nern train resnet20-cifar10-fast task.root=DIR architecture.weights=FILE output=runs/fast
    nern train resnet20-cifar10 task.root=DIR architecture.weights=FILE evaluate_every=50 output=runs/paper
    python -m benchmarks.accuracy "ResNet20=runs/fast" "ResNet20, paper's=runs/paper"

Runs may be unfinished: the table extrapolates the time of all their steps.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.report import publish, save_plot, table
from nern.config.loading import load_experiment
from nern.studies.drawing import colours, in_style, legend_beside, new_figure


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="LABEL=RUN_DIR")
    curves = {}
    for text in parser.parse_args().runs:
        label, _, folder = text.partition("=")
        curves[label] = curve(Path(folder))
    plot(curves)
    head = ["recipe", "threads", "steps", "minutes", "minutes for all steps", "best held-out top-1 %", "test top-1 %, of original"]
    text = table(head, [row(label, course) for label, course in curves.items()])
    publish("accuracy", {"curves": curves}, f"{text}\n\n![Held-out accuracy against wall time](assets/accuracy.svg)")


def row(label: str, course: dict[str, Any]) -> list[object]:
    done, total, minutes = course["steps"], course["total"], course["spent"]
    test = "unfinished" if course["test"] is None else f"{course['test']:.2f} of {course['original']:.2f}"
    return [
        label,
        course["threads"],
        f"{done:,} of {total:,}",
        f"{minutes:.0f}",
        f"{minutes * total / max(done, 1):,.0f}",
        f"{max(course['top1']):.2f}",
        test,
    ]


def curve(folder: Path) -> dict[str, Any]:
    """Minutes and held-out top-1 in per cent of every evaluation in a run's metrics, with the steps and results of the run."""
    minutes, top1, seconds, step = [], [], 0.0, 0
    for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        seconds, step = entry.get("seconds", seconds), entry["iteration"]
        if "top1" in entry.get("heldout", {}):
            minutes.append(seconds / 60)
            top1.append(entry["heldout"]["top1"])
    experiment, _ = load_experiment(folder / "config.yaml")
    file = folder / "result.json"
    result = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return {
        "minutes": minutes, "top1": top1, "spent": result.get("seconds", seconds) / 60, "steps": step,
        "threads": result.get("environment", {}).get("threads", experiment.threads or "all"),
        "total": sum(phase.iterations for phase in experiment.phases),
        "original": result.get("original_top1"), "test": result.get("reconstructed_top1"),
    }  # fmt: skip


@in_style
def plot(curves: dict[str, dict[str, Any]]) -> None:
    """Draw accuracy over minutes, a line for each run, with the accuracy of its original network on the test images as a dotted line."""
    figure, (axes,) = new_figure(height=3.4)
    for colour, (label, curve) in zip(colours(len(curves)), curves.items(), strict=True):
        axes.plot(curve["minutes"], curve["top1"], "o-", markersize=3, color=colour, label=label)
        if curve["original"]:
            axes.axhline(curve["original"], color=colour, linestyle=":", linewidth=1)
    axes.set(xlabel="wall time, minutes", ylabel="held-out top-1, %", xscale="log")
    axes.xaxis.set_major_formatter("{x:g}")
    legend_beside(axes, title="dotted: original\nnetwork, test images", title_fontsize=9, alignment="left")
    save_plot(figure, "accuracy")


if __name__ == "__main__":
    main()
