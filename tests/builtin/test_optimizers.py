"""Optimisers and schedules against written-out numpy versions."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nern.builtin.optimizers.muon import Muon
from nern.builtin.optimizers.ranger import Ranger
from nern.builtin.optimizers.torch import SGD, AdamW
from nern.errors import OptionError
from nern.interfaces import Optimizer

STEPS = 30
Array = np.ndarray


def gradients(shapes: list[tuple[int, ...]]) -> list[list[Array]]:
    """A gradient for every step and parameter."""
    draw = np.random.default_rng(0)
    return [[draw.normal(size=shape) * (1 + step % 3) for shape in shapes] for step in range(STEPS)]


def run(component: Optimizer, start: list[Array], grads: list[list[Array]]) -> list[list[Array]]:
    """Parameters after every step, with the learning rate set as training does."""
    parameters = [nn.Parameter(torch.tensor(value, dtype=torch.float32)) for value in start]
    optimizers = component.start([(f"p{index}", parameter) for index, parameter in enumerate(parameters)])
    rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    seen = []
    for step, at in enumerate(grads):
        for parameter, gradient in zip(parameters, at, strict=True):
            parameter.grad = torch.tensor(gradient, dtype=torch.float32)
        for optimizer, initial in zip(optimizers, rates, strict=True):
            for group, rate in zip(optimizer.param_groups, initial, strict=True):
                group["lr"] = rate * component.factor(step, STEPS)
            optimizer.step()
        seen.append([parameter.detach().double().numpy().copy() for parameter in parameters])
    return seen


def lookahead_radam(start: list[Array], grads: list[list[Array]], o: Ranger, rate: Callable[[int], float]) -> list[list[Array]]:
    """RAdam (Liu et al. 2020, algorithm 2, rectified where ρ > 5) in Lookahead (Zhang et al. 2019, algorithm 1)."""
    fast, slow = [value.copy() for value in start], [value.copy() for value in start]
    m, v = [np.zeros_like(value) for value in start], [np.zeros_like(value) for value in start]
    b1, b2 = o.betas
    longest = 2 / (1 - b2) - 1
    seen = []
    for t in range(1, len(grads) + 1):
        lr = rate(t - 1)
        length = longest - 2 * t * b2**t / (1 - b2**t)
        for i, g in enumerate(grads[t - 1]):
            m[i] = b1 * m[i] + (1 - b1) * g
            v[i] = b2 * v[i] + (1 - b2) * g**2
            momentum = m[i] / (1 - b1**t)
            fast[i] = fast[i] - lr * o.weight_decay * fast[i]
            if length > 5:
                rectifier = math.sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length))
                fast[i] = fast[i] - lr * rectifier * momentum * math.sqrt(1 - b2**t) / (np.sqrt(v[i]) + o.eps)
            else:
                fast[i] = fast[i] - lr * momentum
            if t % o.k == 0:
                slow[i] = slow[i] + o.alpha * (fast[i] - slow[i])
                fast[i] = slow[i].copy()
        seen.append([value.copy() for value in fast])
    return seen


def cosine(lr: float, final: float) -> Callable[[int], float]:
    return lambda step: final + (lr - final) * (1 + math.cos(math.pi * step / STEPS)) / 2


@pytest.mark.parametrize(
    "options",
    [
        Ranger(),
        Ranger(weight_decay=0.1),
        Ranger(weight_decay=0.0, k=1, alpha=1.0),
        Ranger(lr=0.05, betas=[0.9, 0.99], k=4, alpha=0.8, eps=1e-3, weight_decay=0.01),
    ],
    ids=["the paper's", "much decay", "no Lookahead", "others"],
)
def test_ranger_is_radam_in_lookahead(options: Ranger) -> None:
    shapes: list[tuple[int, ...]] = [(3, 4), (5,)]
    start, grads = [np.random.default_rng(1).normal(size=shape) for shape in shapes], gradients(shapes)
    parameters = run(options, start, grads)
    expected = lookahead_radam(start, grads, options, cosine(options.lr, options.final_lr))
    for step in range(STEPS):
        for a, b in zip(parameters[step], expected[step], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=f"step {step}")


def test_ranger_default_is_the_papers() -> None:
    assert Ranger() == Ranger(lr=5e-3, final_lr=1e-6, schedule="cosine", betas=[0.5, 0.999], weight_decay=1e-3, k=6, alpha=0.5, warmup=0)


def test_adamw() -> None:
    options = AdamW(lr=0.02, betas=[0.8, 0.98], weight_decay=0.1, schedule="constant")
    start, grads = [np.ones((2, 3)), np.zeros(4)], gradients([(2, 3), (4,)])
    parameters = run(options, start, grads)
    for i, value in enumerate(start):
        m = v = np.zeros_like(value)
        for t in range(1, STEPS + 1):
            g = grads[t - 1][i]
            m, v = 0.8 * m + 0.2 * g, 0.98 * v + 0.02 * g**2
            value = value * (1 - 0.02 * 0.1)
            value = value - 0.02 * (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.98**t)) + 1e-8)
            np.testing.assert_allclose(parameters[t - 1][i], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd(nesterov: bool) -> None:
    options = SGD(lr=0.02, momentum=0.9, nesterov=nesterov, weight_decay=0.1, schedule="linear", final_lr=0.01)
    start, grads = [np.ones((2, 3))], gradients([(2, 3)])
    parameters = run(options, start, grads)
    value, velocity = start[0], None
    for t in range(STEPS):
        lr = 0.02 + (0.01 - 0.02) * t / STEPS
        g = grads[t][0] + 0.1 * value
        velocity = g if velocity is None else 0.9 * velocity + g
        value = value - lr * (g + 0.9 * velocity if nesterov else velocity)
        np.testing.assert_allclose(parameters[t][0], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(6, 6), (4, 12), (30, 5)])
def test_muon_orthogonalises_the_updates_of_matrices(shape: tuple[int, int]) -> None:
    """The first update has the gradient's singular vectors and singular values near one, at AdamW's root mean square."""
    gradient = np.random.default_rng(0).normal(size=shape)
    [[after]] = run(Muon(lr=0.01, schedule="constant"), [np.zeros(shape)], [[gradient]])
    u, _, vt = np.linalg.svd(gradient, full_matrices=False)
    update = -after / (0.01 * 0.2 * math.sqrt(max(shape)))
    values = np.diag(u.T @ update @ vt.T)
    assert np.all((values > 0.6) & (values < 1.3))
    assert np.linalg.norm(update - u @ np.diag(values) @ vt) < 0.15 * np.linalg.norm(update)


@pytest.mark.parametrize("shape", [(60, 24), (24, 60), (60, 60)])
def test_muon_moves_wide_matrices_no_further_than_narrow_ones(shape: tuple[int, int]) -> None:
    """The spectral norm of an update is that of a matrix of the width."""
    draw = np.random.default_rng(0)
    narrow, wide = draw.normal(size=(15, 15)), draw.normal(size=shape)
    for width, expected in ((15, 1.0), (None, 2.0), (60, 2.0)):  # √(60 / 15) = 2
        [[small, large]] = run(Muon(lr=0.01, width=width, schedule="constant"), [np.zeros((15, 15)), np.zeros(shape)], [[narrow, wide]])
        ratio = np.linalg.norm(large) / np.sqrt(min(shape)) / (np.linalg.norm(small) / np.sqrt(15))  # over root mean square singular values
        assert 0.85 * expected < ratio < 1.15 * expected


def test_muon_leaves_the_rate_of_matrices_within_the_width_as_it_is() -> None:
    parameters = [("a", nn.Parameter(torch.zeros(8, 8))), ("b", nn.Parameter(torch.zeros(8, 36))), ("c", nn.Parameter(torch.zeros(4, 2)))]
    (matrices,) = Muon(lr=0.01, width=9).start(parameters)
    assert [(group["lr"], [tuple(value.shape) for value in group["params"]]) for group in matrices.param_groups] == [
        (0.01, [(8, 8), (4, 2)]), (pytest.approx(0.005), [(8, 36)]),
    ]  # fmt: skip
    (alike,) = Muon(lr=0.01).start(parameters)
    assert len(alike.param_groups) == 1


def test_muon_leaves_vectors_to_adamw_at_a_rate_of_their_own() -> None:
    gradient = np.array([3.0, -0.01, 200.0])
    for shape in [(3,), (3, 1, 1)]:
        [[after]] = run(Muon(lr=0.02, other_lr=0.25, schedule="constant"), [np.zeros(shape)], [[gradient.reshape(shape)]])
        np.testing.assert_allclose(after.flatten(), -0.02 * 0.25 * np.sign(gradient), rtol=1e-4)


def test_muon_decays_matrices_alone() -> None:
    [[matrix, vector]] = run(
        Muon(lr=0.1, weight_decay=0.5, schedule="constant"), [np.ones((2, 2)), np.ones(2)], [[np.zeros((2, 2)), np.zeros(2)]]
    )
    np.testing.assert_allclose(matrix, 1 - 0.1 * 0.5, rtol=1e-6)
    np.testing.assert_allclose(vector, 1)


@pytest.mark.parametrize("component", [Muon(lr=0.02), AdamW(lr=0.02), SGD(lr=0.05), Ranger(lr=0.02)], ids=lambda c: type(c).__name__)
def test_every_optimiser_reduces_a_loss(component: Optimizer) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 2))
    inputs, targets = torch.randn(64, 4), torch.randn(64, 4)[:, :2]
    optimizers, seen = component.start(list(network.named_parameters())), []
    stepped = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    assert stepped == {id(parameter) for parameter in network.parameters()}
    for _ in range(100):
        loss = (network(inputs) - targets).square().mean()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        seen.append(loss.item())
    assert seen[-1] < 0.9 * seen[0]


# -- schedules ---------------------------------------------------------------------------------------------------------


@given(
    lr=st.floats(1e-4, 1),
    part=st.floats(1e-3, 1),
    step=st.integers(0, 100),
    total=st.integers(1, 100),
    warmup=st.integers(0, 20),
    schedule=st.sampled_from(["cosine", "linear", "exponential", "constant"]),
)
def test_schedules_follow_their_formulas(lr: float, part: float, step: int, total: int, warmup: int, schedule: str) -> None:
    final = lr * part
    component = AdamW(lr=lr, final_lr=final, schedule=schedule, warmup=warmup)
    x = min(step / total, 1)
    expected = {
        "cosine": final + (lr - final) * (math.cos(math.pi * x) + 1) / 2,
        "linear": lr + (final - lr) * x,
        "exponential": lr * (final / lr) ** x,
        "constant": lr,
    }[schedule]
    if step < warmup:
        expected *= (step + 1) / (warmup + 1)
    assert lr * component.factor(step, total) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "exponential"])
def test_schedules_fall_from_the_first_rate_to_the_last(schedule: str) -> None:
    component = SGD(lr=0.1, final_lr=0.001, schedule=schedule)
    factors = [component.factor(step, 50) for step in range(51)]
    assert factors[0] == 1
    assert factors[-1] == pytest.approx(0.01)
    assert factors == sorted(factors, reverse=True)


def test_impossible_options_are_refused() -> None:
    for make, message in [
        (lambda: SGD(schedule="exponential"), "final_lr must be above 0 for the exponential schedule"),
        (lambda: Ranger(lr=0.0), "lr must be > 0"),
        (lambda: Ranger(betas=[0.5]), r"betas must be two numbers >= 0 and < 1, got \[0.5\]"),
        (lambda: AdamW(betas=[0.5, 1.0]), "betas must be two numbers"),
        (lambda: Ranger(k=0), "k must be >= 1"),
        (lambda: Muon(momentum=1.0), "momentum must be < 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()


def test_nesterov_momentum_needs_momentum() -> None:
    with pytest.raises(OptionError, match="nesterov must be false where momentum is 0"):
        SGD(nesterov=True, momentum=0.0)
