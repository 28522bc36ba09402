"""Checks that optimisers share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from nern.options import OptionError


def two_decays(instance: Any, attribute: Any, value: Any) -> None:
    """Validator: decay rates of the first and the second moment (Kingma & Ba 2015).

    Raises:
        OptionError: `value` is anything but two numbers from 0 to below 1.
    """
    if len(value) != 2 or not all(0 <= rate < 1 for rate in value):
        raise OptionError(attribute.name, f"must be two numbers >= 0 and < 1, got {value}")


def on_gpu(values: Sequence[nn.Parameter]) -> bool:
    """Whether torch can step all parameters in one kernel on a GPU."""
    return bool(values) and all(value.is_cuda for value in values)
