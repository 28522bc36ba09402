"""The inputs of a phase."""

from __future__ import annotations

import torch

from nern.run.phases import mixed
from nern.support.seeding import generator


def test_mixtures_stand_between_two_images() -> None:
    images = torch.arange(8.0).reshape(8, 1, 1, 1).expand(8, 1, 2, 2)
    mixtures = mixed(images, 0.5, generator(0, "mix"))
    assert torch.equal(mixtures[4:], images[4:])
    assert torch.equal(mixtures, mixed(images, 0.5, generator(0, "mix")))
    for index in range(4):
        assert mixtures[index].unique().numel() == 1
        assert 0 <= float(mixtures[index, 0, 0, 0]) <= 7
    assert not torch.equal(mixtures[:4], images[:4])
