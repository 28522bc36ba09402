"""Look-ups that stand for embedded coordinates."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nern.builtin.embeddings.positional import Positional
from nern.builtin.predictors.mlp import MLP, SkipMLP
from nern.kernels.coordinates import KernelGrid, LayerMapping
from nern.kernels.orders import Unordered
from nern.representation.assembling import assemble
from nern.representation.lookup import AxisTables, Block, Lookup, linear

GRID = KernelGrid((LayerMapping("a", (6, 5, 3, 3), 0), LayerMapping("b", (3, 9, 3, 3), 1)))


@given(
    sizes=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(0, 4)), min_size=3, max_size=3),
    rows=st.integers(0, 12),
    seed=st.integers(0, 1000),
)
def test_dense_adds_each_axis_vector_at_its_columns(sizes: list[tuple[int, int, int]], rows: int, seed: int) -> None:
    torch.manual_seed(seed)
    tables = tuple(torch.randn(values, width) for values, width, _ in sizes)
    offsets = tuple(offset for _, _, offset in sizes)
    dim = max(width + offset for _, width, offset in sizes)
    coordinates = torch.stack([torch.randint(values, (rows,)) for values, _, _ in sizes], dim=1)
    dense = AxisTables(tables, offsets, dim).dense(coordinates)
    expected = torch.zeros(rows, dim)
    for row in range(rows):
        for axis in range(3):
            for column in range(tables[axis].shape[1]):
                expected[row, offsets[axis] + column] += tables[axis][coordinates[row, axis], column]
    torch.testing.assert_close(dense, expected)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("combine", ["concat", "sum"])
def test_linear_of_a_lookup_equals_the_product_and_its_gradient(combine: str, bias: bool) -> None:
    torch.manual_seed(0)
    embedding = Positional(combine=combine).build(GRID)
    rows = torch.randint(GRID.rows, (40,))
    coordinates = GRID.coordinates()[rows]
    layer = nn.Linear(embedding.dim, 11, bias=bias)
    wide = nn.Linear(embedding.dim, 11, bias=bias).double()
    wide.load_state_dict(layer.state_dict())
    weights = torch.randn(40, 11)

    looked_up = linear(layer, Lookup(embedding.tables(), coordinates))
    expected = linear(wide, embedding(coordinates).double())
    torch.testing.assert_close(looked_up.double(), expected, rtol=1e-5, atol=1e-5)

    (looked_up * weights).sum().backward()
    (expected * weights).sum().backward()
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(parameter.grad.double(), wide.get_parameter(name).grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("predictor", [MLP(hidden=16), SkipMLP(hidden=16)])
def test_predictors_take_a_lookup_in_place_of_the_embedding(predictor: MLP) -> None:
    torch.manual_seed(0)
    embedding = Positional().build(GRID)
    module = predictor.build(embedding.dim, 9)
    lookup = Lookup(embedding.tables(), GRID.coordinates())
    torch.testing.assert_close(lookup.dense(), embedding(GRID.coordinates()))
    torch.testing.assert_close(module(lookup), module(embedding(GRID.coordinates())), rtol=1e-4, atol=1e-5)


def test_a_trained_table_gets_its_gradient() -> None:
    """An embedding of an outside plugin may be learned; its gradient is that through the dense embedding."""
    torch.manual_seed(0)
    tables = tuple(torch.randn(4, 3, requires_grad=True) for _ in range(3))
    axis = AxisTables(tables, (0, 3, 6), 9)
    coordinates = torch.randint(4, (20, 3))
    layer, weights = nn.Linear(9, 2), torch.randn(20, 2)
    gradients = torch.autograd.grad((linear(layer, Lookup(axis, coordinates)) * weights).sum(), tables)
    expected = torch.autograd.grad((layer(axis.dense(coordinates)) * weights).sum(), tables)
    for a, b in zip(gradients, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


MIXED = KernelGrid((
    LayerMapping("stem", (4, 3, 7, 7), 0), LayerMapping("wide", (96, 90, 1, 1), 1), LayerMapping("small", (8, 5, 3, 3), 2),
    LayerMapping("long", (100, 90, 1, 1), 3), LayerMapping("bit", (3, 4, 1, 1), 4), LayerMapping("last", (95, 87, 1, 1), 5),
))  # fmt: skip


@pytest.mark.parametrize("chunk", [700, 1 << 16])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("predictor", [MLP(hidden=12), SkipMLP(hidden=12), MLP(hidden=12, activation="sine")])
def test_whole_filters_without_look_ups_are_what_each_kernel_gives(predictor: MLP, scaled: bool, chunk: int) -> None:
    torch.manual_seed(0)
    orders = [Unordered(layer.filters, layer.channels) for layer in MIXED.layers]
    representation = assemble(MIXED, orders, Positional(), predictor)
    scales = torch.arange(1.0, 7.0)
    if scaled:
        representation.scale(scales)
    weights = representation.predict_weights(chunk)
    wide = copy.deepcopy(representation.predictor).double()
    for layer, scale, part in zip(
        MIXED.layers, scales, weights.split([layer.count * layer.area for layer in MIXED.layers]), strict=True
    ):  # fmt: skip
        outputs = wide(representation.embedding(layer.coordinates()).double()).reshape(-1, 7, 7)
        height, width = layer.kernel
        middle = outputs[:, (7 - height) // 2 : (7 + height) // 2, (7 - width) // 2 : (7 + width) // 2].reshape(-1)
        torch.testing.assert_close(part.double(), middle * (scale if scaled else 1.0), rtol=1e-4, atol=1e-5)


def test_a_block_has_the_coordinates_of_its_rows() -> None:
    layer = MIXED.layers[3]
    assert torch.equal(Block(3, range(7, 20), 90).coordinates(torch.device("cpu")), layer.coordinates()[7 * 90 : 20 * 90])
