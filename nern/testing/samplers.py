"""Checks a sampler."""

from __future__ import annotations

import io
from typing import Any

import torch
from torch import Tensor

from nern.interfaces import Sampler
from nern.support.seeding import generator
from nern.testing.assertions import equal, expect, expect_none
from nern.testing.options import check_options
from nern.training.component_contracts import problem_with_draw, problem_with_sampler


def check_sampler(sampler: Sampler) -> None:
    """Check that a step's rows are valid and depend on seed and step alone, and that kernels and torch's own generator are not changed."""
    check_options("sampler", sampler)
    layers = torch.arange(3).repeat_interleave(torch.tensor([10, 30, 20]))
    for scale in (1.0, 0.0):
        norms = scale * torch.rand(60, generator=generator(0, "norms"))
        before, state = norms.clone(), torch.get_rng_state()
        expect_none(problem_with_sampler(sampler, norms, layers, 7, 0))
        draw, other = sampler.start(norms, layers, 7), sampler.start(norms, layers, 7)
        drawn = [draw(step) for step in range(20)]
        for rows in drawn:
            expect_none(problem_with_draw(rows, 60))
        for step in (13, 2, 13):
            expect(
                equal(draw(step), drawn[step]), f"step {step} drawn again, after other steps, gives other rows: a resumed run would differ"
            )
            expect(equal(other(step), drawn[step]), "two starts with the same seed draw different rows")
        if hasattr(draw, "observe"):
            _check_observing(sampler, norms, layers)
        expect(torch.equal(torch.get_rng_state(), state), "the sampler draws from torch's global generator; use nern.generator(seed, step)")
        expect(torch.equal(norms, before), "a step changes the norms that start() was given")


def _check_observing(sampler: Sampler, norms: Tensor, layers: Tensor) -> None:
    """Check that `observe` changes none of its arguments, and that the state dict holds everything that the sampler learns."""

    def run(draw: Any, steps: range) -> list[Tensor | None]:
        drawn = []
        for step in steps:
            rows = draw(step)
            drawn.append(rows)
            told = torch.arange(60) if rows is None else rows
            errors = torch.rand(len(told), generator=generator(0, "errors", step))
            before = told.clone(), errors.clone()
            draw.observe(step, told, errors)
            expect(torch.equal(told, before[0]) and torch.equal(errors, before[1]), "observe() changes its arguments")
        return drawn

    first: Any = sampler.start(norms, layers, 7)
    run(first, range(6))
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    buffer.seek(0)
    later = run(first, range(6, 12))
    resumed: Any = sampler.start(norms, layers, 7)
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    again = run(resumed, range(6, 12))
    expect(all(equal(a, b) for a, b in zip(later, again, strict=True)), "a sampler that is resumed from its state draws other rows")
