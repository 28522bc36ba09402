"""Checks an optimiser."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nern.interfaces import Optimizer
from nern.support.seeding import generator, seeded
from nern.testing.assertions import expect, expect_none, same
from nern.testing.options import check_options
from nern.training.component_contracts import problem_with_factor, problem_with_optimizers
from nern.training.step import needs_closure


def check_optimizer(optimizer: Optimizer) -> None:
    """Check that one optimiser updates each parameter, a small problem improves, and a resumed run ends like an uninterrupted one."""
    check_options("optimizer", optimizer)
    with seeded(0, "optimizer"):
        network = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
    points = torch.randn(64, 6, generator=generator(0, "points"))
    targets = torch.randn(64, 3, generator=generator(0, "targets"))
    total = 40
    for step in range(total + 1):
        factor = optimizer.factor(step, total)
        expect_none(problem_with_factor(factor))
        expect(factor >= 0, f"factor({step}, {total}) is {factor}")
        expect(optimizer.factor(step, total) == factor, f"factor({step}, {total}) differs from call to call")
    started = optimizer.start(list(network.named_parameters()))
    expect_none(problem_with_optimizers(started, list(network.named_parameters())))
    rates = [[group["lr"] for group in one.param_groups] for one in started]
    expect(all(rate > 0 for own in rates for rate in own), "an optimiser starts with a learning rate of zero")

    def loss() -> Tensor:
        error: Tensor = network(points) - targets
        return error.square().mean()

    def again() -> float:
        network.zero_grad(set_to_none=True)
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return float(value)

    def run(optimisers: Sequence[torch.optim.Optimizer], steps: range) -> None:
        for step in steps:
            loss().backward()  # type: ignore[no-untyped-call]
            for one, own in zip(optimisers, rates, strict=True):
                for group, rate in zip(one.param_groups, own, strict=True):
                    group["lr"] = rate * optimizer.factor(step, total)
                one.step(again) if needs_closure(optimizer, one) else one.step()  # type: ignore[arg-type]
                one.zero_grad(set_to_none=True)

    first = float(loss())
    run(started, range(total // 2))
    kept = {name: value.clone() for name, value in network.state_dict().items()}
    states = _through_a_file([one.state_dict() for one in started])
    run(started, range(total // 2, total))
    last = float(loss())
    expect(last < first, f"{total} steps on a small regression do not lower its loss ({first:.4g} → {last:.4g})")
    final = {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(kept)
    resumed = optimizer.start(list(network.named_parameters()))
    for one, state in zip(resumed, states, strict=True):
        one.load_state_dict(state)
    run(resumed, range(total // 2, total))
    expect(same(network.state_dict(), final), "a run that is resumed from saved states ends with other parameters")


def _through_a_file(states: list[dict[str, Any]]) -> list[dict[str, Any]]:
    buffer = io.BytesIO()
    torch.save(states, buffer)
    buffer.seek(0)
    loaded: list[dict[str, Any]] = torch.load(buffer, weights_only=True)
    return loaded
