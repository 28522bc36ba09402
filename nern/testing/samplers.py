"""Checks a sampler."""

from __future__ import annotations

import torch
from torch import Tensor

from nern.interfaces import Sampler
from nern.support.seeding import generator
from nern.testing.assertions import equal, expect
from nern.testing.options import check_options


def check_sampler(sampler: Sampler) -> None:
    """A step's rows are valid, depend on seed and step alone, and leave kernels and torch's own generator untouched."""
    check_options("sampler", sampler)
    layers = torch.arange(3).repeat_interleave(torch.tensor([10, 30, 20]))
    for scale in (1.0, 0.0):
        norms = scale * torch.rand(60, generator=generator(0, "norms"))
        before, state = norms.clone(), torch.get_rng_state()
        draw, other = sampler.start(norms, layers, 7), sampler.start(norms, layers, 7)
        drawn = [draw(step) for step in range(20)]
        for step, rows in enumerate(drawn):
            if rows is None:
                continue
            expect(isinstance(rows, Tensor) and rows.dtype == torch.int64 and rows.dim() == 1, f"step {step} must give [m] int64 or None")
            expect(len(rows) > 0, f"step {step} draws no kernel")
            expect(bool(((rows >= 0) & (rows < 60)).all()), f"step {step} draws rows outside 0 … {59}")
        for step in (13, 2, 13):
            expect(
                equal(draw(step), drawn[step]), f"step {step} drawn again, after other steps, gives other rows: a resumed run would differ"
            )
            expect(equal(other(step), drawn[step]), "two starts with the same seed draw different rows")
        expect(torch.equal(torch.get_rng_state(), state), "the sampler draws from torch's global generator; use nern.generator(seed, step)")
        expect(torch.equal(norms, before), "the sampler changes the norms")
