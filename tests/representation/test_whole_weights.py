"""Codes give every kernel its own size: without padding they give the weights that padded kernels give."""

from __future__ import annotations

import pytest
import torch

from nern.builtin.embeddings.codes import Codes
from nern.builtin.predictors.codes import Codes as CodesPredictor
from nern.kernels.coordinates import KernelGrid, LayerMapping
from nern.kernels.orders import Unordered
from nern.representation.assembling import assemble
from nern.representation.representation import Representation

SHAPES = [(3, 2, 5, 5), (4, 3, 1, 1), (2, 4, 3, 1), (5, 2, 3, 3)]


def representation(numbers: int | None = None, frequencies: int = 0, hidden: int = 0) -> Representation:
    grid = KernelGrid(tuple(LayerMapping(f"layer{index}", shape, index) for index, shape in enumerate(SHAPES)))
    orders = [Unordered(layer.filters, layer.channels) for layer in grid.layers]
    torch.manual_seed(0)
    assembled = assemble(grid, orders, Codes(numbers=numbers, frequencies=frequencies), CodesPredictor(hidden=hidden))
    for value in assembled.parameters():
        torch.nn.init.normal_(value)
    return assembled


@pytest.mark.parametrize("numbers", [None, 0, 2])
@pytest.mark.parametrize("scaled", [False, True])
def test_weights_and_gradients_are_those_of_padded_kernels(numbers: int | None, scaled: bool) -> None:
    assembled = representation(numbers)
    if scaled:
        assembled.scale(torch.tensor([1.0, 2.0, 3.0, 0.5]))
    whole, padded = assembled.predict_whole(), assembled.grid.unpadded(assembled.predict())
    assert whole is not None and torch.equal(whole, padded) and torch.equal(assembled.predict_weights(), padded)
    if numbers != 0:
        factors, parameters = torch.randn(assembled.grid.weights), list(assembled.parameters())
        for one, other in zip(
            torch.autograd.grad(whole @ factors, parameters), torch.autograd.grad(padded @ factors, parameters), strict=True
        ):
            torch.testing.assert_close(one, other)


def test_a_perceptron_of_the_coordinate_is_not_left_out() -> None:
    assembled = representation(frequencies=3, hidden=4)
    assert assembled.predict_whole() is None
    torch.testing.assert_close(assembled.predict_weights(), assembled.grid.unpadded(assembled.predict()).detach())


def test_what_a_base_adds_is_not_left_out() -> None:
    assembled = representation()
    without = assembled.predict_weights()
    assembled.base = Ones(assembled.grid.outputs)
    torch.testing.assert_close(assembled.predict_weights(), without + 1)
    assert assembled.predict_whole() is None


class Ones(torch.nn.Module):
    """Adds 1 to every weight."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(rows), self.outputs)
