"""Seeds that are a function of a place."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from nern.support.seeding import derive, generator, seeded

places = st.tuples(st.integers(0, 2**31 - 1), st.lists(st.one_of(st.integers(-5, 5), st.text(max_size=3)), max_size=3))


@given(places, places)
def test_a_place_has_one_seed_and_another_place_another(a: tuple[int, list[object]], b: tuple[int, list[object]]) -> None:
    first, second = derive(a[0], *a[1]), derive(b[0], *b[1])
    assert 0 <= first < 2**63
    assert first == derive(a[0], *a[1])
    assert (first == second) == (a == b)


def test_numbers_and_words_are_different_places() -> None:
    assert len({derive(0), derive(0, 0), derive(0, "0"), derive(0, 0, 0), derive(1), derive(0, "a", "b"), derive(0, "ab")}) == 7


def test_seeds_are_the_same_in_every_process() -> None:
    """Python's own `hash` of text changes from process to process; resuming needs one that does not."""
    digest = hashlib.blake2b(b"(3, 'sampler', 2, 1500)", digest_size=8).digest()
    assert derive(3, "sampler", 2, 1500) == sum(byte << (8 * i) for i, byte in enumerate(digest)) // 2


def test_first_draws_of_neighbouring_steps_are_spread_evenly() -> None:
    values = torch.tensor([float(torch.rand((), generator=generator(0, "sampler", step))) for step in range(4000)])
    counts = torch.histc(values, bins=20, min=0, max=1)
    assert float(((counts - 200) ** 2 / 200).sum()) < chi2.ppf(1 - 1e-6, 19)
    assert abs(float(torch.corrcoef(torch.stack([values[1:], values[:-1]]))[0, 1])) < 0.1


def drawn() -> list[float]:
    return [float(torch.rand(())), float(np.random.rand()), random.random()]


def test_seeded_puts_the_global_generators_back() -> None:
    torch.manual_seed(11)
    np.random.seed(11)
    random.seed(11)
    expected = drawn()
    torch.manual_seed(11)
    np.random.seed(11)
    random.seed(11)
    with seeded(5, "predictor"):
        first = drawn()
        with seeded(6, "inside"):
            assert not set(drawn()) & set(first)
        second = drawn()
    assert drawn() == expected
    with seeded(5, "predictor"):
        assert (drawn(), drawn()) == (first, second)
    with seeded(5, "original"):
        assert not set(drawn()) & set(first)
