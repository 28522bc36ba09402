"""Compares two networks image by image: counts for every class, and the difference in accuracy with its confidence interval."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import attrs
import torch
from torch import Tensor

#: Two-sided 95 % quantile of the normal distribution.
NORMAL_95 = 1.959964


@attrs.frozen
class ClassCounts:
    """Test images of one class, counted by which of the two networks is right about them.

    Without labels, the class of an image is the one that the original network predicts, and the counts of correct images are missing.
    """

    label: int  # position of the class in the network's output
    images: int
    agree: int  # images for which both networks predict the same class
    original: int | None  # images that the original network classifies correctly
    reconstructed: int | None  # images that the reconstructed network classifies correctly
    both: int | None  # images that both networks classify correctly


@attrs.frozen
class Difference:
    """Accuracy of the reconstructed network minus that of the original one, in percentage points."""

    points: float
    low: float  # lower end of the 95 % confidence interval
    high: float  # upper end of the 95 % confidence interval
    lost: int  # images that only the original network classifies correctly
    gained: int  # images that only the reconstructed network classifies correctly


def count_classes(original: Tensor, reconstructed: Tensor, labels: Tensor | None) -> list[ClassCounts]:
    """Counts for every class that has images, in the order of the classes.

    Args:
        original: logits of the original network [n, classes].
        reconstructed: logits of the reconstructed network [n, classes].
        labels: the true classes [n] int64, or None.
    """
    first, second = original.argmax(1), reconstructed.argmax(1)
    classes, size = first if labels is None else labels, original.shape[1]

    def per_class(chosen: Tensor) -> list[int]:
        return torch.bincount(classes[chosen], minlength=size).tolist()

    everything, agreeing = per_class(torch.ones_like(first, dtype=torch.bool)), per_class(first == second)
    if labels is None:
        return [ClassCounts(label, n, agreeing[label], None, None, None) for label, n in enumerate(everything) if n]
    right = per_class(first == labels), per_class(second == labels), per_class((first == labels) & (second == labels))
    return [
        ClassCounts(label, n, agreeing[label], right[0][label], right[1][label], right[2][label]) for label, n in enumerate(everything) if n
    ]


class ClassCounter:
    """Counts classes batch by batch; networks that give anything but logits [n, classes] are not counted."""

    def __init__(self) -> None:
        self._batches: list[tuple[Tensor, Tensor, Tensor | None]] = []

    def __call__(self, reconstructed: Any, original: Any, labels: Any) -> None:
        """Count a batch: logits [n, classes] of both networks, and labels [n] or None."""
        if all(isinstance(outputs, Tensor) and outputs.dim() == 2 for outputs in (reconstructed, original)):
            usable = isinstance(labels, Tensor) and labels.dim() == 1 and not labels.is_floating_point()
            if labels is None or usable:
                self._batches.append((original, reconstructed, labels))

    def counts(self) -> list[ClassCounts]:
        """The counts of every class that has images; empty where nothing was counted."""
        if not self._batches:
            return []
        originals, reconstructions, labels = zip(*self._batches, strict=True)
        known = [batch for batch in labels if batch is not None]
        return count_classes(torch.cat(originals), torch.cat(reconstructions), torch.cat(known) if len(known) == len(labels) else None)


def accuracy_difference(counts: Iterable[ClassCounts]) -> Difference | None:
    """The difference in accuracy with its 95 % confidence interval; None where there are no labels.

    Both networks see the same images, so only the images matter on which exactly one of them is right. The interval adds half an
    image to each of the four cells of the table (Agresti and Min 2005, "Simple improved confidence intervals for comparing matched
    proportions"), so that it also holds for few images.
    """
    images = lost = gained = 0
    for count in counts:
        if count.original is None or count.reconstructed is None or count.both is None:
            return None
        images += count.images
        lost += count.original - count.both
        gained += count.reconstructed - count.both
    if not images:
        return None
    n, a, b = images + 2, gained + 0.5, lost + 0.5
    centre = (a - b) / n
    half = NORMAL_95 * math.sqrt(a + b - (a - b) ** 2 / n) / n
    return Difference(100 * (gained - lost) / images, 100 * (centre - half), 100 * (centre + half), lost, gained)
