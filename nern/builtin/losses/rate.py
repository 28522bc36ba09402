"""The rate: how many bits the representation takes in its file."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import attrs
from torch import Tensor

from nern import Loss, LossContext, StoredBits, above, at_least, hookimpl, option

GAIN, SLOPE = 0.02, 20.0  # largest change of the factor in a step, and how fast the change grows towards it


class SteeredRate:
    """Bits per weight, whose gradient is multiplied by a factor that rises while the representation takes more bits than the budget.

    Args:
        budget: total bits to reach; None keeps the factor at 1.
        steps: number of steps of the phase.
        most: the factor stays between 1 / most and most.
        start, ramp: during the first part `ramp` of the phase, the budget falls from `start` times its value to its value.
    """

    def __init__(self, budget: float | None, steps: int, most: float, start: float, ramp: float) -> None:
        self.budget, self.steps, self.most, self.start, self.ramp = budget, steps, most, start, ramp
        self.factor, self.step = 1.0, 0

    def __call__(self, original: StoredBits, stored: StoredBits) -> Tensor:
        if self.budget is not None:
            done = min(1.0, self.step / (self.ramp * self.steps)) if self.ramp and self.steps else 1.0
            wanted = self.budget * (self.start + (1 - self.start) * done)
            excess = SLOPE * (float(stored.exact) / wanted - 1)
            self.factor *= math.exp(GAIN * max(-1.0, min(1.0, excess)))
            self.factor = max(1 / self.most, min(self.most, self.factor))
            self.step += 1
        # the factor applies to the gradient alone: the reported value stays bits per weight
        steered: Tensor = (stored.exact + self.factor * (stored.total - stored.total.detach())) / stored.weights
        return steered

    def state_dict(self) -> dict[str, Any]:
        return {"factor": self.factor, "step": self.step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.factor, self.step = float(state["factor"]), int(state["step"])


@attrs.frozen
class Rate(Loss):
    """Bits per represented weight of everything that is stored in the format `entropy` (Ballé et al. 2017, eq. 7).

    Where the experiment asks for a size (`bytes`), the term's weight is only a starting value. It rises by up to 2 % in a step
    while the file would be too large, and falls while it would be too small.
    """

    most: float = option(5.0, help="largest factor by which the weight may rise or fall in search of the wanted size", check=at_least(1))
    first: float = option(1.0, help="wanted size at the start of the phase, as a multiple of the final one", check=above(0))
    ramp: float = option(0.4, help="part of the phase during which the wanted size falls to the final one", check=at_least(0))
    needs: ClassVar[Literal["weights", "logits", "features", "bits"]] = "bits"

    def start(self, context: LossContext) -> Callable[[Any, Any], Tensor]:
        return SteeredRate(context.budget, context.steps, self.most, self.first, self.ramp)


@hookimpl
def nern_losses() -> Mapping[str, type[Loss]]:
    return {"rate": Rate}
