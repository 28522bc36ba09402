"""Scores by hand."""

from __future__ import annotations

import math
from collections.abc import Iterable

import attrs
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nern.errors import DataError
from nern.interfaces import Data
from nern.networks.state_dicts import with_weights
from nern.outputs.kinds import ClassLogits
from nern.outputs.metric import Measures, Metric, figure_of
from nern.run.evaluation import Comparison, Score, outputs_of

CPU = torch.device("cpu")
MEASURES = Measures(dict(ClassLogits().metrics()), ClassLogits().choice)


def score(logits: Tensor, labels: Tensor | None, original: Tensor | None = None) -> Score:
    """The figures of a network whose outputs are its inputs, beside another one that gives `original`."""

    class Fixed(nn.Module):
        def __init__(self, given: Tensor) -> None:
            super().__init__()
            self.given, self.start = given, 0

        def forward(self, inputs: Tensor) -> Tensor:
            part = self.given[self.start : self.start + len(inputs)]
            self.start = (self.start + len(inputs)) % len(self.given)
            return part

    data = Few(torch.zeros(len(logits), 1, 1, 1), labels)
    data.classes = logits.shape[1]
    beside = None if original is None else Fixed(original)
    return Comparison(beside, data, "test", CPU, ClassLogits()).score(Fixed(logits))


def test_top1_agreement_and_kl_by_hand() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [1.0, 0.0, 2.0], [5.0, 0.0, 0.0]])
    original = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 4.0], [0.0, 2.0, 0.0]])
    scores = score(logits, torch.tensor([0, 1, 1, 0]), original)
    assert scores.images == 4
    assert scores.top1 == 75.0  # rows 0, 1 and 3
    assert scores.top5 is None  # three classes
    assert scores.agreement == 50.0  # rows 0 and 2
    total = 0.0
    for p, q in zip(original.tolist(), logits.tolist(), strict=True):
        sums = [sum(math.exp(x) for x in row) for row in (p, q)]
        total += sum(math.exp(a) / sums[0] * (a - math.log(sums[0]) - b + math.log(sums[1])) for a, b in zip(p, q, strict=True))
    assert scores.kl == pytest.approx(total / 4, rel=1e-9)


def test_top5_by_hand() -> None:
    rows = torch.arange(10.0).repeat(4, 1)  # the five most probable classes are 5 … 9
    scores = score(rows, torch.tensor([9, 5, 4, 0]))
    assert scores.top1 == 25.0
    assert scores.top5 == 50.0
    assert scores.agreement is None
    assert scores.kl is None


def test_top1_and_top5_against_sorting_each_row() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(300, 20), torch.randint(20, (300,))
    scores = score(logits, labels)
    ranks = [
        sorted(range(20), key=lambda i, row=row: -row[i]).index(label) for row, label in zip(logits.tolist(), labels.tolist(), strict=True)
    ]
    assert scores.top1 == pytest.approx(100 * sum(rank == 0 for rank in ranks) / 300)
    assert scores.top5 == pytest.approx(100 * sum(rank < 5 for rank in ranks) / 300)


def test_equal_logits_agree_without_divergence() -> None:
    torch.manual_seed(0)
    logits = 30 * torch.randn(20, 10)
    scores = score(logits, None, logits)
    assert (scores.agreement, scores.kl, scores.top1) == (100.0, 0.0, None)
    assert scores.metrics() == {"agreement": 100.0, "kl": 0.0}


def test_checkpoints_are_compared_by_kl_then_agreement() -> None:
    def of(top1: float | None, agreement: float, kl: float) -> tuple[float, ...]:
        return MEASURES.key({"top1": top1, "top5": None, "agreement": agreement, "kl": kl})

    assert of(79.0, 70.0, 0.1) > of(80.0, 99.0, 0.5)
    assert of(79.0, 90.0, 0.1) > of(80.0, 80.0, 0.1)
    assert of(None, 70.0, 0.1) > of(None, 99.0, 0.5)  # labels are not needed


class Few(Data):
    classes = 3
    splits = frozenset({"test"})

    def __init__(self, images: Tensor, labels: Tensor | None) -> None:
        self.images, self.labels = images, labels

    def batches(self, split: str, batch: int, device: torch.device) -> Iterable[tuple[Tensor, Tensor | None]]:
        for start in range(0, len(self.images), batch):
            yield self.images[start : start + batch], None if self.labels is None else self.labels[start : start + batch]

    def inputs(self, batch: int, seed: int, device: torch.device) -> None:
        raise AssertionError("evaluation needs no training inputs")


def test_every_image_runs_in_eval_mode_and_in_order() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.BatchNorm1d(12), nn.Linear(12, 3)).train()
    images, labels = torch.randn(7, 3, 2, 2), torch.arange(7) % 3
    pairs = list(outputs_of(network, Few(images, labels), "test", CPU, batch=3))
    network.eval()
    torch.testing.assert_close(torch.cat([a for a, _ in pairs]), torch.cat([network(image[None]) for image in images]).detach())
    assert torch.equal(torch.cat([b for _, b in pairs]), labels)
    assert next(outputs_of(network, Few(images, None), "test", CPU))[1] is None


def test_no_images_and_another_number_of_classes_are_refused() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    with pytest.raises(DataError, match="the task has no test examples"):
        Comparison(None, Few(torch.zeros(0, 3, 2, 2), None), "test", CPU, ClassLogits()).score(network)
    with pytest.raises(DataError, match=r"the task has 3 classes and the network 2 outputs.*task\.classes.*architecture\.classes"):
        Comparison(None, Few(torch.zeros(3, 3, 2, 2), torch.tensor([0, 1, 2])), "test", CPU, ClassLogits()).score(network)


def test_the_original_runs_once_unless_its_outputs_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    network.register_forward_hook(lambda module, inputs, output: calls.append(len(output)))
    other = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    figures = []
    for kept, times in ((1 << 28, 1), (3, 3)):
        monkeypatch.setattr("nern.run.evaluation.KEPT", kept)
        calls.clear()
        comparison = Comparison(
            network, Few(torch.randn(7, 3, 2, 2, generator=torch.Generator().manual_seed(0)), None), "test", CPU, ClassLogits()
        )
        assert comparison.original is not None
        assert comparison.original.kl == 0.0
        figures += [comparison.score(other), comparison.score(other)]
        assert calls == [7] * times
    assert len({repr(score) for score in figures}) == 1


def test_a_figure_that_is_missing_or_no_number_never_wins() -> None:
    assert MEASURES.key({"kl": math.nan, "agreement": 100.0}) < MEASURES.key({"kl": 9.0, "agreement": 0.0})
    with pytest.raises(DataError, match="is chosen by 'kl', which needs the original network"):
        MEASURES.key({"kl": None})


def test_with_weights_leaves_the_network_alone() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    before = network[0].weight.detach().clone()
    new = torch.randn(4, 3, 3, 3)
    changed = with_weights(network, {"0.weight": new})
    assert torch.equal(changed[0].weight, new)
    assert torch.equal(changed[0].bias, network[0].bias)
    assert torch.equal(network[0].weight, before)


def test_a_figure_is_a_float_of_python_which_a_checkpoint_can_hold() -> None:
    @attrs.frozen
    class Mean(Metric):
        def batch(self, outputs: Tensor, reference: object) -> Tensor:
            return outputs

        def total(self, batches: list[Tensor]) -> float:
            return np.float64(0.25)

    figure = figure_of(Mean(), [torch.ones(2)])
    assert type(figure) is float and figure == 0.25
