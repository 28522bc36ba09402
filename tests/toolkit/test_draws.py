"""Numbers drawn without replacement."""

from __future__ import annotations

import math

import pytest
import torch

from nern.support.seeding import generator
from nern.toolkit.draws import SPARSE, distinct


@pytest.mark.parametrize(("count", "among"), [(5, 5), (9, 4), (1, 10**9), (10, 10 * SPARSE), (10, 10 * SPARSE + 1), (4096, 5_000_000)])
def test_they_differ_and_are_as_many_as_there_are(count: int, among: int) -> None:
    drawn = distinct(count, among, generator(0, "draw"))
    assert drawn.dtype == torch.int64
    assert len(drawn) == len(drawn.unique()) == min(count, among)
    assert int(drawn.min()) >= 0 and int(drawn.max()) < among
    assert torch.equal(drawn, distinct(count, among, generator(0, "draw")))


def test_every_number_is_as_likely_as_any_other() -> None:
    count, among, times = 10, 10 * SPARSE + 1, 3000
    seen = torch.zeros(among)
    for time in range(times):
        seen[distinct(count, among, generator(0, time))] += 1
    expected = times * count / among
    chi = float(((seen - expected).square() / expected).sum())  # χ² with among − 1 degrees of freedom
    assert abs(chi - among) < 5 * math.sqrt(2 * among)
