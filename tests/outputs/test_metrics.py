"""Metrics and kinds of outputs against sums written out in Python."""

from __future__ import annotations

import math

import attrs
import pytest
import torch
from torch import nn

from nern.errors import ConfigError, DataError
from nern.outputs.kinds import AnyOutputs, ClassLogits, Numbers, Parts, PixelLogits, kind_of_outputs
from nern.outputs.metric import Metric
from nern.outputs.metrics import FunctionMetric, MeanIoU, MeanSquaredError, RelativeDistance
from nern.testing import check_metric, check_outputs


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_mean_iou_by_hand() -> None:
    predicted = torch.tensor([[[0, 0], [1, 1]], [[2, 1], [1, 1]]])
    right = torch.tensor([[[0, 1], [1, 255]], [[2, 2], [1, 1]]])
    logits = nn.functional.one_hot(predicted, 4).movedim(-1, 1).float()
    metric = MeanIoU()
    mean_iou = metric.total([metric.batch(logits[:1], right[:1]), metric.batch(logits[1:], right[1:])])
    # class 0: 1 of 2; class 1: 3 right, 5 counted as predicted less the ignored one is 4, 4 right pixels: 3 of 5; class 2: 1 of 2
    assert mean_iou == pytest.approx(100 * (1 / 2 + 3 / 5 + 1 / 2) / 3)  # class 3 is nowhere and does not count


def test_mean_iou_against_sets() -> None:
    logits, right = random(3, 5, 6, 7), torch.randint(5, (3, 6, 7), generator=torch.Generator().manual_seed(1))
    pairs = list(zip(logits.argmax(1).flatten().tolist(), right.flatten().tolist(), strict=True))
    ratios = []
    for c in range(5):
        union = sum(a == c or b == c for a, b in pairs)
        ratios.append(sum(a == c and b == c for a, b in pairs) / union)
    assert MeanIoU().total([MeanIoU().batch(logits, right)]) == pytest.approx(100 * math.fsum(ratios) / 5)


def test_squares_and_relative_distance_by_hand() -> None:
    outputs, targets = {"a": torch.tensor([[1.0, 2.0], [3.0, 4.0]])}, {"a": torch.tensor([[1.0, 0.0], [3.0, 1.0]])}
    assert MeanSquaredError().total([MeanSquaredError().batch(outputs, targets)]) == pytest.approx((4 / 2 + 9 / 2) / 2)
    assert RelativeDistance().total([RelativeDistance().batch(outputs, targets)]) == pytest.approx((4 / 1 + 9 / 10) / 2)


def test_a_function_is_averaged_over_images() -> None:
    metric = FunctionMetric(lambda outputs, targets: (outputs.argmax(1) == targets).float().mean())
    outputs, targets = random(10, 3), torch.arange(10) % 3
    right = [int(row.argmax()) == int(label) for row, label in zip(outputs, targets, strict=True)]
    batches = [metric.batch(outputs[:7], targets[:7]), metric.batch(outputs[7:], targets[7:])]
    assert metric.total(batches) == pytest.approx(sum(right) / 10)


@pytest.mark.parametrize(
    ("kind", "outputs", "targets"),
    [
        (ClassLogits(), random(12, 11), torch.arange(12) % 11),
        (PixelLogits(), random(6, 4, 5, 3), torch.arange(90).reshape(6, 5, 3) % 4),
        (Numbers(), random(6, 3), random(6, 3, seed=1)),
        (Numbers(), random(6), random(6, seed=1)),
        (Parts({"out": PixelLogits(), "size": Numbers()}), {"out": random(4, 3, 2, 2), "size": random(4)}, None),
        (Parts({0: ClassLogits(), 1: Numbers()}), (random(4, 3), random(4, 2, 2)), (torch.arange(4) % 3, random(4, 2, 2))),
        (AnyOutputs(), {"boxes": random(4, 3, 4), "more": (random(4, 2),), "count": torch.arange(4)}, None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_kinds_of_outputs_keep_their_contract(kind, outputs, targets):
    check_outputs(kind, outputs, targets)


def test_pixel_divergence_is_the_mean_over_pixels() -> None:
    a, b = random(2, 3, 2, 2), random(2, 3, 2, 2, seed=1)
    total = 0.0
    for i in range(2):
        for y in range(2):
            for x in range(2):
                p, q = (torch.softmax(logits[i, :, y, x].double(), 0) for logits in (a, b))
                total += float((p * (p.log() - q.log())).sum())
    assert float(PixelLogits().distance(a, b)) == pytest.approx(total / 8, rel=1e-5)


def test_wrong_outputs_are_named() -> None:
    with pytest.raises(ConfigError, match=r"gives a tuple of 2 where the task needs logits \[b, classes\]"):
        ClassLogits().check((random(2, 3), random(2)))
    with pytest.raises(ConfigError, match=r"gives a tensor of shape \[1, 3\] where the task needs logits \[b, classes, h, w\]"):
        PixelLogits().check(random(1, 3))
    with pytest.raises(ConfigError, match="gives a dictionary with out, aux, which has no part 'depth'"):
        Parts({"depth": Numbers()}).check({"out": random(1), "aux": random(1)})
    with pytest.raises(DataError, match="the task has 20 classes and the network 3"):
        PixelLogits().check_targets(random(1, 3, 2, 2), torch.full((1, 2, 2), 19))
    with pytest.raises(ConfigError, match="no tensor of floating-point numbers"):
        AnyOutputs().check(torch.arange(3))
    assert kind_of_outputs(random(2, 3)) == ClassLogits()
    assert kind_of_outputs({"a": random(2, 3)}) == AnyOutputs()


def test_the_check_finds_a_metric_that_depends_on_its_batches() -> None:
    class Greatest(Metric):
        """The greatest logit of each batch."""

        def batch(self, outputs, reference):
            return outputs.max()[None]

    with pytest.raises(AssertionError, match=r"total\(\) must not depend on the batches"):
        check_metric(attrs.frozen(Greatest)(), random(12, 10), torch.arange(12) % 10)
