"""Speed of the paper's presets on a GPU: time of a step, time of all steps, and how near a step is to the GPU's limits.

    python -m benchmarks.gpu

Every preset is measured with its own batch size on random images, once without and once with CUDA graphs. `--device cpu --presets
resnet20-cifar10 --batch 4` runs the same code without a GPU, but publishes nothing.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.report import publish, table
from benchmarks.setting import Setting
from nern.errors import DataError
from nern.run.devices import choose_device, fast_float32
from nern.training.step import PhaseTrainer

#: For each preset, the minutes that all its joint steps should take on one GPU of the H200 class.
PRESETS = {"resnet20-cifar10": 3, "resnet56-cifar10": 8, "resnet18-imagenet": 60}
ALL = ("reconstruction", "kd", "fmd")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--presets", nargs="*", default=list(PRESETS), choices=list(PRESETS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch", type=int, help="images a step; the preset's own by default")
    parser.add_argument("--steps", type=int, default=50, help="steps that are timed, after ten that are not")
    options = parser.parse_args()
    try:
        device = choose_device(options.device)
    except DataError as error:
        sys.exit(str(error))
    ceilings = {"flops": matrix_rate(device), "bytes": copy_rate(device)}
    rows = []
    with fast_float32(device):
        for preset in options.presets:
            rows.append(measure(preset, device, options.batch, options.steps, ceilings))
            print(rows[-1], file=sys.stderr)
    head = ["preset", "ms a step", "as a CUDA graph", "all joint steps, minutes", "goal", "FLOP/s of ceiling, %", "bytes/s of ceiling, %"]
    cells = [
        [
            row["preset"], f"{row['eager']:.2f}", f"{row['replayed']:.2f}", f"{row['minutes']:.1f}", PRESETS[row["preset"]],
            f"{100 * row['flops']:.0f}", f"{100 * row['bytes']:.0f}",
        ]
        for row in rows
    ]  # fmt: skip
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    text = (
        f"{name}. Ceilings, measured: {ceilings['flops'] / 1e12:.0f} TFLOP/s in bfloat16 products of 8192 × 8192, "
        f"{ceilings['bytes'] / 1e12:.2f} TB/s copying. Floating-point operations are those of products and convolutions, bytes those "
        "that operators read and write.\n\n" + table(head, cells)
    )
    for row in rows:
        if row["kernels"]:
            text += f"\n\nWhere the time of {row['preset']} goes:\n\n" + table(["kernel", "%"], row["kernels"])
    if device.type == "cuda":
        publish("gpu", {"rows": rows, "ceilings": ceilings}, text)
    else:
        print(text)


def measure(preset: str, device: torch.device, batch: int | None, steps: int, ceilings: dict[str, float]) -> dict[str, Any]:
    overrides = [f"device={device}", "smoother.name=none", *([f"phases.0.batch={batch}"] if batch else [])]
    setting = Setting(preset, overrides, images=4 * (batch or 64))
    phase = setting.experiment.phases[-1]
    milliseconds = {}
    trainers = {}
    for graphs in (False, True):
        trainer = trainers[graphs] = setting.trainer(torch.bfloat16, ALL, len(setting.experiment.phases) - 1)
        if not graphs:
            trainer.replayer.record = None
        milliseconds[graphs] = timed(trainer, device, steps)
    work, touched = counted(trainers[False])
    seconds = milliseconds[True] / 1000
    return {
        "preset": preset, "batch": phase.batch, "eager": milliseconds[False], "replayed": milliseconds[True],
        "minutes": seconds * phase.iterations / 60, "flops": work / seconds / ceilings["flops"],
        "bytes": touched / seconds / ceilings["bytes"], "kernels": busiest(trainers[True], device),
    }  # fmt: skip


def timed(trainer: PhaseTrainer, device: torch.device, steps: int) -> float:
    """Measure the milliseconds of a step."""
    first = 10 + max(term.warmup for term, _ in trainer.terms.values())
    for step in range(first - 10, first):
        trainer.step(step)
    return 1000 * clocked(lambda: [trainer.step(first + step) for step in range(steps)], device) / steps


def clocked(work: Callable[[], object], device: torch.device) -> float:
    """Measure the seconds until the device has finished some work."""
    wait(device)
    began = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - began


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Touched(TorchDispatchMode):
    """Counts the bytes that operators read and write; views count nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            for value in tree_leaves((args, kwargs, result)):
                if isinstance(value, Tensor):
                    self.bytes += value.numel() * value.element_size()
        return result


def counted(trainer: PhaseTrainer) -> tuple[int, int]:
    """Count the floating-point operations and bytes of one step."""
    step = max(term.warmup for term, _ in trainer.terms.values())
    with FlopCounterMode(display=False) as counter:
        trainer.step(step)
    with Touched() as touched:
        trainer.step(step + 1)
    return counter.get_total_flops(), touched.bytes


def busiest(trainer: PhaseTrainer, device: torch.device) -> list[list[str]]:
    """The eight GPU kernels that take most of the time, with their share of it."""
    if device.type != "cuda":
        return []
    step = 100 + max(term.warmup for term, _ in trainer.terms.values())
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for number in range(5):
            trainer.step(step + number)
        wait(device)
    events = sorted(profile.key_averages(), key=lambda event: -event.self_device_time_total)
    total = sum(event.self_device_time_total for event in events) or 1
    return [[f"`{event.key[:70]}`", f"{100 * event.self_device_time_total / total:.0f}"] for event in events[:8]]


def matrix_rate(device: torch.device) -> float:
    """FLOP/s of large bfloat16 products."""
    size = 8192 if device.type == "cuda" else 1024
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    a @ a
    return 2 * size**3 / statistics.median(clocked(lambda: a @ a, device) for _ in range(10))


def copy_rate(device: torch.device) -> float:
    """Bytes/s, read and written, of large copies."""
    count = 1 << (30 if device.type == "cuda" else 26)
    source = torch.empty(count, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    return 2 * count / statistics.median(clocked(lambda: target.copy_(source), device) for _ in range(10))


if __name__ == "__main__":
    main()
