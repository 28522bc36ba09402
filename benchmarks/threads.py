"""Compares the time of a training step on one CPU thread and on all, beside the multiply-adds by which a run chooses between them."""

from __future__ import annotations

import argparse
import os
from typing import Any

import attrs
import torch

from benchmarks.report import alternate, publish, table
from benchmarks.setting import Setting
from benchmarks.step import Counter
from nern.run.thread_count import SMALL, work_of_step

#: Name of a row → preset, and overrides.
NETWORKS = {
    "ResNet8, digits": ("digits", []),
    "ResNet8, CIFAR-10": ("resnet20-cifar10-fast", ["recipe=fast", "embedding=positional", "architecture.depth=8"]),
    "ResNet20, CIFAR-10": ("resnet20-cifar10-fast", ["recipe=fast", "embedding=positional"]),
    "ResNet56, CIFAR-10": ("resnet56-cifar10-fast", ["recipe=fast", "embedding=positional", "predictor.hidden=280"]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS), help="rows (default: all)")
    parser.add_argument("--rounds", type=int, default=20, help="times that each step is measured; the fastest counts")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    rows = [row for name in options.networks for row in measured(name, options.rounds)]
    head = ["network", "phase", "batch", "billion multiply-adds a step", "one thread, ms", "all threads, ms"]
    cells = [
        [row["network"], row["phase"], str(row["batch"]), two_digits(row["work"] / 1e9), f"{row['one']:.0f}", f"{row['all']:.0f}"]
        for row in rows
    ]
    text = (
        f"The fastest of {options.rounds} steps each; at the start {load:.1f} other processes wanted a core. A run takes one thread up to "
        f"{SMALL / 1e9:g} billion multiply-adds, on average over its phases.\n\n"
    )
    publish("threads", {"rows": rows, "small": SMALL, "load": load}, text + table(head, cells))


def two_digits(number: float) -> str:
    """A number with two significant digits, without a power of ten."""
    return f"{float(f'{number:.2g}'):g}"


def measured(name: str, rounds: int) -> list[dict[str, Any]]:
    """A row for every phase of a preset, on random images and with random weights."""
    preset, overrides = NETWORKS[name]
    setting, every = Setting(preset, [*overrides, "smoother=none"], images=512), torch.get_num_threads()
    experiment, dtype, rows = setting.experiment, setting.engine.dtype, []
    context = setting.context(dtype)
    for index, phase in enumerate(experiment.phases):
        step = Counter(setting.trainer(dtype, list(experiment.losses_of(phase)), index).step)

        def on(threads: int, step: Counter = step) -> None:
            torch.set_num_threads(threads)
            step()

        sides = {"one": lambda on=on: on(1), "all": lambda on=on: on(every)}  # type: ignore[misc]
        alternate(sides, 2)
        fastest = {side: 1000 * min(times) for side, times in alternate(sides, rounds).items()}
        work = work_of_step(attrs.evolve(experiment, phases=[phase]), context, setting.network)
        rows.append({"network": name, "phase": phase.name, "batch": phase.batch, "work": work, **fastest})
    torch.set_num_threads(every)
    return rows


if __name__ == "__main__":
    main()
