"""Measures a training step that looks at outputs against a step of plain distillation of the same network, in turns."""

from __future__ import annotations

import argparse
import copy
import itertools
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.report import alternate, publish, ratio, table
from benchmarks.setting import Setting
from nern.outputs.nested import call

LOSSES = ["reconstruction", "kd"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="densenet121", help="a network of torchvision")
    parser.add_argument("--size", type=int, default=64, help="height and width of the images in pixels")
    parser.add_argument("--batch", type=int, nargs="+", default=[2, 32], help="images a step")
    parser.add_argument("--hidden", type=int, nargs="+", default=[8, 64], help="sizes of the predictor")
    parser.add_argument(
        "--layers", nargs="+", default=["convolutions", "all"],
        help="what is represented; with `all`, 1 x 1 convolutions and linear layers are cut into tiles",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3, help="steps of each kind, in turns, after one of each that is not timed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for layers, batch, hidden in itertools.product(options.layers, options.batch, options.hidden):
        rows.append(measure(options.model, options.size, layers, batch, hidden, options.rounds))
        print(rows[-1], file=sys.stderr)
    head = ["layers", "kernels", "images a step", "hidden size", "processor time of a step, plain distillation = 1"]
    cells = [[row["layers"], f"{row['kernels']:,}", row["batch"], row["hidden"], f"{row['ratio']:.2f}"] for row in rows]
    text = (
        f"torchvision's {options.model} with random weights, {options.size} × {options.size} pixels, float32, 4,096 kernels or tiles with "
        "gradient a step, losses reconstruction and kd. Plain distillation trains a copy of the network itself with the same kd loss and "
        f"AdamW. Medians over {options.rounds} pairs of steps.\n\n" + table(head, cells)
    )
    publish("distillation", {"rows": rows}, text)


def measure(model: str, size: int, layers: str, batch: int, hidden: int, rounds: int) -> dict[str, Any]:
    """How many times the processor time of a step of plain distillation a step of nern takes."""
    setting = Setting(
        "resnet20-cifar10",
        [
            f"architecture={{name: torchvision, model: {model}, size: {size}, layers: {layers}}}",
            "smoother.name=none",
            "sampler={name: uniform, batch: 4096}",
            "losses={reconstruction: {}, kd: {}}",
            f"predictor.hidden={hidden}",
            f"phases.0.batch={batch}",
            "device=cpu",
        ],
        images=batch,
    )
    trainer = setting.trainer(torch.float32, LOSSES)
    work = {"nern": counting(trainer.step), "plain": counting(plain(setting))}
    alternate(work, 1)
    seconds = alternate(work, rounds, time.process_time)
    return {
        "model": model, "pixels": size, "layers": layers, "batch": batch, "hidden": hidden, "kernels": setting.original.grid.rows,
        "ratio": ratio(seconds, "nern", "plain"), "pairs": [a / b for a, b in zip(seconds["nern"], seconds["plain"], strict=True)],
    }  # fmt: skip


def plain(setting: Setting) -> Callable[[int], object]:
    """A function that makes a step of distillation: the network teaches a copy of itself."""
    teacher, student, inputs = setting.network, copy.deepcopy(setting.network), setting.inputs(setting.experiment.phases[0].batch)
    with torch.no_grad():
        for value in student.parameters():
            value.mul_(1.01)
    loss: Any = setting.experiment.losses["kd"].loss
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4)

    def step(number: int) -> None:
        images = inputs(number)
        with torch.no_grad():
            wanted = call(teacher, images)
        loss(wanted, call(student, images)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def counting(step: Callable[[int], object]) -> Callable[[], object]:
    """A function without arguments that makes the next step in every call."""
    numbers = iter(range(sys.maxsize))
    return lambda: step(next(numbers))


if __name__ == "__main__":
    main()
