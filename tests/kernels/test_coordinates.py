"""Which kernel sits where, against loops over filters and channels."""

from __future__ import annotations

import math

import attrs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nern.kernels.coordinates import KernelGrid, LayerMapping, RowTable
from nern.kernels.orders import FilterOrder, KernelOrder, LayerOrder, Unordered
from nern.representation.original_kernels import OriginalKernels

shapes = st.lists(
    st.tuples(st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 2, 3, 5, 7]), st.sampled_from([1, 3, 4])), min_size=1, max_size=4
)


def grid_of(layers: list[tuple[int, ...]], sampling: str = "centre") -> KernelGrid:
    return KernelGrid(tuple(LayerMapping(f"conv{index}.weight", shape, index) for index, shape in enumerate(layers)), sampling)


def random_order(filters: int, channels: int, kind: int) -> LayerOrder:
    if kind == 0:
        return Unordered(filters, channels)
    if kind == 1:
        return KernelOrder(filters, channels, torch.randperm(filters * channels))
    inner = torch.stack([torch.randperm(channels) for _ in range(filters)])
    return FilterOrder(filters, channels, inner, torch.randperm(filters))


@given(layers=shapes)
def test_rows_are_layer_filter_channel_in_order(layers: list[tuple[int, ...]]) -> None:
    grid = grid_of(layers)
    expected = [(index, f, c) for index, shape in enumerate(layers) for f in range(shape[0]) for c in range(shape[1])]
    assert grid.coordinates().tolist() == [list(row) for row in expected]
    assert grid.rows == len(expected)
    table = RowTable(grid)
    assert table.layers().tolist() == [row[0] for row in expected]
    assert table.coordinates().tolist() == [list(row) for row in expected]
    some = torch.randperm(grid.rows)[:7]
    assert table.coordinates(some).tolist() == [list(expected[row]) for row in some]
    assert grid.weights == sum(math.prod(shape) for shape in layers)
    assert grid.size == (max(shape[2] for shape in layers), max(shape[3] for shape in layers))
    assert grid.outputs == grid.size[0] * grid.size[1]
    assert [expected[start][0] for start in grid.starts[:-1]] == list(range(len(layers)))


@given(layers=shapes, kinds=st.lists(st.integers(0, 2), min_size=4, max_size=4), seed=st.integers(0, 1000))
def test_each_ordered_kernel_stands_in_the_middle_of_its_row(layers: list[tuple[int, ...]], kinds: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    grid = grid_of(layers)
    weights = {layer.parameter: torch.randn(layer.shape) for layer in grid.layers}
    orders = [random_order(layer.filters, layer.channels, kind) for layer, kind in zip(grid.layers, kinds, strict=False)]
    kernels = OriginalKernels(grid, weights, orders, torch.device("cpu"))
    padded = kernels.original().values.reshape(-1, *grid.size)
    some = torch.randint(grid.rows, (9,))
    assert torch.equal(kernels.original(some).values, padded[some].flatten(1))
    assert kernels.original(some).count.tolist() == [math.prod(grid.layers[i].kernel) for i in kernels.original(some).layer]
    torch.testing.assert_close(kernels.norms(), padded.flatten(1).norm(dim=1))
    row = 0
    for layer, order in zip(grid.layers, orders, strict=True):
        for original in order.indices().tolist():
            kernel = weights[layer.parameter][original // layer.channels, original % layer.channels]
            expected = torch.zeros(grid.size)
            top, left = (grid.size[0] - layer.kernel[0]) // 2, (grid.size[1] - layer.kernel[1]) // 2
            expected[top : top + layer.kernel[0], left : left + layer.kernel[1]] = kernel
            assert torch.equal(padded[row], expected)
            row += 1


@given(shape=st.tuples(*[st.integers(1, 5)] * 4))
def test_join_inverts_split(shape: tuple[int, ...]) -> None:
    layer, weight = LayerMapping("w", shape, 3), torch.randn(shape)
    kernels = layer.split(weight)
    assert kernels.shape == (shape[0] * shape[1], shape[2], shape[3])
    assert torch.equal(layer.join(kernels), weight)
    assert torch.equal(kernels[-1], weight[-1, -1])


@given(size=st.integers(1, 7), small=st.integers(1, 7), sampling=st.sampled_from(["centre", "average", "max"]))
def test_sample_down_takes_the_centre_or_pools_regions(size: int, small: int, sampling: str) -> None:
    small = min(small, size)
    grid = grid_of([(1, 1, size, size), (1, 1, small, small)], sampling)
    outputs = torch.randn(3, size * size)
    sampled = grid.sample_down(outputs, (small, small))
    for n in range(3):
        big = outputs[n].reshape(size, size)
        for y in range(small):
            for x in range(small):
                assert float(sampled[n, y, x]) == pytest.approx(expected_pixel(big, y, x, small, sampling), abs=1e-6)


def expected_pixel(big: Tensor, y: int, x: int, small: int, sampling: str) -> float:
    size = len(big)
    if sampling == "centre" or small == size:
        margin = (size - small) // 2
        return float(big[y + margin, x + margin])
    bounds = [(i * size // small, -((-(i + 1) * size) // small)) for i in (y, x)]  # floor and ceiling
    region = [float(big[i, j]) for i in range(*bounds[0]) for j in range(*bounds[1])]
    return max(region) if sampling == "max" else sum(region) / len(region)


@given(layers=shapes)
def test_centre_sampling_gives_back_what_was_padded(layers: list[tuple[int, ...]]) -> None:
    grid = grid_of(layers)
    for layer in grid.layers:
        kernels = torch.randn(layer.count, *layer.kernel)
        assert torch.equal(grid.sample_down(grid.pad_up(kernels), layer.kernel), kernels)


def test_a_mapping_of_ones_own_decides_what_a_kernel_is() -> None:
    @attrs.frozen
    class Transposed(LayerMapping):
        def split(self, weight: Tensor) -> Tensor:
            return super().split(weight.transpose(2, 3).contiguous())

        def join(self, kernels: Tensor) -> Tensor:
            return super().join(kernels).transpose(2, 3)

    weight = torch.randn(2, 3, 3, 3)
    grid = KernelGrid((Transposed("w", (2, 3, 3, 3), 0),))
    assert torch.equal(grid.flatten({"w": weight}).reshape(-1, 3, 3)[4], weight[1, 1].T)
