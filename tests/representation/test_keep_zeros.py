"""The NeRN of a network that was pruned (Ashkenazi et al. 2023, sec. 5)."""

from __future__ import annotations

import math

import pytest
import torch

import nern
from nern.engine import Engine
from nern.kernels.coordinates import KernelGrid, LayerMapping
from nern.kernels.orders import KernelOrder, Unordered
from nern.representation.original_kernels import OriginalKernels
from nern.representation.representation import Representation

DEVICE = torch.device("cpu")


class Table(torch.nn.Module):
    """A predictor and embedding in one: any output for any row."""

    def __init__(self, outputs: torch.Tensor, grid: KernelGrid) -> None:
        super().__init__()
        self.outputs = torch.nn.Parameter(outputs)
        self.rows = {tuple(row.tolist()): index for index, row in enumerate(grid.coordinates())}

    def forward(self, coordinates: torch.Tensor) -> torch.Tensor:
        return self.outputs[torch.tensor([self.rows[tuple(row.tolist())] for row in coordinates])]


@pytest.fixture
def case():
    """A 3 × 3 and a 1 × 1 layer, of which the first has zeros and an order."""
    source = torch.Generator().manual_seed(3)
    grid = KernelGrid((LayerMapping("a", (2, 3, 3, 3), 0), LayerMapping("b", (2, 2, 1, 1), 1)))
    weights = {"a": torch.randn(2, 3, 3, 3, generator=source), "b": torch.randn(2, 2, 1, 1, generator=source)}
    weights["a"][torch.rand(2, 3, 3, 3, generator=source) < 0.5] = 0
    orders = [KernelOrder(2, 3, torch.tensor([4, 0, 3, 5, 1, 2])), Unordered(2, 2)]
    outputs = torch.randn(10, 9, generator=source)
    representation = Representation(torch.nn.Identity(), Table(outputs, grid), grid, orders)
    representation.keep_zeros({"a": weights["a"] != 0})
    return grid, weights, orders, outputs, representation


def test_reconstructed_weights_are_zero_where_the_original_ones_are(case):
    _, weights, orders, outputs, representation = case
    rebuilt = {name: weight.detach() for name, weight in representation.weights(representation.predict()).items()}
    for row, kernel in enumerate(orders[0].indices().tolist()):
        for at in range(9):
            original = float(weights["a"].reshape(6, 9)[kernel, at])
            expected = 0.0 if original == 0 else float(outputs[row, at])
            assert float(rebuilt["a"].reshape(6, 9)[kernel, at]) == expected
    assert torch.equal(rebuilt["b"].reshape(4), outputs[6:, 4])
    assert list(representation.state_dict()) == ["predictor.outputs"]  # masks belong to the original, not to checkpoints


def test_the_loss_ignores_the_zeros(case):
    grid, weights, orders, outputs, representation = case
    kernels = OriginalKernels(grid, weights, orders, DEVICE, representation.masks)
    losses = Engine.from_yaml("digits", {"phases.0.losses.reconstruction.form": "mse"}).experiment.phases[0].losses
    assert losses is not None
    loss = losses["reconstruction"].loss
    for rows in (None, torch.tensor([9, 1, 4])):
        error = loss(kernels.original(rows), kernels.predicted(outputs if rows is None else outputs[rows], rows))
        total, count = 0.0, 0
        for row in range(10) if rows is None else rows.tolist():
            if row < 6:
                pairs = [
                    (float(w), float(o)) for w, o in zip(weights["a"].reshape(6, 9)[orders[0].indices()[row]], outputs[row], strict=True)
                ]
            else:
                pairs = [(float(weights["b"].reshape(4)[row - 6]), float(outputs[row, 4]))]
            for weight, output in pairs:
                if weight != 0:
                    total, count = total + (weight - output) ** 2, count + 1
        assert float(error) == pytest.approx(total / count, rel=1e-6)


def prune(network: torch.nn.Module) -> int:
    """Zeros in some convolutions; returns the number of weights in them."""
    source = torch.Generator().manual_seed(0)
    pruned = [parameter for parameter in network.parameters() if parameter.dim() == 4][1:]
    with torch.no_grad():
        for parameter in pruned:
            parameter[torch.rand(parameter.shape, generator=source) < 0.6] = 0
    return sum(parameter.numel() for parameter in pruned)


def test_a_run_keeps_the_zeros_of_a_pruned_network_and_counts_their_bytes(tmp_path):
    settings = {
        "architecture.width": 3, "architecture.shortcut": "B", "predictor.hidden": 8, "phases.0.iterations": 5, "phases.1.iterations": 2,
        "architecture.weights": str(tmp_path / "pruned.pt"), "smoother.name": "in-filter",
    }  # fmt: skip
    network = Engine.from_yaml("digits", settings).experiment.architecture.build()
    bits = prune(network)
    torch.save(network.state_dict(), tmp_path / "pruned.pt")
    original = dict(network.named_parameters())

    def fit(name: str, keep: bool):
        engine = Engine.from_yaml("digits", {**settings, "keep_zeros": keep, "output": str(tmp_path / name)})
        return engine.fit(), nern.load(tmp_path / name / "model.nern").reconstruct()

    with_zeros, rebuilt = fit("kept", True)
    without, plain = fit("filled", False)
    for name, parameter in rebuilt.named_parameters():
        if parameter.dim() == 4:
            assert torch.equal(parameter == 0, original[name] == 0)
    assert with_zeros.bytes.zeros == math.ceil(bits / 8)
    assert without.bytes.zeros == 0
    assert with_zeros.bytes.total == (tmp_path / "kept" / "model.nern").stat().st_size
    assert with_zeros.bytes.total - without.bytes.total >= with_zeros.bytes.zeros
    assert any(bool((parameter != 0).all()) for name, parameter in plain.named_parameters() if bool((original[name] == 0).any()))
    reloaded = nern.load(tmp_path / "kept" / "model.nern")
    reloaded.save(tmp_path / "again.nern")
    assert (tmp_path / "again.nern").read_bytes() == (tmp_path / "kept" / "model.nern").read_bytes()
