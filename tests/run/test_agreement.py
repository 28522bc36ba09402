from __future__ import annotations

import math

import pytest
import torch

from nern.run.agreement import ClassCounter, ClassCounts, accuracy_difference, count_classes


def one_hot(classes, size=4):
    return torch.nn.functional.one_hot(torch.tensor(classes), size).float()


def test_images_are_counted_by_their_class():
    labels = torch.tensor([0, 0, 0, 2, 2, 3])
    counts = count_classes(one_hot([0, 0, 1, 2, 0, 3]), one_hot([0, 1, 1, 2, 2, 1]), labels)
    assert counts == [  # class 1 has no images
        ClassCounts(label=0, images=3, agree=2, original=2, reconstructed=1, both=1),
        ClassCounts(label=2, images=2, agree=1, original=1, reconstructed=2, both=1),
        ClassCounts(label=3, images=1, agree=0, original=1, reconstructed=0, both=0),
    ]


def test_without_labels_an_image_belongs_to_the_class_that_the_original_predicts():
    counts = count_classes(one_hot([1, 1, 3]), one_hot([1, 2, 3]), None)
    assert counts == [ClassCounts(1, 2, 1, None, None, None), ClassCounts(3, 1, 1, None, None, None)]
    assert accuracy_difference(counts) is None


def test_the_interval_is_that_of_matched_proportions():
    difference = accuracy_difference([ClassCounts(0, 60, 50, 40, 35, 30), ClassCounts(1, 40, 40, 40, 40, 40)])
    assert (difference.lost, difference.gained) == (10, 5)
    assert difference.points == pytest.approx(-5.0)
    # Agresti and Min (2005): 0.5 more in each cell, variance of a difference of matched proportions
    n, b, c = 102.0, 10.5, 5.5
    half = 1.959964 * math.sqrt(((b + c) / n - ((c - b) / n) ** 2) / n)
    assert (difference.low, difference.high) == pytest.approx((100 * ((c - b) / n - half), 100 * ((c - b) / n + half)))


def test_the_interval_covers_the_truth_in_19_of_20_samples():
    generator = torch.Generator().manual_seed(0)
    lost, gained, images, covered = 0.03, 0.01, 400, 0
    for _ in range(2000):
        draw = torch.rand(images, generator=generator)
        b, c = int((draw < lost).sum()), int((draw > 1 - gained).sum())
        difference = accuracy_difference([ClassCounts(0, images, images - b - c, images - c, images - b, images - b - c)])
        covered += difference.low <= 100 * (gained - lost) <= difference.high
    assert 0.93 <= covered / 2000 <= 0.98


def test_networks_that_do_the_same_have_an_interval_around_zero_that_is_no_point():
    difference = accuracy_difference([ClassCounts(0, 50, 50, 40, 40, 40)])
    assert difference.points == 0
    assert difference.low < 0 < difference.high


def test_batches_are_counted_together_and_other_outputs_not_at_all():
    counter, labels = ClassCounter(), torch.tensor([0, 0, 2])
    counter(one_hot([0, 1]), one_hot([0, 0]), labels[:2])
    counter(one_hot([2]), one_hot([1]), labels[2:])
    assert counter.counts() == count_classes(one_hot([0, 0, 1]), one_hot([0, 1, 2]), labels)
    boxes = ClassCounter()
    boxes({"boxes": torch.ones(2, 4)}, {"boxes": torch.ones(2, 4)}, None)
    boxes(torch.ones(2, 3, 8, 8), torch.ones(2, 3, 8, 8), torch.zeros(2, 8, 8))
    boxes(torch.ones(2, 1), torch.ones(2, 1), torch.ones(2))  # regression: targets are no classes
    assert boxes.counts() == []
