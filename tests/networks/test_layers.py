"""Weights of all kinds found in networks, and cut into kernels and put together again."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import nern
from nern.errors import ConfigError
from nern.kernels.coordinates import KernelGrid
from nern.networks.layers import map_layers
from nern.networks.mappings import MAPPINGS, DepthwiseMapping, TileMapping, TransposedMapping, VolumeMapping, tile_of


class Mixed(nn.Module):
    """A volume, a transposed volume, attention, linear layers and a table, of inputs [1, 4, 6, 6]."""

    def __init__(self) -> None:
        super().__init__()
        self.volume = nn.Conv3d(1, 4, 3, padding=1)
        self.back = nn.ConvTranspose3d(4, 6, (1, 2, 2), groups=2)
        self.table = nn.Embedding(7, 6)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.unused = nn.Linear(3, 3)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.back(self.volume(x)).flatten(2).transpose(1, 2)[:, :7] + self.table.weight.new_zeros(1)
        x = x + self.table(torch.arange(7, device=x.device))
        x = self.attention(x, x, x)[0]
        logits: Tensor = self.head(x.mean(1))
        return logits


SIZE = (1, 4, 6, 6)


def names(network: nn.Module, chosen: object) -> list[str]:
    return [layer.parameter for layer in map_layers(network, SIZE, chosen)]  # type: ignore[arg-type]


def test_all_takes_linear_layers_and_attention_and_leaves_tables_and_what_is_unused() -> None:
    torch.manual_seed(0)
    network = Mixed()
    assert names(network, "convolutions") == ["volume.weight", "back.weight"]
    projections = ["attention.in_proj_weight", "attention.out_proj.weight"]
    assert names(network, "all") == ["volume.weight", "back.weight", *projections, "head.weight"]
    assert names(network, ["table.weight", "head.*"]) == ["table.weight", "head.weight"]
    assert names(network, ["*"]) == ["volume.weight", "back.weight"]  # what matches convolutions names these alone
    with pytest.raises(ConfigError, match=r"'unused.weight' belongs to a layer that no forward pass calls"):
        names(network, ["unused.*"])


def test_every_mapping_puts_the_weight_together_again_with_unique_coordinates() -> None:
    torch.manual_seed(0)
    network = Mixed()
    layers = map_layers(network, SIZE, "all")
    state = network.state_dict()
    for layer in layers:
        kernels = layer.split(state[layer.parameter])
        assert tuple(kernels.shape) == (layer.count, *layer.kernel)
        assert torch.equal(layer.join(kernels), state[layer.parameter])
    coordinates = KernelGrid(tuple(layers)).coordinates()
    assert len(coordinates.unique(dim=0)) == len(coordinates) == sum(layer.count for layer in layers)


def test_slices_of_a_volume_are_its_kernels_at_one_depth() -> None:
    weight = torch.randn(4, 3, 2, 5, 6, generator=torch.Generator().manual_seed(0))
    layer = VolumeMapping("w", tuple(weight.shape), 0)
    kernels = layer.split(weight).reshape(layer.filters, layer.channels, *layer.kernel)
    assert torch.equal(kernels[1, 2 * 2 + 1], weight[1, 2, 1])


def test_filters_of_a_transposed_volume_are_its_output_channels() -> None:
    weight = torch.randn(6, 2, 2, 3, 4, generator=torch.Generator().manual_seed(0))  # 3 inputs in each of 2 groups, 4 outputs
    layer = TransposedMapping("w", tuple(weight.shape), 0, groups=2)
    assert (layer.filters, layer.channels, layer.kernel) == (4, 6, (3, 4))
    kernels = layer.split(weight).reshape(4, 6, 3, 4)
    assert torch.equal(kernels[3, 2 * 2 + 1], weight[3 + 2, 1, 1])  # output 1 of group 1, input 2 of the group, depth 1
    assert torch.equal(layer.join(layer.split(weight)), weight)


@given(rows=st.integers(1, 40), columns=st.integers(1, 40), height=st.integers(1, 8), width=st.integers(1, 8))
def test_tiles_cover_a_matrix_once(rows: int, columns: int, height: int, width: int) -> None:
    tile = tile_of((rows, columns), (height, width))
    assert tile[0] <= height
    assert tile[1] <= width
    layer = TileMapping("w", (rows, columns), 0, tile=tile)
    assert layer.count == -(-rows // height) * -(-columns // width)  # as few as tiles of the full size
    weight = torch.arange(1, rows * columns + 1.0).reshape(rows, columns)
    tiles = layer.split(weight)
    assert torch.equal(layer.join(tiles), weight)
    assert sorted(tiles[tiles > 0].tolist()) == weight.flatten().tolist()
    row, column = rows - 1, columns - 1
    placed = tiles.reshape(layer.filters, layer.channels, *tile)[row // tile[0], column // tile[1], row % tile[0], column % tile[1]]
    assert placed == weight[row, column]


def test_pointwise_convolutions_are_matrices_where_all_is_represented() -> None:
    """EfficientNet-Lite0 has 3.2 million kernels of 1 × 1 beside 5 × 5: each would be a prediction of 25 numbers."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 5, padding=2), nn.Conv2d(8, 12, 1), nn.Conv2d(12, 12, 1, groups=3), nn.ConvTranspose2d(12, 7, 1), nn.Conv2d(7, 4, 3)
    )  # fmt: skip
    layers = map_layers(network, (3, 8, 8), "all")
    assert [layer.kernel for layer in layers] == [(5, 5), (4, 4), (4, 4), (4, 4), (3, 3)]
    assert [layer.count for layer in layers] == [24, 3 * 2, 3 * 1, 3 * 2, 28]
    for layer in layers:
        weight = network.state_dict()[layer.parameter]
        assert torch.equal(layer.join(layer.split(weight)), weight)
    tile = layers[1].split(network[1].weight)[1 * 2 + 1]  # second row of tiles, second column
    assert torch.equal(tile, network[1].weight[4:8, 4:8, 0, 0])
    plain = map_layers(network, (3, 8, 8), "convolutions")
    assert [layer.kernel for layer in plain] == [(5, 5), (1, 1), (1, 1), (1, 1), (3, 3)]  # the paper's coordinates


