"""Measures a network beside the original one."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import attrs
import torch
from torch import Tensor, nn
from torch.func import functional_call

from nern.errors import DataError
from nern.interfaces import Data

PIXELS = 1 << 23  # values that go through a network at a time: bounds the memory of its activations


@attrs.frozen
class Score:
    """How a network does on one split."""

    images: int
    top1: float | None  # per cent; None where there are no labels
    top5: float | None  # per cent; None where there are no labels or fewer than ten classes
    agreement: float | None  # per cent of images on which original and network predict the same class
    kl: float | None  # mean KL(original ‖ network), nats

    @property
    def key(self) -> tuple[float, float]:
        """What checkpoints are compared by: the lower KL, then agreement.

        The original network has mostly seen the held-out images, so that top-1 there is near 100 % and decided by a
        handful of images; the divergence from the original's predictions counts every image, with or without labels.
        """
        return (-(self.kl if self.kl is not None else 0.0), self.agreement if self.agreement is not None else 0.0)

    def metrics(self) -> dict[str, float]:
        """The figures that exist."""
        return {name: value for name, value in attrs.asdict(self).items() if value is not None and name != "images"}


@torch.no_grad()
def logits_of(
    network: nn.Module, data: Data, split: Literal["heldout", "test"], device: torch.device, batch: int = 500
) -> tuple[Tensor, Tensor | None]:
    """Logits [n, classes] float32 of every image of a split, and the labels [n] or None; both on the CPU.

    Raises:
        DataError: the split is missing, or has more classes than the network.
    """
    network = network.to(device).eval()
    logits, labels = [], []
    for images, targets in data.batches(split, batch, device):
        for part in torch.split(images, max(1, PIXELS // images[0].numel())):
            logits.append(functional_call(network, {}, (part.contiguous(memory_format=torch.channels_last),)).float().cpu())
        if targets is not None:
            labels.append(targets.cpu())
    if not logits:
        raise DataError(f"the task has no {split} images")
    stacked = torch.cat(logits)
    targets = torch.cat(labels) if labels else None
    if targets is not None and int(targets.max()) >= stacked.shape[1]:
        raise DataError(f"the task has {data.classes} classes and the network {stacked.shape[1]}; set architecture.classes or another task")
    return stacked, targets


def score(logits: Tensor, labels: Tensor | None, original: Tensor | None = None) -> Score:
    """Compare logits [n, classes] with labels and with the original network's logits."""
    ranks = logits.argsort(dim=1, descending=True, stable=True)
    hits = None if labels is None else ranks[:, :5] == labels[:, None]
    agreement = kl = None
    if original is not None:
        agreement = _percent(ranks[:, 0] == original.argmax(1))
        log = [values.double().log_softmax(1) for values in (original, logits)]
        kl = float((log[0].exp() * (log[0] - log[1])).sum(1).mean())
    top5 = _percent(hits.any(1)) if hits is not None and logits.shape[1] >= 10 else None
    return Score(len(logits), None if hits is None else _percent(hits[:, 0]), top5, agreement, kl)


class Comparison:
    """Measures networks on one split of a task, beside the original network, which runs once.

    Args:
        original: None where the original weights are not at hand.
    """

    def __init__(self, original: nn.Module | None, data: Data, split: Literal["heldout", "test"], device: torch.device) -> None:
        self._network, self._data, self._split, self._device = original, data, split, device

    @cached_property
    def _logits(self) -> tuple[Tensor, Tensor | None] | None:
        return None if self._network is None else logits_of(self._network, self._data, self._split, self._device)

    @property
    def original(self) -> Score | None:
        """How the original network does."""
        return None if self._logits is None else score(self._logits[0], self._logits[1], self._logits[0])

    def score(self, network: nn.Module) -> Score:
        """How a network does, and how often it agrees with the original."""
        logits, labels = logits_of(network, self._data, self._split, self._device)
        return score(logits, labels, None if self._logits is None else self._logits[0])


def _percent(right: Tensor) -> float:
    return 100 * int(right.sum()) / len(right)
