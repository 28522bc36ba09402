"""Checks the state of an optimiser in a checkpoint: its form is that of a fresh optimiser after a step, and another step can be made."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

#: Names that torch's optimisers give to running means of squares.
SQUARES = ("exp_avg_sq", "max_exp_avg_sq", "square_avg")


def check_optimizer(fresh: torch.optim.Optimizer, state: Any, closure: bool = False) -> None:
    """Raise an error where a state is not one that such an optimiser can have after a step, or can make a step from.

    Args:
        fresh: an optimiser of the same kind on copies of the parameters, with which two steps are made here.
        closure: whether its `step` takes a function that evaluates the objective again. What such an optimiser keeps depends on how
            far it has come, so that its entries are not compared.

    Raises:
        ValueError: the state has other entries than such an optimiser, or leads to numbers that are not finite.
        Exception: whatever the optimiser raises with such a state.
    """
    _step(fresh, closure)
    if not closure:
        check_form(state, fresh.state_dict(), "optimizers")
    fresh.load_state_dict(copy.deepcopy(state))  # the step changes tensors in place
    _step(fresh, closure)
    expect(all(bool(value.isfinite().all()) for value in _parameters(fresh)), "optimizers: a step gives numbers that are not finite")


def _step(optimizer: torch.optim.Optimizer, closure: bool) -> None:
    """Make a step towards the minimum of half the sum of squares of all parameters."""

    def objective() -> float:
        for value in _parameters(optimizer):
            value.grad = value.detach().clone()
        return sum(float(value.detach().square().sum()) for value in _parameters(optimizer)) / 2

    if closure:
        optimizer.step(objective)
    else:
        objective()
        optimizer.step()


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [value for group in optimizer.param_groups for value in group["params"]]


def check_form(state: Any, like: Any, place: str) -> None:
    """Raise ValueError where an optimiser's state has other keys, shapes or kinds of values than one that has made a step.

    Parameters without a gradient may have no state yet.
    """
    if isinstance(like, Tensor):
        expect(isinstance(state, Tensor) and state.shape == like.shape and state.dtype == like.dtype, f"{place} is not like its parameter")
        expect(not state.is_floating_point() or bool(state.isfinite().all()), f"{place} is not finite")
        expect(place.rpartition(".")[2] not in SQUARES or bool((state >= 0).all()), f"{place} holds squares below zero")
    elif isinstance(like, dict):
        expect(isinstance(state, dict) and set(state) <= set(like), f"{place} has other entries")
        expect(place.endswith(".state") or set(state) == set(like), f"{place} lacks entries")
        for key in state:
            check_form(state[key], like[key], f"{place}.{key}")
    elif isinstance(like, (list, tuple)):
        expect(isinstance(state, (list, tuple)) and len(state) == len(like), f"{place} has another length")
        for index, (one, other) in enumerate(zip(state, like, strict=True)):
            check_form(one, other, f"{place}.{index}")
    elif isinstance(like, (int, float)) and not isinstance(like, bool):
        expect(isinstance(state, (int, float)) and not isinstance(state, bool) and abs(state) < 1e300, f"{place} is no number")
    else:
        expect(type(state) is type(like), f"{place} is of another kind")


def expect(holds: bool, otherwise: str) -> None:
    """Raise ValueError with a message unless a condition holds."""
    if not holds:
        raise ValueError(otherwise)
