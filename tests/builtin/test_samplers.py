"""Samplers: what they may draw, how often, and that a draw is a function of seed and step."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, chi2

from nern.builtin.samplers.all import All
from nern.builtin.samplers.layers import LayersInTurn, RandomLayer
from nern.builtin.samplers.magnitude import Magnitude
from nern.builtin.samplers.uniform import Uniform
from nern.interfaces import Sampler

SAMPLERS = [
    All(),
    RandomLayer(),
    LayersInTurn(),
    Uniform(batch=20),
    Uniform(batch=20, replacement=True),
    Magnitude(batch=20, uniform=0.5),
]
LAYERS = torch.tensor([0] * 10 + [1] * 40 + [2] * 30)


def norms(n: int = 80) -> torch.Tensor:
    return torch.rand(n, generator=torch.Generator().manual_seed(0))


def improbable(counts: torch.Tensor, expected: torch.Tensor) -> bool:
    """Pearson's test at one in a million."""
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return statistic > chi2.ppf(1 - 1e-6, len(counts) - 1)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_a_draw_is_a_function_of_seed_and_step(sampler: Sampler) -> None:
    draws = [sampler.start(norms(), LAYERS, 5) for _ in range(2)]
    forwards = [draws[0](step) for step in range(30)]
    torch.rand(100)  # whatever else draws from torch's global generator
    backwards = [draws[1](step) for step in reversed(range(30))][::-1]
    assert all((a is None and b is None) or torch.equal(a, b) for a, b in zip(forwards, backwards, strict=True))


@pytest.mark.parametrize("sampler", [s for s in SAMPLERS if not isinstance(s, (All, LayersInTurn))], ids=str)
def test_another_seed_draws_otherwise(sampler: Sampler) -> None:
    first, second = (sampler.start(norms(), LAYERS, seed) for seed in (5, 6))
    assert any(first(step).tolist() != second(step).tolist() for step in range(30))
    assert any(first(step).tolist() != first(0).tolist() for step in range(30))


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    batch=st.integers(1, 100),
    which=st.sampled_from(["all", "random-layer", "in-turn", "without", "with", "magnitude"]),
    seed=st.integers(0, 2**31 - 1),
    step=st.integers(0, 10**6),
)
def test_draws_are_valid_rows(sizes: list[int], batch: int, which: str, seed: int, step: int) -> None:
    layers = torch.repeat_interleave(torch.tensor(sizes))
    n = len(layers)
    sampler = {
        "all": All(),
        "random-layer": RandomLayer(),
        "in-turn": LayersInTurn(),
        "without": Uniform(batch=batch),
        "with": Uniform(batch=batch, replacement=True),
        "magnitude": Magnitude(batch=batch, uniform=0.5),
    }[which]
    rows = sampler.start(norms(n), layers, seed)(step)
    if which == "all":
        assert rows is None
        return
    assert rows.dtype == torch.int64
    assert rows.dim() == 1
    assert all(0 <= row < n for row in rows.tolist())
    if which in ("random-layer", "in-turn"):
        drawn = set(layers[rows].tolist())
        assert len(drawn) == 1
        assert rows.tolist() == [row for row in range(n) if int(layers[row]) in drawn]
    elif which == "without":
        assert len(set(rows.tolist())) == len(rows) == min(batch, n)
    elif which == "with":
        assert len(rows) == batch
    else:
        assert len(rows) in (batch, min(batch, n))


def test_layers_in_turn_visits_every_layer_in_order() -> None:
    draw = LayersInTurn().start(norms(), LAYERS, 0)
    assert [int(LAYERS[draw(step)[0]]) for step in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_random_layer_takes_layers_equally_often() -> None:
    draw = RandomLayer().start(norms(), LAYERS, 0)
    counts = torch.bincount(torch.tensor([int(LAYERS[draw(step)[0]]) for step in range(3000)]))
    assert not improbable(counts.double(), torch.full((3,), 1000.0, dtype=torch.float64))


@pytest.mark.parametrize("replacement", [False, True])
def test_uniform_takes_kernels_equally_often(replacement: bool) -> None:
    draw = Uniform(batch=20, replacement=replacement).start(norms(), LAYERS, 0)
    counts = torch.bincount(torch.cat([draw(step) for step in range(2000)]), minlength=80).double()
    assert not improbable(counts, torch.full((80,), 500.0, dtype=torch.float64))
    if replacement:
        assert any(len(set(draw(step).tolist())) < 20 for step in range(20))


def test_magnitude_takes_kernels_in_proportion_to_their_norm() -> None:
    values = norms() * torch.linspace(0.1, 3, 80)
    values[17] = 0
    draw = Magnitude(batch=50, uniform=0.0).start(values, LAYERS, 0)
    counts = torch.bincount(torch.cat([draw(step) for step in range(1000)]), minlength=80).double()
    assert counts[17] == 0
    some = values > 0
    assert not improbable(counts[some], 50_000 * values.double()[some] / float(values.double().sum()))
    assert improbable(counts[some], torch.full((79,), 50_000 / 79, dtype=torch.float64))  # the test can tell


@pytest.mark.parametrize("uniform", [0.0, 0.3, 0.8, 1.0])
def test_magnitude_is_uniform_with_the_given_probability(uniform: float) -> None:
    """A kernel with no weight is drawn in uniform steps only, and there always: the batch holds every kernel."""
    values = norms(30)
    values[4] = 0
    draw = Magnitude(batch=30, uniform=uniform).start(values, torch.zeros(30, dtype=torch.int64), 0)
    steps = [draw(step).tolist() for step in range(1000)]
    uniform_steps = sum(4 in rows for rows in steps)
    assert all(sorted(rows) == list(range(30)) for rows in steps if 4 in rows)
    if uniform in (0.0, 1.0):
        assert uniform_steps == 1000 * uniform
    else:
        assert binomtest(uniform_steps, 1000, uniform).pvalue > 1e-6


def test_magnitude_default_is_the_papers() -> None:
    assert Magnitude() == Magnitude(batch=4096, uniform=0.8)


def test_magnitude_of_a_network_without_weights_draws_uniformly() -> None:
    draw = Magnitude(batch=10, uniform=0.0).start(torch.zeros(30), torch.zeros(30, dtype=torch.int64), 0)
    assert len(set(draw(0).tolist())) == 10


@pytest.mark.parametrize(("options", "message"), [({"uniform": 1.5}, "uniform must be <= 1"), ({"batch": 0}, "batch must be >= 1")])
def test_impossible_options_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Magnitude(**options)