def test_joining_tiles_passes_gradients_to_the_weights_alone() -> None:
    layer = TileMapping("w", (3, 5), 0, tile=(2, 3))
    tiles = torch.ones(layer.count, 2, 3, requires_grad=True)
    layer.join(tiles).sum().backward()
    assert tiles.grad is not None
    assert int(tiles.grad.sum()) == 15


@pytest.mark.parametrize("convolution", [nn.Conv1d(3, 6, 5, groups=3), nn.Conv2d(3, 6, (2, 5), groups=3)], ids=["1-d", "2-d"])
def test_a_depthwise_kernel_has_the_coordinates_of_the_channels_that_it_joins(convolution: nn.Module) -> None:
    weight = convolution.requires_grad_(False).weight  # type: ignore[operator, union-attr]
    layer = DepthwiseMapping("w", tuple(weight.shape), 7, multiplier=2)
    kernels = layer.split(weight)
    assert torch.equal(layer.join(kernels), weight)
    zeros = torch.zeros(3, *weight.shape[2:])
    for kernel, (number, output, channel) in zip(kernels, layer.coordinates().tolist(), strict=True):
        assert number == 7
        inputs = zeros.clone()
        inputs[channel] = kernel.reshape(weight.shape[2:])  # the kernel itself in the channel that it reads
        answer = convolution(inputs) - convolution(zeros)
        assert float(answer[output].flatten()[0]) == pytest.approx(float(kernel.square().sum()), rel=1e-5)


def test_every_mapping_that_a_file_can_name_is_a_public_name() -> None:
    from nern.toolkit import mappings

    assert all(getattr(mappings, cls.__name__) is cls for cls in MAPPINGS.values())
    assert mappings.LayerMapping is nern.LayerMapping
