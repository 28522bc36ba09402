"""Common helpers of optimisers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from nern.errors import OptionError


def two_decays(instance: Any, attribute: Any, value: Any) -> None:
    """Validate the decay rates of the first and the second moment (Kingma & Ba 2015).

    Raises:
        OptionError: `value` is anything but two numbers from 0 to below 1.
    """
    if len(value) != 2 or not all(0 <= rate < 1 for rate in value):
        raise OptionError(attribute.name, f"must be two numbers >= 0 and < 1, got {value}")


def on_gpu(values: Sequence[nn.Parameter]) -> bool:
    """Whether all parameters are on a GPU, where torch can update them in one kernel."""
    return bool(values) and all(value.is_cuda for value in values)
