"""Embeddings against their formulas, one number at a time."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import nern
from nern import Engine, OptionError
from nern.builtin.embeddings.fourier import Fourier
from nern.builtin.embeddings.learned import Learned
from nern.builtin.embeddings.positional import Positional
from nern.kernels.coordinates import KernelGrid, LayerMapping

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
    embedded = module(GRID.coordinates()).double().numpy()
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
    np.testing.assert_allclose(embedded, expected, atol=1e-6)


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
        embedded = Positional(coordinates=coordinates).build(grid)(grid.coordinates())
        np.testing.assert_allclose(embedded[0, :80], gamma(4 / scale, 0.76, 40), atol=1e-6)
        np.testing.assert_allclose(embedded[-1, :80], gamma(9 / scale, 0.76, 40), atol=1e-6)


def test_fourier_is_sines_and_cosines_of_2_pi_b_v() -> None:
    torch.manual_seed(3)
    module = Fourier(features=5, scales=[1.0, 0.1, 0.1]).build(GRID)
    matrix = module.state_dict()["matrix"].double().numpy()  # stored, since it cannot be computed again
    embedded = module(GRID.coordinates()).numpy()
    assert matrix.shape == (5, 3)
    assert module.dim == 10
    for row, v in enumerate(GRID.coordinates().tolist()):
        angles = [2 * math.pi * sum(b * x for b, x in zip(line, v, strict=True)) for line in matrix]
        np.testing.assert_allclose(embedded[row], [math.sin(a) for a in angles] + [math.cos(a) for a in angles], atol=1e-6)


def test_fourier_matrix_has_one_scale_per_coordinate() -> None:
    torch.manual_seed(0)
    matrix = Fourier(features=20_000, scales=[1.0, 0.1, 0.3]).build(GRID).state_dict()["matrix"]
    np.testing.assert_allclose(matrix.std(0), [1.0, 0.1, 0.3], rtol=0.03)
    np.testing.assert_allclose(matrix.mean(0), 0, atol=0.03)


def test_a_part_of_the_fourier_features_sees_a_single_coordinate_each() -> None:
    module = Fourier(features=30, alone=0.4).build(GRID)
    matrix = module.state_dict()["matrix"].double().numpy()
    assert matrix.shape == (30, 3)
    seeing = (matrix != 0).sum(1)
    assert (seeing == 3).sum() == 18
    assert (seeing == 1).sum() == 12
    for coordinate, largest in enumerate(GRID.coordinates().amax(0).tolist()):
        frequencies = sorted(row[coordinate] for row in matrix[seeing == 1] if row[coordinate])
        np.testing.assert_allclose(frequencies, np.geomspace(1 / (2 * largest), 1 / 2, 4), rtol=1e-6)
    assert module(GRID.coordinates()).shape == (len(GRID.coordinates()), 60)
    with pytest.raises(ValueError, match="alone must be <= 1"):
        Fourier(alone=1.5)
    with pytest.raises(OptionError, match="alone gives 2 of 4 features, fewer than the 3 coordinates"):
        Fourier(features=4, alone=0.5).build(GRID)


@pytest.mark.parametrize("alone", [0.0, 0.5, 1.0])
def test_fourier_features_of_a_layer_of_one_kernel(alone: float) -> None:
    grid = KernelGrid((LayerMapping("a", (1, 1, 3, 3), 0),))
    assert bool(Fourier(features=7, alone=alone).build(grid)(grid.coordinates()).isfinite().all())


def test_fourier_follows_the_seed() -> None:
    torch.manual_seed(7)
    first = Fourier().build(GRID).state_dict()["matrix"]
    torch.manual_seed(7)
    assert torch.equal(Fourier().build(GRID).state_dict()["matrix"], first)
    torch.manual_seed(8)
    assert not torch.equal(Fourier().build(GRID).state_dict()["matrix"], first)


@pytest.mark.parametrize("scales", [[1.0, 0.1], [1.0, 0.1, 0.0], [1.0, -0.1, 0.1]])
def test_fourier_refuses_scales_that_are_not_three_numbers_above_0(scales: list[float]) -> None:
    with pytest.raises(ValueError, match="scales must be three numbers above 0"):
        Fourier(scales=scales)


def test_fourier_refuses_more_scales_than_there_are_coordinates() -> None:
    with pytest.raises(ValueError, match="scales must be one number for each of the 3 coordinates"):
        Fourier(scales=[1.0, 0.1, 0.1, 0.1]).build(GRID)


# -- trained vectors ---------------------------------------------------------------------------------------------------


def test_learned_vectors_are_one_for_every_layer_filter_and_channel() -> None:
    torch.manual_seed(0)
    module = Learned(features=4, spread=0.5).build(GRID)
    most = GRID.coordinates().amax(0).tolist()
    assert [tuple(table.shape) for table in module.axes] == [(value + 1, 4) for value in most]
    row = GRID.coordinates()[30]
    expected = [float(module.axes[axis].detach()[int(row[axis]), number]) for axis in range(3) for number in range(4)]
    assert module(row[None])[0].tolist() == expected
    values = torch.cat([table.detach().reshape(-1) for table in Learned(features=400, spread=0.5).build(GRID).axes])
    assert float(values.std()) == pytest.approx(0.5, rel=0.05)


def test_learned_vectors_are_trained_stored_and_counted(tmp_path: Path) -> None:
    settings = {"embedding": {"name": "learned", "features": 5}, "architecture.width": 3, "predictor.hidden": 8, "pretrain.epochs": 1}
    settings |= {"phases.0.iterations": 3, "phases.1.iterations": 1, "output": str(tmp_path / "run")}
    engine = Engine.from_yaml("digits", settings)
    result = engine.fit()
    layers, most = engine.representation.grid.layers, engine.representation.grid.coordinates().amax(0).tolist()
    assert result.bytes.embedding == 4 * 5 * (len(layers) + most[1] + 1 + most[2] + 1)
    rebuilt = nern.load(tmp_path / "run" / "model.nern").reconstruct()
    assert all(torch.equal(a, b) for a, b in zip(rebuilt.parameters(), engine.reconstruct().parameters(), strict=True))
