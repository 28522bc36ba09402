"""Eq. 6 of the paper as loops in double precision."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nern.kernels.coordinates import KernelGrid, LayerMapping
from nern.kernels.orders import KernelOrder, LayerOrder, Unordered
from nern.kernels.smoothness import grid_smoothness, layer_smoothness, weights_smoothness
from nern.networks.mappings import LineMapping, TileMapping, TransposedMapping

Kernel = list[float]


def distance(a: Kernel, b: Kernel) -> float:
    if len(a) == 1:
        return abs(a[0] - b[0])
    return 1 - sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def eq6(kernels: list[list[Kernel]]) -> float:
    total = 0.0
    for f in range(len(kernels) - 1):
        for c in range(len(kernels[0]) - 1):
            total += distance(kernels[f][c], kernels[f + 1][c]) + distance(kernels[f][c], kernels[f][c + 1])
    return total


@given(st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 3]), st.integers(0, 10_000))
def test_a_layer(filters: int, channels: int, k: int, seed: int) -> None:
    kernels = torch.randn(filters, channels, k * k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert float(layer_smoothness(kernels)) == pytest.approx(eq6(kernels.tolist()), rel=1e-12, abs=1e-12)


def test_layers_add_up_before_and_after_ordering() -> None:
    torch.manual_seed(0)
    shapes = [(4, 3, 3, 3), (5, 4, 3, 3), (6, 5, 1, 1)]
    grid = KernelGrid(tuple(LayerMapping(f"conv{i}", shape, i) for i, shape in enumerate(shapes)))
    weights = {layer.parameter: torch.randn(layer.shape) for layer in grid.layers}
    orders: list[LayerOrder] = [KernelOrder(4, 3, torch.randperm(12)), Unordered(5, 4), KernelOrder(6, 5, torch.randperm(30))]
    before = after = 0.0
    for layer, order in zip(grid.layers, orders, strict=True):
        flat = weights[layer.parameter].double().flatten(0, 1).flatten(1).tolist()
        moved = [flat[index] for index in order.indices().tolist()]
        rows = range(0, layer.count, layer.channels)
        before += eq6([flat[start : start + layer.channels] for start in rows])
        after += eq6([moved[start : start + layer.channels] for start in rows])
    assert grid_smoothness(grid, weights) == pytest.approx(before, rel=1e-12)
    assert grid_smoothness(grid, weights, orders) == pytest.approx(after, rel=1e-12)
    assert before != pytest.approx(after, rel=1e-3)
    assert float(weights_smoothness(grid.layers, [w.double() for w in weights.values()])) == pytest.approx(before, rel=1e-12)


def smooth(weights: Sequence[torch.Tensor]) -> torch.Tensor:
    """The term for weights [f, c, kh, kw]."""
    return weights_smoothness([LayerMapping("w", tuple(weight.shape), i) for i, weight in enumerate(weights)], list(weights))


def test_matrices_lines_and_transposed_weights_are_cut_by_their_mapping() -> None:
    torch.manual_seed(0)
    line, matrix, transposed = torch.randn(3, 4, 5).double(), torch.randn(6, 4).double(), torch.randn(4, 3, 2, 2).double()
    layers = [LineMapping("l", (3, 4, 5), 0), TileMapping("m", (6, 4), 1, tile=(2, 2)), TransposedMapping("t", (4, 3, 2, 2), 2)]
    tiles = [[matrix[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].flatten().tolist() for j in range(2)] for i in range(3)]
    turned = [[transposed[c, f].flatten().tolist() for c in range(4)] for f in range(3)]
    expected = eq6(line.tolist()) + eq6(tiles) + eq6(turned)
    assert float(weights_smoothness(layers, [line, matrix, transposed])) == pytest.approx(expected, rel=1e-12)


def test_the_regularisation_term_is_differentiable() -> None:
    torch.manual_seed(0)
    weights = [torch.randn(3, 4, 3, 3, dtype=torch.float64), torch.randn(3, 2, 1, 1, dtype=torch.float64)]
    assert torch.autograd.gradcheck(lambda *w: smooth(w), [w.requires_grad_() for w in weights])


def test_descending_the_term_makes_kernels_smooth() -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 6, 3, 3, requires_grad=True)
    before = float(smooth([weight.detach()]))
    optimizer = torch.optim.SGD([weight], lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        smooth([weight]).backward()
        optimizer.step()
    assert float(smooth([weight.detach()])) < before / 2


def test_zero_kernels_do_not_break_the_gradient() -> None:
    """Pruned networks have kernels of zeros; their distance to anything is 1."""
    weight = torch.randn(4, 4, 3, 3)
    weight[1, 1] = 0
    weight.requires_grad_()
    loss = smooth([weight])
    loss.backward()
    assert bool(loss.isfinite())
    assert bool(weight.grad.isfinite().all())
