"""Measures peak memory and time of a step against the number of represented kernels, each network in a process of its own."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import torch

from benchmarks.report import publish, save_plot, table
from benchmarks.setting import Setting
from nern.networks.pair import Outputs
from nern.studies.drawing import colours, in_style, new_figure
from nern.support.memory import peak_memory
from nern.training.step import PhaseTrainer

COMMON = ["smoother.name=none", "sampler={name: uniform, batch: 4096}"]
NETWORKS = {
    "ResNet20": ["architecture={name: cifar-resnet, depth: 20}", "predictor.hidden=160"],
    "ResNet56": ["architecture={name: cifar-resnet, depth: 56}", "predictor.hidden=280"],
    "ResNet18": ["architecture={name: imagenet-resnet, depth: 18}", "predictor.hidden=1256"],
    "ResNet50": ["architecture={name: imagenet-resnet, depth: 50}", "predictor.hidden=1256"],
    "ResNet50, all layers": ["architecture={name: imagenet-resnet, depth: 50, layers: all}", "predictor.hidden=1256"],
}
LOSSES = {"reconstruction": ["reconstruction"], "joint": ["reconstruction", "kd", "fmd"]}
#: With these, the C library gives every larger block back at once, so that resident memory is what the process uses.
FRUGAL = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), help=f"any of {', '.join(NETWORKS)}")
    parser.add_argument("--joint", nargs="*", default=list(NETWORKS), help="those of them that also take a step with all three losses")
    parser.add_argument("--batch", type=int, default=32, help="images a step")
    parser.add_argument("--steps", type=int, default=3, help="steps that are timed, after one that is not")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, kind = options.child.rsplit(":", 1)
        print(json.dumps(measure(name, kind, options.batch, options.steps)))
        return
    rows = []
    for name in options.networks:
        for kind in [kind for kind in LOSSES if kind == "reconstruction" or name in options.joint]:
            row = child(name, kind, options, {})
            if "error" not in row:
                frugal = child(name, kind, options, FRUGAL)
                row = frugal if "error" in frugal else {**row, "used": frugal["peak"]}
            rows.append(row)
            print(row, file=sys.stderr)
    good = [row for row in rows if "error" not in row]
    head = [
        "network",
        "losses",
        "kernels",
        "time a step",
        "peak memory in use, MB",
        "goal, MB",
        "peak memory held, MB",
        "weights of both and predictor, MB",
        "activations, MB",
    ]
    cells: list[list[Any]] = [
        [
            row["network"],
            row["losses"],
            row["kernels"],
            f"× {row['seconds'] / good[0]['seconds']:.1f}",
            row["used"],
            goal(row),
            row["peak"],
            row["weights"],
            row["activations"],
        ]
        for row in good
    ]
    text = (
        f"Batch {options.batch}, {COMMON[1]}. Time is a multiple of the first row's. Memory is what a process holds beyond one that "
        "has taken a step of a ResNet8 and so has loaded all libraries. *Held* is the largest amount that was resident. *In use* is the "
        "same, measured in a slower run in which the C library returns freed blocks to the system at once "
        f"({' '.join(f'{key}={value}' for key, value in FRUGAL.items())}); normally it keeps many of them. Activations are what a step "
        "keeps for its losses and for its backward pass. The goal is twice the sum of weights and activations.\n\n" + table(head, cells)
    )
    if len(good) > 1:
        plot(good)
        text += "\n\n![Memory and time a step against kernels](assets/scale.svg)"
    for row in rows:
        if "error" in row:
            text += f"\n\n{row['network']}, {row['losses']}: failed here ({row['error']})."
    publish("scale", {"rows": rows}, text)


def child(name: str, kind: str, options: argparse.Namespace, environment: dict[str, str]) -> dict[str, Any]:
    """Run `measure` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.scale", "--child", f"{name}:{kind}"]
    command += ["--batch", str(options.batch), "--steps", str(options.steps)]
    process = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    if process.returncode == 0:
        row: dict[str, Any] = json.loads(process.stdout)
        return row
    lines = process.stderr.strip().splitlines() or [f"ended with status {process.returncode}"]
    return {"network": name, "losses": kind, "error": lines[-1]}


