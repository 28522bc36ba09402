"""Compares the time of a training step of the paper's recipe with the baseline's, for the reconstruction loss alone and for all losses."""

from __future__ import annotations

import argparse
from typing import Any

import torch

from benchmarks.report import alternate, publish, ratio, save_plot, table
from benchmarks.setting import Setting
from nern.studies.drawing import COLOURS, in_style, new_figure

ALL = ("reconstruction", "kd", "fmd")
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Counter:
    """Calls a function with 0, 1, 2, …"""

    def __init__(self, call: Any) -> None:
        self.call, self.step = call, 0

    def __call__(self) -> None:
        self.call(self.step)
        self.step += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="resnet20-cifar10", help="an experiment with an MLP and kernels of one size")
    parser.add_argument("--rounds", type=int, default=5, help="times that each step is measured")
    parser.add_argument("--fast-steps", type=int, default=20, help="steps without networks for each of the baseline's")
    parser.add_argument("--curve", type=int, default=20, help="steps of the loss curves, 0 for none")
    parser.add_argument("overrides", nargs="*", help="key.sub=value")
    options = parser.parse_args()
    setting = Setting(options.preset, options.overrides)
    rows = steps(setting, options.rounds, options.fast_steps)
    head = ["losses", "arithmetic", "times faster a step"]
    cells = [[row["losses"], row["precision"], f"{row['ratio']:.1f}"] for row in rows]
    text = f"`{options.preset}`, batch {setting.experiment.phases[0].batch}, {setting.original.grid.rows} kernels.\n\n" + table(head, cells)
    figures: dict[str, Any] = {"steps": rows}
    if options.curve:
        figures["curves"] = curves(setting, options.curve)
        plot(figures["curves"])
        text += "\n\nFrom the same start, with the same draws and inputs, the losses are those of the baseline:\n\n"
        text += "![Losses of baseline and nern over the steps](assets/step-losses.svg)"
    publish("step", figures, text)


def steps(setting: Setting, rounds: int, fast_steps: int) -> list[dict[str, Any]]:
    """Measure the baseline's step, which always computes all losses, against nern's steps; returns one row for each case."""
    work: dict[str, Any] = {"baseline": Counter(setting.baseline((1.0, 1e-4, 1e-4)).step)}
    for name, dtype in PRECISIONS.items():
        work[f"joint {name}"] = Counter(setting.trainer(dtype, ALL).step)
        alone = Counter(setting.trainer(dtype, ["reconstruction"]).step)
        work[f"reconstruction {name}"] = lambda alone=alone: [alone() for _ in range(fast_steps)]
    alternate(work, 1)
    seconds = alternate(work, rounds)
    rows = []
    for name in list(work)[1:]:
        losses, precision = name.split()
        times = [value / (fast_steps if losses == "reconstruction" else 1) for value in seconds[name]]
        times_faster = ratio({"baseline": seconds["baseline"], name: times}, "baseline", name)
        kind = "reconstruction alone" if losses == "reconstruction" else "all three"
        rows.append({"losses": kind, "precision": precision, "ratio": times_faster, "seconds": times, "baseline": seconds["baseline"]})
    return sorted(rows, key=lambda row: row["losses"])


def curves(setting: Setting, count: int) -> dict[str, dict[str, list[float]]]:
    """The loss terms over the first steps, of the baseline and of nern."""
    baseline = setting.baseline((1.0, 1e-4, 1e-4))
    losses = [baseline.step(step) for step in range(count)]
    result = {"baseline float32": {name: [terms[name] for terms in losses] for name in ALL}}
    for name, dtype in PRECISIONS.items():
        trainer = setting.trainer(dtype, ALL)
        values: list[dict[str, float]] = []
        for step in range(count):
            trainer.step(step)
            values.append(trainer.flush(step))
        result[f"nern {name}"] = {term: [terms[term] for terms in values] for term in ALL}
    return result


@in_style
def plot(curves: dict[str, dict[str, list[float]]]) -> None:
    """Draw each term of the loss over the steps in a panel of its own."""
    figure, panels = new_figure(len(ALL), width=7.4, height=2.8)
    styles = {"baseline float32": ("#8b949e", "-", 4), "nern float32": (COLOURS[0], "-", 1.2), "nern bfloat16": (COLOURS[1], "--", 1.2)}
    for axes, term in zip(panels, ALL, strict=True):
        for name, values in curves.items():
            colour, line, width = styles[name]
            axes.plot(range(1, len(values[term]) + 1), values[term], line, color=colour, linewidth=width, label=name)
        axes.set(title=term, xlabel="step")
        axes.ticklabel_format(axis="y", useOffset=False)
    panels[0].set_ylabel("loss")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(styles), frameon=False)
    save_plot(figure, "step-losses")


if __name__ == "__main__":
    main()
