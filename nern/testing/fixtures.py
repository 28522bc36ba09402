"""Small networks, grids and inputs with which components are checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from nern.artifact.artifact import Bytes
from nern.config.loading import load_experiment
from nern.config.structuring import unstructure
from nern.interfaces import LossContext
from nern.kernels.coordinates import KernelGrid, LayerMapping
from nern.kernels.orders import Unordered
from nern.networks.pair import NetworkPair
from nern.registry.discovery import create_registry
from nern.representation.lookup import AxisTables, Lookup
from nern.representation.original_kernels import OriginalKernels
from nern.run.results import Result
from nern.support.seeding import generator, seeded


def network() -> nn.Module:
    """A network of two represented convolutions, 3 × 3 and 1 × 1, each with a batch norm."""
    with seeded(0, "network"):
        built = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
            nn.Conv2d(4, 6, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
        )  # fmt: skip
    return built.eval()


def grid() -> KernelGrid:
    """The grid of the small network."""
    return KernelGrid((LayerMapping("0.weight", (4, 3, 3, 3), 0), LayerMapping("3.weight", (6, 4, 1, 1), 1)))


def lookup(dim: int) -> Lookup:
    """Ten coordinates with random tables of `dim` columns in all."""
    sizes = (dim // 3, dim // 3, dim - 2 * (dim // 3))
    with seeded(0, "tables"):
        tables = (torch.randn(4, sizes[0]), torch.randn(4, sizes[1]), torch.randn(4, sizes[2]))
    coordinates = torch.randint(4, (10, 3), generator=generator(0, "coordinates"))
    return Lookup(AxisTables(tables, (0, sizes[0], sizes[0] + sizes[1]), dim), coordinates)


def context() -> LossContext:
    """A `LossContext` of the small network and its grid."""
    small, kernels, device = network(), grid(), torch.device("cpu")
    orders = [Unordered(layer.filters, layer.channels) for layer in kernels.layers]
    original = OriginalKernels(kernels, dict(small.state_dict()), orders, device).original()
    pair = NetworkPair(small, ["1", "4"], device=device)
    return LossContext(kernels, original, pair)


def inputs() -> Tensor:
    """A batch of noise for the small network, [4, 3, 8, 8]."""
    return torch.randn(4, 3, 8, 8, generator=generator(0, "inputs", 0))


def run(run_dir: Path, error: BaseException | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Call the observer hooks of a short run, in the order in which a run calls them."""
    yield "nern_ordering", {"done": 96, "total": 96}
    registry = create_registry(entry_points=False)
    experiment, _ = load_experiment("digits", {"output": str(run_dir)}, registry)
    resolved = unstructure(experiment, registry)
    yield "nern_run_started", {"run_dir": run_dir, "config": resolved, "iteration": 0, "total": 2, "unit": "step"}
    yield "nern_original_measured", {"split": "heldout", "images": 100, "metrics": {"top1": 91.0}}
    for step in (1, 2):
        losses = {"reconstruction": 0.5 / step, "total": 0.5 / step}
        yield "nern_step", {"phase": "reconstruction", "iteration": step, "total": 2, "losses": losses, "learning_rate": 1e-3}
    yield "nern_measuring", {"phase": "reconstruction", "iteration": 2, "split": "heldout"}
    yield "nern_evaluated", {"phase": "reconstruction", "iteration": 2, "split": "heldout", "metrics": {"top1": 50.0, "agreement": 60.0}}
    yield "nern_checkpoint_saved", {"path": run_dir / "checkpoint.pt", "iteration": 2}
    yield "nern_run_finished", {"run_dir": run_dir, "result": None if error else result(run_dir).to_dict(), "error": error}


def result(run_dir: Path) -> Result:
    """The result of the short run."""
    metrics = {"iteration": 2, "heldout": {"top1": 50.0, "agreement": 60.0}, "test": {"top1": 50.0}}
    return Result(
        original_top1=91.0, reconstructed_top1=50.0, seconds=1.0, iterations=2,
        bytes=Bytes(**{field.name: 100 for field in attrs.fields(Bytes)}),
        run_dir=str(run_dir), artifact=str(run_dir / "model.nern"), checkpoints={"final": metrics, "chosen": metrics},
        smoothness={"before": 0.9, "after": 0.5}, seed=0, environment={"device": "cpu"},
    )  # fmt: skip