def measure(name: str, kind: str, batch: int, steps: int) -> dict[str, Any]:
    """Run some steps in this process."""
    tiny = ["architecture={name: cifar-resnet, depth: 8}", "predictor.hidden=16", "phases.0.batch=2"]
    # The first step loads all libraries
    Setting("resnet20-cifar10", [*COMMON, *tiny], images=2).trainer(torch.bfloat16, LOSSES[kind]).step(0)
    before = peak_memory() or 0
    setting = Setting("resnet20-cifar10", [*COMMON, *NETWORKS[name], f"phases.0.batch={batch}"], images=batch)
    trainer = setting.trainer(torch.bfloat16, LOSSES[kind])
    kept = saved_by(trainer)
    seconds = [timed(trainer, step + 1) for step in range(steps)]
    peak = (peak_memory() or 0) - before
    weights = 2 * sum(value.numel() for value in setting.network.parameters())
    weights += sum(value.numel() for value in trainer.context.representation.parameters())
    return {
        "network": name, "losses": kind, "kernels": setting.original.grid.rows, "seconds": statistics.median(seconds),
        "peak": peak >> 20, "weights": round(4 * weights / 1e6, 1), "activations": round(kept / 1e6, 1),
    }  # fmt: skip


def saved_by(trainer: PhaseTrainer) -> int:
    """Bytes that the first step keeps for losses and the backward pass, besides parameters and kernels."""
    pair = trainer.context.networks
    run = pair.original
    known = {
        value.untyped_storage().data_ptr()
        for value in [*trainer.context.representation.parameters(), trainer.context.kernels.weights_in_rows()]
    }
    kept: dict[int, int] = {}

    def keep(value: torch.Tensor) -> torch.Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    def original(inputs: torch.Tensor, features: bool = False) -> Outputs:
        outputs = run(inputs, features)
        for value in [outputs.logits, *outputs.features]:
            keep(value)
        return outputs

    pair.original = original  # type: ignore[method-assign]
    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
            trainer.step(0)
    finally:
        pair.original = run  # type: ignore[method-assign]
    return sum(kept.values())


def timed(trainer: PhaseTrainer, step: int) -> float:
    began = time.perf_counter()
    trainer.step(step)
    return time.perf_counter() - began


def goal(row: dict[str, Any]) -> int:
    return round(2 * (row["weights"] + row["activations"]))


@in_style
def plot(rows: list[dict[str, Any]]) -> None:
    """Draw memory and time against kernels, a line for each set of losses, and the goal for memory as a dotted line."""
    figure, (memory, times) = new_figure(2, width=7.4, height=3.4)
    for colour, kind in zip(colours(len(LOSSES)), LOSSES, strict=True):
        own = [row for row in rows if row["losses"] == kind]
        kernels = [row["kernels"] for row in own]
        memory.plot(kernels, [row["used"] for row in own], "o-", markersize=4, color=colour, label=kind)
        memory.plot(kernels, [goal(row) for row in own], ":", color=colour, label=f"{kind}, goal")
        times.plot(kernels, [row["seconds"] / rows[0]["seconds"] for row in own], "o-", markersize=4, color=colour)
    memory.set(xlabel="represented kernels", ylabel="peak memory in use, MB", xscale="log", yscale="log")
    times.set(xlabel="represented kernels", ylabel="time of a step, relative", xscale="log", yscale="log")
    figure.legend(*memory.get_legend_handles_labels(), loc="outside upper center", ncols=2 * len(LOSSES), frameon=False)
    save_plot(figure, "scale")


if __name__ == "__main__":
    main()
