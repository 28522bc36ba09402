"""Checks the state of an optimiser in a checkpoint against that of a fresh optimiser after one step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def check_optimizer(fresh: torch.optim.Optimizer, state: Any) -> None:
    """Raise ValueError where a state is not one that such an optimiser can have after a step.

    Args:
        fresh: an optimiser of the same kind on copies of the parameters; it makes one step with zero gradients here.
    """
    for group in fresh.param_groups:
        for value in group["params"]:
            value.grad = torch.zeros_like(value)
    fresh.step()
    check_form(state, fresh.state_dict(), "optimizers")


def check_form(state: Any, like: Any, place: str) -> None:
    """Raise ValueError where an optimiser's state has other keys, shapes or kinds of values than one that has made a step.

    Parameters without a gradient may have no state yet.
    """
    if isinstance(like, Tensor):
        expect(isinstance(state, Tensor) and state.shape == like.shape and state.dtype == like.dtype, f"{place} is not like its parameter")
        expect(not state.is_floating_point() or bool(state.isfinite().all()), f"{place} is not finite")
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
