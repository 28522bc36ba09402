"""What a step predicts: the kernels of its sample, and every weight for the networks that run in it."""

from __future__ import annotations

import torch
from torch import Tensor

from nern.representation.original_kernels import OriginalKernels
from nern.representation.representation import Representation
from nern.training.processes import Processes, has_batch_norm

AT_ONCE = 1 << 17  # kernels above which a prediction of all with gradient is made piece by piece
PIECE = 1 << 16  # kernels of a piece


class Prediction:
    """Predictions in the arithmetic of the run, of which every process computes its part.

    Args:
        dtype: dtype in which the predictor computes.
    """

    def __init__(
        self, representation: Representation, kernels: OriginalKernels, processes: Processes, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.representation, self.kernels, self.processes = representation, kernels, processes
        self.device, self.dtype = device, dtype

    def of(self, rows: Tensor | None) -> Tensor:
        """Predicted kernels [m, k²] of some rows, or of all, differentiable."""
        with self._arithmetic():
            return self.processes.predict(self.representation.predict, rows, self.kernels.rows)

    def whole(self) -> Tensor | None:
        """Every predicted weight [weights] without padding, differentiable; None where `of` is as good."""
        if not self.processes.alone:
            return None
        with self._arithmetic():
            flat = self.representation.predict_whole()
            if flat is None and self.kernels.grid.rows > AT_ONCE and not has_batch_norm(self.representation):
                flat = self.representation.predict_piecewise(PIECE)
        return flat

    def completed(self, predicted: Tensor, rows: Tensor | None) -> Tensor:
        """Every predicted weight [weights], kernel after kernel; only the weights of the sample carry gradient.

        Args:
            predicted: the kernels [m, k²] of the rows, or the weights that `whole` gave.
        """
        grid = self.kernels.grid
        if rows is None:
            return grid.unpadded(predicted) if predicted.dim() == 2 else predicted
        with torch.no_grad(), self._arithmetic():
            everything = self.processes.predict_weights(self.representation, self.kernels.rows)
        return self.kernels.with_sample(everything, predicted, rows)

    def _arithmetic(self) -> torch.autocast:
        return arithmetic(self.device, self.dtype)


def arithmetic(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """A context in which a predictor on this device computes in this dtype, float32 or bfloat16."""
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)
