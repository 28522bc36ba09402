"""Compares the search for greedy paths with a quadratic search, and measures how much local search shortens the paths."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.baseline import quadratic_path
from benchmarks.report import alternate, publish, ratio, table
from nern.builtin.smoothers.greedy import CrossFilter, InFilter
from nern.builtin.smoothers.local_search import CrossFilter2Opt, InFilter2Opt
from nern.config.loading import load_experiment
from nern.interfaces import Smoother
from nern.kernels.distances import path_length
from nern.kernels.greedy_path import greedy_path
from nern.kernels.smoothness import layer_smoothness
from nern.networks.state_dicts import read_state_dict
from nern.run.original import Original
from nern.support.memory import peak_memory

SMOOTHERS: dict[str, Smoother] = {
    "cross-filter": CrossFilter(), "cross-filter-2opt": CrossFilter2Opt(),
    "in-filter": InFilter(), "in-filter-2opt": InFilter2Opt(),
}  # fmt: skip


def random_kernels(count: int) -> Tensor:
    return torch.randn(count, 9, generator=torch.Generator().manual_seed(0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compare", type=int, nargs="*", default=[1024, 4096, 16384], help="kernels to order in both ways")
    parser.add_argument("--large", type=int, nargs="*", default=[65536, 262144], help="kernels to order in the fast way alone")
    parser.add_argument("--whole", nargs="*", default=["resnet18-imagenet"], help="presets whose networks are ordered, with random weights")
    parser.add_argument("--rounds", type=int, default=3, help="times that each pair is measured")
    parser.add_argument("--weights", nargs="*", default=[], help="files with networks whose layers are ordered in every way")
    parser.add_argument("--random", type=int, default=64, help="filters and channels of a random layer that is ordered in every way")
    options = parser.parse_args()
    compared = [compare(count, options.rounds) for count in options.compare]
    large = [alone(f"{count} kernels", random_kernels(count)) for count in options.large]
    large += [whole(preset) for preset in options.whole]
    networks = [random_layer(options.random), *(network(file) for file in options.weights)]
    rows = [[row["kernels"], f"{row['ratio']:.1f}", ""] for row in compared]
    text = "Random 3 × 3 kernels; both paths are the same.\n\n"
    text += table(["kernels", "times faster than the quadratic way"], [row[:2] for row in rows])
    if large:
        text += "\n\nAlone, in a process that has loaded torch; wall time depends on what else the machine does:\n\n"
        head = ["what", "processor seconds, all threads", "wall seconds", "peak memory, MB"]
        text += table(head, [[row["what"], row["cpu"], row["wall"], row["megabytes"]] for row in large])
    text += "\n\nLength of the paths (inside filters for in-filter) and eq. 6, summed over layers:\n\n"
    head = ["network", "smoother", "path", "eq. 6"]
    text += table(head, [[entry["name"], *row] for entry in networks for row in entry["rows"]])
    publish("ordering", {"compared": compared, "large": large, "smoothers": networks}, text)


def compare(count: int, rounds: int) -> dict[str, Any]:
    kernels = random_kernels(count)
    paths: dict[str, Tensor] = {}
    work = {
        "quadratic": lambda: paths.update(quadratic=quadratic_path(kernels)),
        "product": lambda: paths.update(product=greedy_path(kernels)),
    }
    seconds = alternate(work, rounds)
    assert torch.equal(paths["quadratic"], paths["product"])
    return {"kernels": count, "seconds": seconds, "ratio": ratio(seconds, "quadratic", "product")}


def alone(what: str, kernels: Tensor) -> dict[str, Any]:
    return clocked(what, lambda: greedy_path(kernels))


def whole(preset: str) -> dict[str, Any]:
    """Order every represented layer of a network as a run does, several at the same time."""
    experiment, registry = load_experiment(preset)
    network = experiment.architecture.build().eval()
    dtypes = {name: value.dtype for name, value in network.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        before, os.environ["NERN_CACHE"] = os.environ.get("NERN_CACHE"), folder
        try:
            return clocked(f"{preset}, all represented layers", lambda: Original.of(network, dtypes, experiment, registry))
        finally:
            os.environ.pop("NERN_CACHE") if before is None else os.environ.update(NERN_CACHE=before)


def clocked(what: str, work: Callable[[], object]) -> dict[str, Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = (peak_memory() or 0) >> 20
    return {"what": what, "cpu": round(cpu, 1), "wall": round(wall, 1), "megabytes": peak}


def random_layer(width: int) -> dict[str, Any]:
    return {"name": f"random {width} × {width}", "rows": in_every_way([random_kernels(width * width).reshape(width, width, 9)])}


def network(file: str) -> dict[str, Any]:
    """Order the convolutions of a weights file by every method."""
    layers = [value.float().flatten(2) for value in read_state_dict(file).values() if value.dim() == 4]
    return {"name": file.replace("\\", "/").rpartition("/")[2], "rows": in_every_way(layers)}


def in_every_way(layers: list[Tensor]) -> list[list[str]]:
    rows = [["none", "", f"{sum(float(layer_smoothness(layer.double())) for layer in layers):.0f}"]]
    for name, smoother in SMOOTHERS.items():
        length = smoothness = 0.0
        for layer in layers:
            ordered = layer.reshape(-1, layer.shape[2])[smoother.order(layer).indices()]
            parts = ordered[None] if name.startswith("cross") else ordered.reshape(layer.shape)
            length += sum(path_length(part) for part in parts)
            smoothness += float(layer_smoothness(ordered.double().reshape(layer.shape)))
        rows.append([name, f"{length:.0f}", f"{smoothness:.0f}"])
    return rows


if __name__ == "__main__":
    main()
