"""A trained code for every kernel, beside its embedded coordinate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nern import ConfigError, Embedding, KernelGrid, LayerMapping, above, at_least, hookimpl, option

FEW = 4096  # up to so many kernels are computed alone: all kernels together, padded to the largest, can take gigabytes


def cosines(size: int) -> Tensor:
    """The orthonormal discrete cosine transform (Ahmed et al. 1974), [frequency, place] float64."""
    place, frequency = torch.arange(size, dtype=torch.float64), torch.arange(size, dtype=torch.float64)[:, None]
    waves = torch.cos(math.pi * (2 * place + 1) * frequency / (2 * size)) * math.sqrt(2 / size)
    waves[0] /= math.sqrt(2)
    return waves


def basis(height: int, width: int, transform: str) -> Tensor:
    """Orthonormal kernels, slowly varying ones first: [numbers, height · width] float32."""
    if transform == "none":
        return torch.eye(height * width)
    kernels = torch.kron(cosines(height), cosines(width))
    order = sorted(range(len(kernels)), key=lambda index: ((index // width / height) ** 2 + (index % width / width) ** 2, index))
    return kernels[order].float()


class CodesAndCoordinates(nn.Module):
    """Embeds a kernel's coordinate as the kernel that its code gives, followed by sines and cosines of the coordinate.

    The codes of layer i are the parameter `codes<i>` [filters, channels, numbers].
    """

    def __init__(self, grid: KernelGrid, options: Codes) -> None:
        super().__init__()
        self.grid = grid
        counts = (grid.coordinates().amax(0) + 1).tolist()
        powers = options.base ** torch.arange(options.frequencies, dtype=torch.float64)
        for axis, count in enumerate(counts):
            angles = math.pi * torch.arange(count, dtype=torch.float64)[:, None] * powers
            table = torch.cat([angles.sin(), angles.cos()], dim=1).float()
            self.register_buffer(f"table{axis}", table, persistent=False)
        self.numbers = [layer.area if options.numbers is None else min(options.numbers, layer.area) for layer in grid.layers]
        for kernel in {layer.kernel for layer in grid.layers}:
            self.register_buffer(f"basis{kernel[0]}x{kernel[1]}", basis(*kernel, options.transform), persistent=False)
        for index, (layer, count) in enumerate(zip(grid.layers, self.numbers, strict=True)):
            if count:
                self.register_parameter(f"codes{index}", nn.Parameter(torch.zeros(layer.filters, layer.channels, count)))
        places = torch.full((max(layer.layer for layer in grid.layers) + 1, 2), -1)
        for index, layer in enumerate(grid.layers):
            places[layer.layer] = torch.tensor([grid.starts[index], layer.channels])
        self.register_buffer("places", places, persistent=False)
        self.dim = grid.outputs + 3 * 2 * options.frequencies

    def _basis(self, index: int) -> Tensor:
        """The basis of layer `index`, [numbers, kh · kw]: a code holds the coefficients of these kernels."""
        height, width = self.grid.layers[index].kernel
        return self.get_buffer(f"basis{height}x{width}")[: self.numbers[index]]

    def _of_layer(self, index: int) -> Tensor:
        """The kernels that the codes of layer `index` give, [filters · channels, kh · kw]."""
        layer, count = self.grid.layers[index], self.numbers[index]
        if not count:
            return self.get_buffer("table0").new_zeros(layer.count, layer.area)
        codes: Tensor = getattr(self, f"codes{index}")
        return codes.reshape(layer.count, count) @ self._basis(index)

    def kernels(self) -> Tensor:
        """The kernels that all codes give, [rows, k²]; kernels smaller than k × k are centred."""
        layers = enumerate(self.grid.layers)
        return torch.cat([self.grid.pad_up(self._of_layer(index).reshape(layer.count, *layer.kernel)) for index, layer in layers])

    def weights(self) -> Tensor:
        """The kernels that all codes give, one after the other without padding, [weights]."""
        with torch.autocast(self.get_buffer("places").device.type, enabled=False):
            return torch.cat([self._of_layer(index).reshape(-1) for index in range(len(self.grid.layers))])

    def _some_kernels(self, coordinates: Tensor) -> Tensor:
        """The kernels that the codes at some coordinates [n, 3] give, [n, k²]: computed for these alone."""
        kernels = self.get_buffer("table0").new_zeros(len(coordinates), self.grid.outputs)
        for index, (layer, count) in enumerate(zip(self.grid.layers, self.numbers, strict=True)):
            here = (coordinates[:, 0] == layer.layer).nonzero().squeeze(1)
            if count and len(here):
                filters, channels = coordinates[here, 1], coordinates[here, 2]
                chosen = getattr(self, f"codes{index}").flatten(0, 1).index_select(0, filters * layer.channels + channels)
                small = (chosen @ self._basis(index)).reshape(len(here), *layer.kernel)
                kernels = kernels.index_copy(0, here, self.grid.pad_up(small))
        return kernels

    @torch.no_grad()
    def represent(self, kernels: list[Tensor]) -> None:
        """Set the codes to those that come nearest to the kernels [filters · channels, kh, kw] of each layer."""
        for index, (layer, count) in enumerate(zip(self.grid.layers, self.numbers, strict=True)):
            if count:
                code = kernels[index].flatten(1) @ self._basis(index).T
                getattr(self, f"codes{index}").copy_(code.reshape(layer.filters, layer.channels, count))

    def forward(self, coordinates: Tensor) -> Tensor:
        """[n, 3] int64 → [n, k² + 6 · frequencies]."""
        with torch.autocast(coordinates.device.type, enabled=False):
            if len(coordinates) <= FEW and coordinates.device.type == "cpu":
                coded = self._some_kernels(coordinates)
            else:
                start, channels = self.get_buffer("places")[coordinates[:, 0]].unbind(1)
                # index_select instead of brackets, whose backward pass adds one row after the other
                coded = self.kernels().index_select(0, start + coordinates[:, 1] * channels + coordinates[:, 2])
            waves = [F.embedding(coordinates[:, axis], self.get_buffer(f"table{axis}")) for axis in range(3)]
            return torch.cat([coded, *waves], dim=1)


@attrs.frozen
class Codes(Embedding):
    """A trained code of a few numbers for every kernel, as in transform coding, followed by sines and cosines of its coordinate.

    Use it with the predictor `codes`. With no numbers for each kernel it is the paper's NeRN; with no frequencies it is transform
    coding; in between, a kernel is predicted from its coordinate and corrected by its code.
    """

    numbers: int | None = option(
        None, help="numbers in a kernel's code, low frequencies first; null for as many as the kernel has weights", check=at_least(0)
    )
    transform: Literal["dct", "none"] = option(
        "dct", help="meaning of a code's numbers: coefficients of cosines over the kernel's height and width, or the weights themselves"
    )
    frequencies: int = option(
        0, help="frequencies of the sines and cosines of each coordinate that follow the code, 0 for none", check=at_least(0)
    )
    base: float = option(0.76, help="ratio of neighbouring frequencies", check=above(0))

    def build(self, grid: KernelGrid) -> nn.Module:
        if not all(type(layer).coordinates is LayerMapping.coordinates for layer in grid.layers):
            raise ConfigError("embedding codes: the architecture maps kernels to coordinates of its own; take another embedding")
        if grid.small_kernels != "centre":
            raise ConfigError(f"embedding codes: small_kernels must be centre, got {grid.small_kernels}")
        return CodesAndCoordinates(grid, self)

    def initialise(self, module: nn.Module, kernels: list[Tensor]) -> None:
        """Initialise the codes with those of the original kernels."""
        assert isinstance(module, CodesAndCoordinates)
        module.represent(kernels)


@hookimpl
def nern_embeddings() -> Mapping[str, type[Embedding]]:
    return {"codes": Codes}
