"""Knowledge distillation: the reconstructed network's predictions follow the original's (Hinton et al. 2014)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import attrs
from torch import Tensor
from torch.nn import functional as F

from nern import Loss, LossContext, OptionError, above, hookimpl, option
from nern.toolkit.outputs import ClassLogits, PixelLogits, rows_of


@attrs.frozen
class KnowledgeDistillation(Loss):
    """KL(original ‖ reconstructed), mean over the batch (Ashkenazi et al. 2023, eq. 5).

    For outputs that are not logits it is the distance of the task's kind of outputs (`OutputKind.distance`), and options do not apply.
    """

    form: Literal["plain", "stable"] = option("plain", help="stable takes log(softmax + 1e-4) of the reconstructed logits")
    temperature: float = option(1.0, help="divides both logits; the loss is multiplied by its square", check=above(0))
    needs: ClassVar[Literal["weights", "logits", "features", "bits"]] = "logits"

    def __attrs_post_init__(self) -> None:
        if self.form == "stable" and self.temperature != 1:
            raise OptionError("temperature", "must be 1 with the stable form")

    def start(self, context: LossContext) -> Callable[[Any, Any], Tensor]:
        if isinstance(context.outputs, (ClassLogits, PixelLogits)):
            return self
        if self.form != "plain":
            raise OptionError("form", f"must be plain: it is about logits, and the task's outputs are {type(context.outputs).__name__}")
        if self.temperature != 1:
            raise OptionError("temperature", f"must be 1: it is about logits, and the task's outputs are {type(context.outputs).__name__}")
        return context.outputs.distance

    @property
    def is_mean(self) -> bool:
        return True

    def __call__(self, original: Tensor, reconstructed: Tensor) -> Tensor:
        original, reconstructed = rows_of(original), rows_of(reconstructed)
        target = F.log_softmax(original / self.temperature, dim=1)
        if self.form == "stable":
            predicted = (F.softmax(reconstructed, dim=1) + 1e-4).log()
        else:
            predicted = F.log_softmax(reconstructed / self.temperature, dim=1)
        return F.kl_div(predicted, target, reduction="batchmean", log_target=True) * self.temperature**2


@hookimpl
def nern_losses() -> Mapping[str, type[Loss]]:
    return {"kd": KnowledgeDistillation}
