"""From outputs to weights and back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from nern.builtin.embeddings.fourier import Fourier
from nern.builtin.embeddings.positional import Positional
from nern.builtin.predictors.mlp import MLP
from nern.builtin.smoothers.greedy import CrossFilter, InFilter
from nern.builtin.smoothers.none import NoSmoother
from nern.interfaces import Embedding, Smoother
from nern.kernels.coordinates import KernelGrid, LayerMapping
from nern.representation.original_kernels import OriginalKernels
from nern.representation.representation import Representation, assemble

CPU = torch.device("cpu")
SHAPES = [(6, 5, 3, 3), (4, 6, 5, 5), (7, 4, 1, 1), (3, 8, 1, 3)]


def parts(
    smoother: Smoother, sampling: str = "centre", embedding: Embedding | None = None
) -> tuple[Representation, OriginalKernels, dict[str, Tensor]]:
    torch.manual_seed(0)
    grid = KernelGrid(tuple(LayerMapping(f"conv{index}.weight", shape, index) for index, shape in enumerate(SHAPES)), sampling)
    weights = {layer.parameter: torch.randn(layer.shape) for layer in grid.layers}
    orders = [smoother.order(weights[layer.parameter].reshape(layer.filters, layer.channels, -1)) for layer in grid.layers]
    representation = assemble(grid, orders, embedding or Positional(), MLP(hidden=16)).eval()
    return representation, OriginalKernels(grid, weights, orders, CPU), weights


SMOOTHERS = [NoSmoother(), CrossFilter(), InFilter()]


@pytest.mark.parametrize("smoother", SMOOTHERS, ids=lambda s: type(s).__name__)
def test_perfect_outputs_give_back_the_original_weights_exactly(smoother: Smoother) -> None:
    representation, kernels, weights = parts(smoother)
    rebuilt = representation.weights(kernels.original().values)
    assert list(rebuilt) == list(weights)
    assert all(torch.equal(rebuilt[name], weights[name]) for name in weights)


@pytest.mark.parametrize("sampling", ["centre", "average", "max"])
def test_each_output_lands_where_its_ordered_kernel_came_from(sampling: str) -> None:
    representation, _, weights = parts(InFilter(), sampling)
    outputs = torch.randn(representation.grid.rows, 25)
    rebuilt = representation.weights(outputs)
    row = 0
    for layer, order in zip(representation.grid.layers, representation.orders, strict=True):
        height, width = layer.kernel
        for original in order.indices().tolist():
            big = outputs[row].reshape(1, 5, 5)
            if sampling == "centre":
                expected = big[0, (5 - height) // 2 : (5 + height) // 2, (5 - width) // 2 : (5 + width) // 2]
            else:
                pool = F.adaptive_avg_pool2d if sampling == "average" else F.adaptive_max_pool2d
                expected = pool(big, layer.kernel)[0]
            found = rebuilt[layer.parameter][original // layer.channels, original % layer.channels]
            torch.testing.assert_close(found, expected)
            row += 1
    assert rebuilt.keys() == weights.keys()


def test_weights_pass_each_output_its_own_gradient() -> None:
    representation, kernels, weights = parts(CrossFilter())
    outputs = torch.randn(representation.grid.rows, 25, requires_grad=True)
    rebuilt = representation.weights(outputs)
    sum((rebuilt[name] * weights[name]).sum() for name in weights).backward()
    assert torch.equal(outputs.grad, kernels.original().values)


@pytest.mark.parametrize("embedding", [Positional(), Positional(coordinates="per-layer"), Fourier(features=8)], ids=lambda e: str(e)[:40])
@given(seed=st.integers(0, 1000), count=st.integers(0, 20))
def test_some_rows_are_predicted_as_among_all(embedding: Embedding, seed: int, count: int) -> None:
    representation, _, _ = parts(NoSmoother(), embedding=embedding)
    rows = torch.randint(representation.grid.rows, (count,), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        everything = representation.predict()
        torch.testing.assert_close(representation.predict(rows), everything[rows], rtol=1e-4, atol=1e-5)
        dense = representation.predictor(representation.embedding(representation.grid.coordinates()))
    torch.testing.assert_close(everything, dense, rtol=1e-4, atol=1e-5)


def test_reconstruct_in_chunks_gives_the_same_weights() -> None:
    representation, _, _ = parts(InFilter())
    whole = representation.weights(representation.predict())
    for chunk in (1, 7, 10_000):
        found = representation.reconstruct(chunk)
        assert not any(value.requires_grad for value in found.values())
        for name, value in whole.items():
            torch.testing.assert_close(found[name], value.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sampling", ["centre", "average", "max"])
def test_kernels_compare_only_what_the_network_has(sampling: str) -> None:
    """The reconstruction loss over kernels is that over the rebuilt weights, whatever the outputs beside them."""
    representation, kernels, weights = parts(CrossFilter(), sampling)
    outputs = torch.randn(representation.grid.rows, 25)
    original, predicted = kernels.original(), kernels.predicted(outputs)
    rebuilt = representation.weights(outputs)
    expected = sum(float((rebuilt[name].double() - weights[name].double()).square().sum()) for name in weights)
    assert float((original.values - predicted.values).double().square().sum()) == pytest.approx(expected, rel=1e-5)
    assert float(original.count.sum()) == sum(weight.numel() for weight in weights.values())

    rows = torch.tensor([40, 3, 33, 3, 50])  # of two of the four layers
    some = kernels.predicted(outputs[rows], rows)
    assert torch.equal(some.values, predicted.values[rows])
    assert torch.equal(some.layer, original.layer[rows])
    assert torch.equal(some.count, original.count[rows])
    assert torch.equal(some.index, rows)
    assert torch.equal(kernels.original(rows).values, original.values[rows])


def test_a_state_dict_holds_the_predictor_alone() -> None:
    """Coordinates and places are computed, not stored."""
    representation, _, _ = parts(CrossFilter())
    assert all(name.startswith("predictor.") for name in representation.state_dict())
