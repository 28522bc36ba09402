"""Integers in about as many bits as their model says, by constriction and without it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import laplace as scipy_laplace

from nern.artifact.entropy_coding import IntegerReader, encode_integers
from nern.representation.laplace import GRID, HIGHEST, LARGEST, LOWEST, bits, frequencies, level_of

pytest.importorskip("constriction", reason="constriction has no wheel for this machine")


def decode(words: np.ndarray, levels: np.ndarray, constriction: bool | None = None) -> np.ndarray:
    reader = IntegerReader(words, constriction)
    values = reader.take(levels)
    reader.close()
    return values


def drawn(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Integers of mixed levels that follow their model."""
    generator = np.random.default_rng(seed)
    levels = generator.integers(-12, 8, count)
    decay = 2 * np.arcsinh(0.5 / np.exp(GRID * levels))
    return np.round(generator.laplace(0, 1 / decay)).clip(-LARGEST, LARGEST).astype(np.int64), levels


def test_both_coders_write_the_same_stream_and_read_it() -> None:
    values, levels = drawn(20_000)
    words = encode_integers((values, levels), constriction=True)
    assert np.array_equal(words, encode_integers((values, levels), constriction=False))
    for constriction in (True, False):
        assert np.array_equal(decode(words, levels, constriction), values)


def test_the_stream_is_within_one_per_cent_of_the_model() -> None:
    values, levels = drawn(20_000, 1)
    model = float(bits(torch.from_numpy(values).double(), torch.from_numpy(GRID * levels)))
    # the model is that of scipy's Laplace distribution
    spread = 1 / (2 * np.arcsinh(0.5 / np.exp(GRID * levels)))
    chance = scipy_laplace.cdf(values + 0.5, scale=spread) - scipy_laplace.cdf(values - 0.5, scale=spread)
    assert model == pytest.approx(-np.log2(chance).sum(), rel=1e-6)
    assert 32 * len(encode_integers((values, levels))) == pytest.approx(model, rel=0.01)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(-LARGEST, LARGEST), st.integers(LOWEST - 3, HIGHEST + 3)), max_size=60))
def test_any_integers_come_back(pairs: list[tuple[int, int]]) -> None:
    values, levels = np.array([a for a, _ in pairs], np.int64), np.array([b for _, b in pairs], np.int64)
    words = encode_integers((values, levels))
    assert np.array_equal(words, encode_integers((values, levels), constriction=False))
    for constriction in (True, False):
        assert np.array_equal(decode(words, levels, constriction), values)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 2**32 - 1), max_size=12), st.integers(0, 2000))
def test_a_hostile_stream_gives_an_error_or_as_many_integers_as_asked_for(words: list[int], count: int) -> None:
    levels, results = np.zeros(count, np.int64), []
    for constriction in (True, False):
        try:
            results.append(decode(np.array(words, np.uint32), levels, constriction).tolist())
            assert len(results[-1]) == count
        except ValueError:
            results.append(None)
    assert results[0] == results[1]


def test_a_short_stream_stands_for_no_more_integers_than_are_soon_read() -> None:
    words, many = encode_integers(drawn(20)), np.full(2_100_000, LOWEST)
    for constriction in (True, False):
        with pytest.raises(ValueError, match="more integers are declared than a stream of this length holds"):
            IntegerReader(words, constriction).take(many)
        reader = IntegerReader(words, constriction)
        reader.take(many[:1_000_000])
        with pytest.raises(ValueError, match="more integers are declared"):
            reader.take(many)


def test_a_stream_of_other_integers_is_refused() -> None:
    values, levels = drawn(500)
    words = encode_integers((values, levels))
    for wrong in (np.concatenate([words, words[-1:]]), words[::-1], np.concatenate([words, [0]])):
        for constriction in (True, False):
            with pytest.raises(ValueError, match=r"does not end|never ends|zero word"):
                decode(wrong, levels, constriction)


def test_tables_do_not_hang_on_the_last_bit_of_an_exponential() -> None:
    for level in range(LOWEST, HIGHEST + 1):
        decay = 2 * math.asinh(0.5 * math.exp(-GRID * level))
        exact = [math.exp(-decay * size) * math.sinh(decay / 2) * (2**24 - 2047) for size in range(1, LARGEST + 1)]
        distance = min(abs(value - round(value)) / max(value, 1e-9) for value in exact if value > 0.5)
        assert distance > 1e-13, level
        assert frequencies(level).sum() == 2**24
        assert frequencies(level).min() >= 1


def test_integers_that_were_read_can_tell_how_the_next_are_distributed() -> None:
    values, levels = drawn(300)
    words = encode_integers((levels, np.full(300, 9)), (values, levels))
    for constriction in (True, False):
        reader = IntegerReader(words, constriction)
        read_levels = reader.take(np.full(300, 9))
        assert np.array_equal(read_levels, levels)
        assert np.array_equal(reader.take(read_levels), values)
        reader.close()


def test_gradients_of_the_bits_are_those_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    values = (3 * torch.randn(40, generator=generator, dtype=torch.float64)).requires_grad_()
    logarithm = torch.randn(40, generator=generator, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(bits, (values, logarithm))


def test_the_level_of_integers_is_the_logarithm_of_their_mean_size() -> None:
    values, _ = drawn(5000)
    assert GRID * level_of(torch.from_numpy(values)) == pytest.approx(math.log(np.abs(values).mean()), abs=GRID / 2)
