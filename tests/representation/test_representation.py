"""From outputs to weights and back."""

from __future__ import annotations

import attrs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from nern.builtin.embeddings.fourier import Fourier
from nern.builtin.embeddings.positional import Positional
from nern.builtin.losses.reconstruction import Reconstruction
from nern.builtin.predictors.mlp import MLP
from nern.builtin.smoothers.greedy import CrossFilter, InFilter
from nern.builtin.smoothers.none import NoSmoother
from nern.interfaces import Embedding, Kernels, Smoother
from nern.kernels.coordinates import KernelGrid, LayerMapping
from nern.kernels.orders import KernelOrder, Unordered
from nern.representation.assembling import assemble
from nern.representation.original_kernels import OriginalKernels
from nern.representation.representation import Representation

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
            kernel = rebuilt[layer.parameter][original // layer.channels, original % layer.channels]
            torch.testing.assert_close(kernel, expected)
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
def test_a_few_rows_are_predicted_as_they_are_among_all(embedding: Embedding, seed: int, count: int) -> None:
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
        weights = representation.reconstruct(chunk)
        assert not any(value.requires_grad for value in weights.values())
        for name, value in whole.items():
            torch.testing.assert_close(weights[name], value.detach(), rtol=1e-4, atol=1e-5)


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


class Mixed:
    """Kernels of three sizes in layers that alternate, as 1 × 1 and 3 × 3 convolutions do."""

    shapes = ((4, 3, 5, 5), (6, 4, 1, 1), (5, 6, 1, 1), (3, 5, 3, 3), (7, 3, 1, 1))

    def __init__(self, sampling: str = "centre") -> None:
        layers = tuple(LayerMapping(f"{index}.weight", shape, index) for index, shape in enumerate(self.shapes))
        self.grid = KernelGrid(layers, sampling)
        draw = torch.Generator().manual_seed(3)
        self.state = {layer.parameter: torch.randn(layer.shape, generator=draw) for layer in layers}
        self.orders = [
            KernelOrder(layer.filters, layer.channels, torch.randperm(layer.count, generator=draw)) if layer.layer % 2 else
            Unordered(layer.filters, layer.channels) for layer in layers
        ]  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(4)
            self.representation = assemble(self.grid, self.orders, Positional(frequencies=3), MLP(hidden=7))
        self.kernels = OriginalKernels(self.grid, self.state, self.orders, CPU)


@pytest.mark.parametrize("sampling", ["centre", "average", "max"])
def test_mixed_kernels_are_predicted_without_padding(sampling: str) -> None:
    """Against predictions of all k² numbers, layer by layer."""
    mixed = Mixed(sampling)
    grid, representation, kernels = mixed.grid, mixed.representation, mixed.kernels
    assert [group.kernel for group in grid.groups] == [(5, 5), (1, 1), (3, 3), (1, 1)]
    assert sum(group.weights for group in grid.groups) == grid.weights
    representation.scale(torch.tensor([1.0, 2.0, 0.5, 3.0, 4.0]))
    everything = representation.predict().detach()
    expected = torch.cat([
        grid.sample_down(everything[start:end], layer.kernel).reshape(-1)
        for start, end, layer in zip(grid.starts, grid.starts[1:], grid.layers, strict=False)
    ])  # fmt: skip
    torch.testing.assert_close(representation.predict_weights(chunk=7), expected)
    assert torch.equal(grid.unpadded(everything), expected)
    for name, weight in representation.weights(expected).items():
        assert torch.equal(weight, representation.weights(everything)[name])
    rows = torch.tensor([0, 11, 12, 40, 60, 66, 66, 87])
    sample = torch.randn(len(rows), grid.outputs)
    sample[6] = sample[5]
    sample.requires_grad_()
    with_sample = kernels.with_sample(expected, sample, rows)
    padded = everything.index_copy(0, rows, sample)
    assert torch.equal(with_sample, grid.unpadded(padded))
    factors = torch.randn(grid.weights)
    (with_sample * factors).sum().backward()
    once = torch.tensor([0, 1, 2, 3, 4, 6, 7])  # row 66 was drawn twice: one of the two has the gradient
    alone = sample.detach()[once].requires_grad_()
    (grid.unpadded(everything.index_copy(0, rows[once], alone)) * factors).sum().backward()
    torch.testing.assert_close(sample.grad[once] + torch.nn.functional.pad(sample.grad[5:6], (0, 0, 5, 1)), alone.grad)


def test_groups_hold_what_the_padded_kernels_hold() -> None:
    mixed = Mixed()
    original = mixed.kernels.original()
    assert [tuple(part.values.shape) for part in original.parts()] == [(12, 25), (54, 1), (15, 9), (21, 1)]
    assert float(original.values.double().square().sum()) == pytest.approx(
        sum(float(w.double().square().sum()) for w in mixed.state.values())
    )
    for name in ("index", "layer", "count"):
        assert torch.equal(torch.cat([getattr(part, name) for part in original.parts()]), getattr(original, name))
    predicted = mixed.kernels.of_weights(mixed.representation.predict_weights())
    for form in ("rms", "norm", "mse"):
        loss = Reconstruction(form=form)
        plain = loss(*(Kernels(k.values, k.index, k.layer, k.count) for k in (original, predicted)))
        torch.testing.assert_close(loss(original, predicted), plain)
        changed = attrs.evolve(original, values=original.values + 1)  # which has no parts any more
        torch.testing.assert_close(
            loss(original, changed), loss(original, Kernels(original.values + 1, original.index, original.layer, original.count))
        )
