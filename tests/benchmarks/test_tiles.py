"""Tiles are cut as nern cuts them, and their path is set beside the exact one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.tiles import compared, cut
from nern.networks.layers import map_layers


def test_tiles_of_a_matrix_are_those_of_the_layer() -> None:
    network = nn.Sequential(nn.Conv2d(1, 6, 5), nn.Flatten(), nn.Linear(96, 20))
    layer = map_layers(network, (1, 8, 8), "all")[1]
    weight = network[2].weight.detach()
    whole = layer.split(weight).reshape(4, 20, 25)[:, :19].reshape(-1, 25)  # the last tile of a row is cut off by the edge
    torch.testing.assert_close(cut(weight, 5), whole)


def test_paths_are_compared_with_the_exact_one() -> None:
    tiles = torch.randn(300, 25, generator=torch.Generator().manual_seed(0))
    row = compared("tiles", [tiles, tiles[:100]])
    assert (row["tiles"], row["numbers"]) == (400, 25)
    assert row["longer"] == pytest.approx(1.0)  # few tiles are ordered exactly
