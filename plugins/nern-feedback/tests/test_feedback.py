"""The contract, and what the draws follow."""

from __future__ import annotations

import torch
from nern_feedback.sampler import Feedback

from nern import create_registry
from nern.testing import check_sampler


def test_contract():
    check_sampler(Feedback(batch=16))
    check_sampler(Feedback())


def test_draws_are_in_proportion_to_the_root_of_the_error():
    draw = Feedback(batch=1, uniform=0.0).start(torch.ones(4), torch.zeros(4, dtype=torch.int64), 0)
    draw.observe(0, torch.arange(4), torch.tensor([1.0, 4.0, 16.0, 0.0]))
    counts = torch.bincount(torch.cat([draw(step) for step in range(4000)]), minlength=4).double()
    expected = torch.tensor([1.0, 2.0, 4.0, 0.0]).double() / 7
    assert torch.allclose(counts / 4000, expected, atol=0.03)  # four standard deviations


def test_what_was_never_drawn_counts_as_the_worst_and_uniform_draws_are_uniform():
    draw = Feedback(batch=1, uniform=0.0).start(torch.ones(3), torch.zeros(3, dtype=torch.int64), 1)
    draw.observe(0, torch.tensor([0, 1]), torch.tensor([9.0, 1.0]))
    counts = torch.bincount(torch.cat([draw(step) for step in range(4000)]), minlength=3).double()
    assert torch.allclose(counts / 4000, torch.tensor([3.0, 1.0, 3.0]).double() / 7, atol=0.04)
    even = Feedback(batch=1, uniform=1.0).start(torch.ones(3), torch.zeros(3, dtype=torch.int64), 1)
    even.observe(0, torch.arange(3), torch.tensor([9.0, 1.0, 0.0]))
    counts = torch.bincount(torch.cat([even(step) for step in range(3000)]), minlength=3).double()
    assert torch.allclose(counts / 3000, torch.full((3,), 1 / 3).double(), atol=0.04)


def test_is_found():
    registry = create_registry()
    assert not [failure for failure in registry.failures if failure.package == "nern-feedback"]
    assert registry.find("sampler", "nern-feedback:feedback").cls is Feedback
