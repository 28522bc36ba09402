"""Parameters of the network that are copied, and trained beside the predictor."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nern.representation.quantization import rounded_copy


class TrainedCopies(nn.Module):
    """Parameters of the network that are copied instead of predicted, but trained together with the predictor.

    Args:
        values: the initial values, by name in the network's state dict.
        form: how a file stores them: exact, float16 or int8.
    """

    def __init__(self, values: Mapping[str, Tensor], form: str = "exact") -> None:
        super().__init__()
        self.names, self.form = list(values), form
        for index, value in enumerate(values.values()):
            self.register_parameter(f"copy{index}", nn.Parameter(value.detach().clone().float()))

    @torch.no_grad()
    def round(self) -> None:
        """Round the values to those that a file stores."""
        for value in self.parameters():
            value.copy_(rounded_copy(value, self.form))

    def forward(self) -> dict[str, Tensor]:
        """The values by name, differentiable."""
        return {name: getattr(self, f"copy{index}") for index, name in enumerate(self.names)}
