"""Embeddings against their formulas, one number at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nern.builtin.embeddings.fourier import Fourier
from nern.builtin.embeddings.positional import Positional
from nern.coordinates import KernelGrid, LayerMapping

SHAPES = [(4, 3, 3, 3), (5, 4, 3, 3), (2, 7, 1, 1)]
GRID = KernelGrid(tuple(LayerMapping(f"conv{index}", shape, index) for index, shape in enumerate(SHAPES)))


def gamma(value: float, base: float, frequencies: int) -> list[float]:
    numbers = []
    for i in range(frequencies):
        numbers += [math.sin(base**i * math.pi * value), math.cos(base**i * math.pi * value)]
    return numbers


@pytest.mark.parametrize("combine", ["concat", "sum"])
@pytest.mark.parametrize("coordinates", ["integer", "per-layer", "global"])
@pytest.mark.parametrize(("base", "frequencies"), [(0.76, 40), (1.25, 3)])
def test_positional_equals_eq_1(combine: str, coordinates: str, base: float, frequencies: int) -> None:
    module = Positional(base=base, frequencies=frequencies, combine=combine, coordinates=coordinates).build(GRID)
    found = module(GRID.coordinates()).double().numpy()
    expected = []
    for layer, (filters, channels, _, _) in enumerate(SHAPES):
        for f in range(filters):
            for c in range(channels):
                scales = {"integer": (1, 1, 1), "per-layer": (len(SHAPES), filters, channels), "global": (7, 7, 7)}[coordinates]
                parts = [gamma(v / scale, base, frequencies) for v, scale in zip((layer, f, c), scales, strict=True)]
                expected.append(
                    [x for part in parts for x in part] if combine == "concat" else [sum(numbers) for numbers in zip(*parts, strict=True)]
                )
    assert module.dim == len(expected[0]) == 2 * frequencies * (3 if combine == "concat" else 1)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_positional_default_is_the_papers() -> None:
    assert Positional().build(GRID).dim == 240
    assert Positional() == Positional(base=0.76, frequencies=40, combine="concat", coordinates="integer")


def test_positional_has_nothing_to_train_or_store() -> None:
    for coordinates in ("integer", "per-layer", "global"):
        module = Positional(coordinates=coordinates).build(GRID)
        assert not list(module.parameters())
        assert not module.state_dict()


def test_positional_of_layers_that_skip_coordinates() -> None:
    """A mapping may number its layers as it likes."""
    grid = KernelGrid((LayerMapping("a", (2, 2, 3, 3), 4), LayerMapping("b", (3, 5, 3, 3), 9)))
    for coordinates, scale in (("integer", 1), ("per-layer", 10), ("global", 10)):
        found = Positional(coordinates=coordinates).build(grid)(grid.coordinates())
        np.testing.assert_allclose(found[0, :80], gamma(4 / scale, 0.76, 40), atol=1e-6)
        np.testing.assert_allclose(found[-1, :80], gamma(9 / scale, 0.76, 40), atol=1e-6)


def test_fourier_is_sines_and_cosines_of_2_pi_b_v() -> None:
    torch.manual_seed(3)
    module = Fourier(features=5, scales=[1.0, 0.1, 0.1]).build(GRID)
    matrix = module.state_dict()["matrix"].double().numpy()  # stored, since it cannot be computed again
    found = module(GRID.coordinates()).numpy()
    assert matrix.shape == (5, 3)
    assert module.dim == 10
    for row, v in enumerate(GRID.coordinates().tolist()):
        angles = [2 * math.pi * sum(b * x for b, x in zip(line, v, strict=True)) for line in matrix]
        np.testing.assert_allclose(found[row], [math.sin(a) for a in angles] + [math.cos(a) for a in angles], atol=1e-6)


def test_fourier_matrix_has_one_scale_per_coordinate() -> None:
    torch.manual_seed(0)
    matrix = Fourier(features=20_000, scales=[1.0, 0.1, 0.3]).build(GRID).state_dict()["matrix"]
    np.testing.assert_allclose(matrix.std(0), [1.0, 0.1, 0.3], rtol=0.03)
    np.testing.assert_allclose(matrix.mean(0), 0, atol=0.03)


def test_fourier_follows_the_seed() -> None:
    torch.manual_seed(7)
    first = Fourier().build(GRID).state_dict()["matrix"]
    torch.manual_seed(7)
    assert torch.equal(Fourier().build(GRID).state_dict()["matrix"], first)
    torch.manual_seed(8)
    assert not torch.equal(Fourier().build(GRID).state_dict()["matrix"], first)


@pytest.mark.parametrize("scales", [[1.0, 0.1], [1.0, 0.1, 0.0], [1.0, -0.1, 0.1], [1.0, 0.1, 0.1, 0.1]])
def test_fourier_refuses_scales_that_are_not_three_numbers_above_0(scales: list[float]) -> None:
    with pytest.raises(ValueError, match="scales must be three numbers above 0"):
        Fourier(scales=scales)
