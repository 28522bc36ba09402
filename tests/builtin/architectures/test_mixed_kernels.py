"""Kernels of several sizes in one network: orders, draws, statistics and predictions, against loops in double precision."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from nern.builtin.samplers.magnitude import Magnitude
from nern.builtin.samplers.uniform import Uniform
from nern.builtin.smoothers.greedy import CrossFilter, InFilter
from nern.kernels.coordinates import KernelGrid
from nern.kernels.orders import LayerOrder, Unordered
from nern.networks.layers import map_layers
from nern.representation.original_kernels import OriginalKernels
from nern.representation.representation import Representation

CPU = torch.device("cpu")


class Mixed(nn.Module):
    """1 × 7, 4 × 2 and 1 × 1 kernels, grouped and depthwise: the largest output is 4 × 7."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(3, 6, (1, 7), padding=(0, 3))
        self.depthwise = nn.Conv2d(6, 6, (4, 2), groups=6)
        self.grouped = nn.Conv2d(6, 4, 1, groups=2)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.grouped(self.depthwise(self.wide(x))).mean((2, 3)))


NAMES = ["wide.weight", "depthwise.weight", "grouped.weight"]


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return Mixed().eval()


@pytest.fixture
def grid(network: nn.Module) -> KernelGrid:
    kernel_grid = KernelGrid(tuple(map_layers(network, (3, 8, 8), "convolutions")))
    assert [layer.parameter for layer in kernel_grid.layers] == NAMES
    assert (kernel_grid.size, kernel_grid.outputs, kernel_grid.rows) == ((4, 7), 28, 18 + 6 + 12)
    return kernel_grid


def distance(a: list[float], b: list[float]) -> float:
    if len(a) == 1:
        return abs(a[0] - b[0])
    norms = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return 1 - sum(x * y for x, y in zip(a, b, strict=True)) / norms


def greedy(vectors: list[list[float]]) -> list[int]:
    path, left = [0], list(range(1, len(vectors)))
    while left:
        path.append(min(left, key=lambda index: (distance(vectors[path[-1]], vectors[index]), index)))
        left.remove(path[-1])
    return path


def test_orders_are_greedy_within_each_layer(network: nn.Module, grid: KernelGrid) -> None:
    for layer in grid.layers:
        kernels = network.state_dict()[layer.parameter].double().flatten(2)
        flat = kernels.flatten(0, 1).tolist()
        assert CrossFilter().order(kernels.float()).indices().tolist() == greedy(flat)
        inner = [greedy(each.tolist()) for each in kernels]
        whole = [[value for channel in path for value in kernels[f, channel].tolist()] for f, path in enumerate(inner)]
        expected = [f * layer.channels + channel for f in greedy(whole) for channel in inner[f]]
        assert InFilter().order(kernels.float()).indices().tolist() == expected


def test_kernels_are_drawn_by_their_own_norm(network: nn.Module, grid: KernelGrid) -> None:
    orders: list[LayerOrder] = [Unordered(layer.filters, layer.channels) for layer in grid.layers]
    kernels = OriginalKernels(grid, dict(network.state_dict()), orders, CPU).original()
    norms = torch.cat([network.state_dict()[name].double().flatten(2).norm(dim=2).flatten() for name in NAMES])
    draw = Magnitude(batch=40000, uniform=0.0).start(kernels.values.norm(dim=1), kernels.layer, 0)(0)
    assert draw is not None
    expected = norms / norms.sum()
    shares = torch.bincount(draw, minlength=grid.rows).double() / 40000
    assert bool(((shares - expected).abs() < 5 * (expected * (1 - expected) / 40000).sqrt()).all())
    uniform = Uniform(batch=grid.rows).start(kernels.values.norm(dim=1), kernels.layer, 0)(0)
    assert uniform is not None and sorted(uniform.tolist()) == list(range(grid.rows))


def test_statistics_are_taken_over_weights_without_padding(network: nn.Module, grid: KernelGrid) -> None:
    orders = [CrossFilter().order(network.state_dict()[layer.parameter].flatten(2)) for layer in grid.layers]
    real = OriginalKernels(grid, dict(network.state_dict()), orders, CPU).weights_in_rows()
    everything = torch.cat([network.state_dict()[name].flatten() for name in NAMES])
    assert list(real.shape) == [len(everything) // 28, 28]
    left = everything.tolist()
    for value in real.flatten().tolist():
        left.remove(value)
    assert len(left) == len(everything) % 28


def region(index: int, size: int, parts: int) -> range:
    return range(index * size // parts, math.ceil((index + 1) * size / parts))


def small(output: list[list[float]], kernel: tuple[int, int], sampling: str) -> list[float]:
    """The kernel of one 4 × 7 output."""
    if sampling == "centre":
        top, left = (4 - kernel[0]) // 2, (7 - kernel[1]) // 2
        return [output[top + y][left + x] for y in range(kernel[0]) for x in range(kernel[1])]
    pool = max if sampling == "max" else lambda values: sum(values) / len(values)
    return [
        pool([output[v][u] for v in region(y, 4, kernel[0]) for u in region(x, 7, kernel[1])])
        for y in range(kernel[0])
        for x in range(kernel[1])
    ]


class Constant(nn.Module):
    """Gives every row of a table."""

    dim = 1

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table)

    def forward(self, rows: Tensor) -> Tensor:
        return self.table


@pytest.mark.parametrize("sampling", ["centre", "average", "max"])
def test_predictions_become_kernels_of_each_size(sampling: str, network: nn.Module, grid: KernelGrid) -> None:
    grid = KernelGrid(grid.layers, sampling)
    state = dict(network.state_dict())
    orders: list[LayerOrder] = [CrossFilter().order(state[layer.parameter].flatten(2)) for layer in grid.layers]
    outputs = torch.randn(grid.rows, 28)
    representation = Representation(nn.Identity(), Constant(outputs), grid, orders)
    weights = representation.weights(outputs)
    kernels = OriginalKernels(grid, state, orders, CPU)
    predicted, original = kernels.predicted(outputs), kernels.original()
    squares, row = 0.0, 0
    for layer, order in zip(grid.layers, orders, strict=True):
        flat, target = weights[layer.parameter].reshape(layer.count, -1), state[layer.parameter].double().reshape(layer.count, -1)
        for place in order.indices().tolist():  # the original kernel that stands in this row
            expected = small(outputs[row].double().reshape(4, 7).tolist(), layer.kernel, sampling)
            torch.testing.assert_close(flat[place], torch.tensor(expected))
            squares += sum((a - b) ** 2 for a, b in zip(expected, target[place].tolist(), strict=True))
            row += 1
    assert float((predicted.values - original.values).double().square().sum()) == pytest.approx(squares, rel=1e-5)
    assert int(original.count.sum()) == sum(state[name].numel() for name in NAMES)
