"""Draws in proportion to what each kernel was last seen to be wrong by."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from nern import Sampler, above, at_least, at_most, generator, option


class FeedbackDraw:
    """The latest mean squared error of every kernel, and draws by it.

    A kernel that was never drawn counts as much as the worst that was.
    """

    def __init__(self, count: int, options: Feedback, seed: int, device: torch.device) -> None:
        self.options, self.seed = options, seed
        self.errors = torch.full((count,), torch.inf, device=device)

    def __call__(self, step: int) -> Tensor:
        count, batch = len(self.errors), min(self.options.batch, len(self.errors))
        source = generator(self.seed, step, device=self.errors.device)
        known = self.errors.isfinite()
        worst = torch.where(known, self.errors, 0).amax().clamp_min(1e-30)
        weights = torch.where(known, self.errors / worst, 1.0).double() ** self.options.power
        weights = (1 - self.options.uniform) * weights / weights.sum().clamp_min(1e-30) + self.options.uniform / count
        # The largest of weights over exponential numbers are a draw without replacement (Efraimidis & Spirakis 2006)
        clocks = torch.empty_like(weights).exponential_(generator=source) / weights.clamp_min(1e-30)
        return clocks.topk(batch, largest=False).indices

    def observe(self, step: int, rows: Tensor, errors: Tensor) -> None:
        """Keep the errors of the rows that were drawn in a step."""
        self.errors[rows] = errors

    def state_dict(self) -> dict[str, Tensor]:
        return {"errors": self.errors}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.errors.copy_(state["errors"])


@attrs.frozen
class Feedback(Sampler):
    """Kernels without replacement, in proportion to a power of their latest mean squared error, mixed with uniform ones."""

    batch: int = option(4096, help="kernels that carry gradient in a step", check=at_least(1))
    power: float = option(0.5, help="power of the mean squared error; 0.5 draws in proportion to its root", check=above(0))
    uniform: float = option(0.2, help="part of the weight that all kernels share equally", check=[at_least(0), at_most(1)])

    def start(self, norms: Tensor, layers: Tensor, seed: int) -> FeedbackDraw:
        return FeedbackDraw(len(norms), self, seed, norms.device)
