"""Losses that see the targets of a batch."""

from __future__ import annotations

from typing import ClassVar

import attrs
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nern.errors import DataError
from nern.interfaces import Loss
from nern.testing import check_loss
from nern.toolkit.datasets import DatasetData
from nern.training.processes import Processes
from tests.helpers import EXPERIMENT, network

CPU = torch.device("cpu")


@attrs.frozen
class Labels(Loss):
    """Cross-entropy of the reconstructed network."""

    needs = "outputs"
    needs_targets: ClassVar[bool] = True

    @property
    def is_mean(self) -> bool:
        return True

    def __call__(self, original: Tensor, reconstructed: Tensor, targets: Tensor | None = None) -> Tensor:
        assert targets is not None
        return F.cross_entropy(reconstructed, targets) + 0 * original.sum()


def test_the_contract_check_hands_targets_over() -> None:
    check_loss(Labels())

    @attrs.frozen
    class OfWeights(Labels):
        """Weights have no targets."""

        needs = "weights"

    with pytest.raises(AssertionError, match="a loss of weights runs no network, so that there are no targets"):
        check_loss(OfWeights())


def test_the_parts_of_several_processes_add_up() -> None:
    logits, targets = torch.randn(7, 5), torch.arange(7) % 5
    parts = []
    for rank in range(3):
        group = Processes(rank, 3)
        own = group.share(7)
        parts.append(group.part(Labels(), Labels(), (logits[own], logits[own]), 7, targets))
    torch.testing.assert_close(torch.stack(parts).sum(), F.cross_entropy(logits, targets))


def test_a_step_is_handed_the_labels_of_its_images(tmp_path, monkeypatch) -> None:
    from nern.builtin.tasks.digits import Digits
    from nern.config.structuring import structure
    from nern.engine import Engine
    from nern.interfaces import Preprocessing
    from nern.registry.discovery import create_registry

    torch.save(network().state_dict(), tmp_path / "weights.pt")
    registry = create_registry(entry_points=False)
    architecture = {**EXPERIMENT["architecture"], "weights": str(tmp_path / "weights.pt")}
    losses = {"reconstruction": {}, "kd": {}}
    values = {**EXPERIMENT, "architecture": architecture, "phases": [{"iterations": 2, "batch": 9, "losses": losses}]}
    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    kd = registry.find("loss", "kd").cls
    monkeypatch.setattr(kd, "needs_targets", True)

    def remember(self, original, reconstructed, targets):
        seen.append((original.detach(), reconstructed.detach(), targets))
        return F.cross_entropy(reconstructed, targets)

    monkeypatch.setattr(kd, "__call__", remember)
    Engine(structure({**values, "output": str(tmp_path / "run"), "precision": "float32"}, registry), registry).fit()
    data = Digits().open(Preprocessing((0.3,), (0.4,), (1, 8, 8)), 0.1, 0)
    everything = {image.numpy().tobytes(): int(label) for image, label in zip(*data.labelled(), strict=True)}
    assert len(seen) == 2
    original = network()
    images, labels = data.labelled()
    logits = original(data._preprocessing.normalise(images)).detach()
    for given, _, targets in seen:
        nearest = torch.cdist(given.double(), logits.double()).argmin(1)
        assert torch.equal(labels[nearest], targets)
    assert len(everything) > 1000


def test_a_task_without_targets_is_refused() -> None:
    with pytest.raises(DataError, match="the task gives no targets with its training inputs; take another one, or a loss without"):
        DatasetData(torch.zeros(4, 1), targets=False).pairs(2, 0, CPU)
