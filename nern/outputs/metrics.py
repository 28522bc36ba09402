"""The metrics that ship with nern."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import attrs
import torch
from torch import Tensor

from nern.options import at_least, option
from nern.outputs.metric import Metric
from nern.outputs.nested import count, tensors_of


def rows_of(logits: Tensor) -> Tensor:
    """Reshape logits [b, classes, ...] to one row for every image, pixel or position: [n, classes]."""
    return logits if logits.dim() == 2 else logits.movedim(1, -1).flatten(0, -2)


def per_image(values: Tensor, images: int) -> Tensor:
    """Values of every image, pixel or position [n] → their mean over each image [images] float64."""
    return values.double().reshape(images, -1).mean(1)


def percent(batches: Sequence[Tensor]) -> float | None:
    """The percentage of true entries in all `batches` [n] bool; None where there are no entries."""
    hits = torch.cat(list(batches))
    return 100 * int(hits.sum()) / len(hits) if len(hits) else None


@attrs.frozen
class Top1(Metric):
    """Images (or pixels) whose most probable class is the right one, in per cent."""

    def batch(self, outputs: Tensor, reference: Tensor) -> Tensor:
        known = reference.reshape(-1) >= 0  # negative targets, such as on borders between objects, are not counted
        return (_ranked(rows_of(outputs), 1)[:, 0] == reference.reshape(-1))[known]

    def total(self, batches: Sequence[Tensor]) -> float | None:
        return percent(batches)


@attrs.frozen
class Top5(Metric):
    """Images whose right class is among the five most probable ones, in per cent; there is no such figure with fewer than ten classes."""

    def batch(self, outputs: Tensor, reference: Tensor) -> Tensor | None:
        if outputs.shape[1] < 10:
            return None
        return (_ranked(rows_of(outputs), 5) == reference.reshape(-1)[:, None]).any(1)

    def total(self, batches: Sequence[Tensor]) -> float | None:
        return percent(batches)


@attrs.frozen
class Agreement(Metric):
    """Images (or pixels) for which original and reconstructed network predict the same class, in per cent."""

    @property
    def compares(self) -> Literal["targets", "original"]:
        return "original"

    def batch(self, outputs: Tensor, reference: Tensor) -> Tensor:
        return _ranked(rows_of(outputs), 1)[:, 0] == rows_of(reference).argmax(1)

    def total(self, batches: Sequence[Tensor]) -> float | None:
        return percent(batches)


@attrs.frozen
class DistanceFromOriginal(Metric):
    """Base of metrics that compare with the outputs of the original network, and of which less is better."""

    @property
    def compares(self) -> Literal["targets", "original"]:
        return "original"

    @property
    def better(self) -> Literal["higher", "lower"]:
        return "lower"


@attrs.frozen
class Divergence(DistanceFromOriginal):
    """Mean KL(original ‖ reconstructed) of the predicted classes, in nats."""

    def batch(self, outputs: Tensor, reference: Tensor) -> Tensor:
        log = [rows_of(values).double().log_softmax(1) for values in (reference, outputs)]
        return per_image((log[0].exp() * (log[0] - log[1])).sum(1), len(outputs))


@attrs.frozen
class MeanSquaredError(Metric):
    """Squared difference, averaged over the numbers of an image, then over images; outputs may be tensors in any nesting."""

    to: Literal["targets", "original"] = option("targets", help="what outputs are compared with: targets, or the original's outputs")

    @property
    def better(self) -> Literal["higher", "lower"]:
        return "lower"

    @property
    def compares(self) -> Literal["targets", "original"]:
        return self.to

    def batch(self, outputs: Any, reference: Any) -> Tensor:
        pairs = list(zip(tensors_of(outputs), tensors_of(reference), strict=True))
        squares = [(a.double() - b.double().reshape(a.shape)).square() for a, b in pairs if a.is_floating_point()]
        return torch.cat([values.reshape(len(values), -1) for values in squares], dim=1).mean(1)


@attrs.frozen
class MeanIoU(Metric):
    """Intersection over union of predicted and right pixels, over the whole split, averaged over classes, in per cent."""

    ignore: int = option(255, help="target of pixels that do not count, besides negative ones", check=at_least(0))

    def batch(self, outputs: Tensor, reference: Tensor) -> Tensor:
        """Count the pixels of a batch: intersection, predicted and right ones, [1, 3, classes] int64."""
        classes, right = outputs.shape[1], reference.reshape(-1)
        known = (right != self.ignore) & (right >= 0)
        predicted, right = rows_of(outputs).argmax(1)[known], right[known]
        hit = torch.bincount(right[predicted == right], minlength=classes)
        return torch.stack([hit, torch.bincount(predicted, minlength=classes), torch.bincount(right, minlength=classes)])[None]

    def total(self, batches: Sequence[Tensor]) -> float | None:
        hit, predicted, right = torch.cat(list(batches)).sum(0).double()
        union = predicted + right - hit
        there = union > 0  # a class that is neither right nor predicted anywhere does not count in the mean
        return float(100 * (hit[there] / union[there]).mean()) if bool(there.any()) else None


@attrs.frozen
class RelativeDistance(DistanceFromOriginal):
    """‖outputs − original outputs‖² / ‖original outputs‖², added over the tensors of the outputs, averaged over images."""

    def batch(self, outputs: Any, reference: Any) -> Tensor:
        pairs = zip(tensors_of(reference), tensors_of(outputs), strict=True)
        return torch.stack([relative_squares(a.double(), b.double()) for a, b in pairs if a.is_floating_point()]).sum(0)


@attrs.frozen
class FunctionMetric(Metric):
    """A figure that a user's function computes for each batch, averaged over images."""

    function: Callable[[Any, Any], Any]
    """Function from outputs and targets of a batch to a number, or to one number for each image."""

    def batch(self, outputs: Any, reference: Any) -> Tensor:
        values = torch.as_tensor(self.function(outputs, reference)).double().detach().cpu()
        return values if values.dim() else values.expand(count(outputs)).clone()


def relative_squares(original: Tensor, reconstructed: Tensor) -> Tensor:
    """‖b − a‖² / ‖a‖² of every image, [b, ...] → [b]."""
    a, b = (values.reshape(len(values), -1) for values in (original, reconstructed))
    return (b - a).square().sum(1) / a.square().sum(1).clamp_min(1e-12)


def _ranked(rows: Tensor, most: int) -> Tensor:
    """The `most` classes with the greatest logits in every row; of equal logits, the first class comes first."""
    return rows.argsort(dim=1, descending=True, stable=True)[:, :most]
