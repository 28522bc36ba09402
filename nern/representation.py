"""The trained thing: kernels from coordinates, and the network from kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from nern.coordinates import KernelGrid
from nern.embedded import AxisTables, Lookup
from nern.interfaces import Kernels
from nern.ordering import LayerOrder


class Representation(nn.Module):
    """A predictor, its embedding, and the order in which predicted kernels fill the network.

    Args:
        embedding: module from coordinates [n, 3] to [n, d].
        predictor: module from [n, d] to [n, k²].
        grid: the represented kernels.
        orders: one per layer of the grid.
    """

    coordinates: Tensor
    places: Tensor

    def __init__(self, embedding: nn.Module, predictor: nn.Module, grid: KernelGrid, orders: Sequence[LayerOrder]) -> None:
        super().__init__()
        self.embedding, self.predictor = embedding, predictor
        self.grid, self.orders = grid, list(orders)
        self.register_buffer("coordinates", grid.coordinates().int(), persistent=False)
        self.register_buffer("places", _inverse(grid, self.orders), persistent=False)

    def keep_zeros(self, masks: Mapping[str, Tensor]) -> None:
        """From now on, weights are zero wherever `masks` (parameter name → bool of the weight's shape) are false."""
        for index, layer in enumerate(self.grid.layers):
            if layer.parameter in masks:
                self.register_buffer(f"mask{index}", masks[layer.parameter].to(self.coordinates.device), persistent=False)

    @property
    def masks(self) -> dict[str, Tensor]:
        """What `keep_zeros` was given, in the order of the layers."""
        found = {layer.parameter: self._buffers.get(f"mask{index}") for index, layer in enumerate(self.grid.layers)}
        return {name: mask for name, mask in found.items() if mask is not None}

    def embed(self, rows: Tensor | None = None) -> Tensor | Lookup:
        """Embedded coordinates of some rows [m] int64, or of all."""
        coordinates = (self.coordinates if rows is None else self.coordinates[rows]).long()
        if getattr(self.predictor, "accepts_lookup", False) and hasattr(self.embedding, "tables"):
            make: Callable[[], AxisTables] = self.embedding.tables  # type: ignore[assignment]
            return Lookup(make(), coordinates)
        embedded: Tensor = self.embedding(coordinates)
        return embedded

    def predict(self, rows: Tensor | None = None) -> Tensor:
        """Predicted kernels [m, k²] of some rows, or of all, in coordinate order."""
        outputs: Tensor = self.predictor(self.embed(rows))
        return outputs.float()

    def weights(self, outputs: Tensor) -> dict[str, Tensor]:
        """Predictions for all rows [rows, k²] → convolution weights by parameter name, differentiable."""
        ordered = outputs.index_select(0, self.places)
        weights, masks = {}, self.masks
        for index, layer in enumerate(self.grid.layers):
            kernels = ordered[self.grid.starts[index] : self.grid.starts[index + 1]]
            weight = layer.join(self.grid.sample_down(kernels, layer.kernel))
            mask = masks.get(layer.parameter)
            weights[layer.parameter] = weight if mask is None else torch.where(mask, weight, torch.zeros_like(weight))
        return weights

    @torch.no_grad()
    def reconstruct(self, chunk: int = 1 << 16) -> dict[str, Tensor]:
        """All represented weights, predicted in float32 and `chunk` rows at a time."""
        device = self.coordinates.device
        with torch.autocast(device.type, enabled=False):
            starts = range(0, self.grid.rows, chunk)
            parts = [self.predict(torch.arange(start, min(start + chunk, self.grid.rows), device=device)) for start in starts]
            return self.weights(torch.cat(parts))


class KernelSet:
    """The original network's kernels in coordinate order, and views of predictions in the same shape.

    Args:
        masks: see `Representation.keep_zeros`; weights that stay zero do not count.
    """

    def __init__(
        self,
        grid: KernelGrid,
        parameters: dict[str, Tensor],
        orders: Sequence[LayerOrder],
        device: torch.device,
        masks: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.grid = grid
        self.values = grid.gather(parameters, orders).to(device)
        self.layers = grid.layer_of_rows().to(device)
        self.counts = grid.counts().to(device)
        self._mask: Tensor | None = None
        if masks:
            everywhere = {layer.parameter: torch.ones(layer.shape) for layer in grid.layers}
            self._mask = grid.gather({**everywhere, **{name: mask.float() for name, mask in masks.items()}}, orders).to(device)
            self.counts = self._mask.sum(1)
        self._all = torch.arange(grid.rows, device=device)
        self._sizes = list(dict.fromkeys(layer.kernel for layer in grid.layers))
        self._size_of_layer = torch.tensor([self._sizes.index(layer.kernel) for layer in grid.layers], device=device)
        self._mixed = self._sizes != [grid.size]

    def real(self) -> Tensor:
        """All original kernels [rows, k²]; where they differ in size, their weights without padding, in rows of k²."""
        if not self._mixed:
            return self.values
        parts = []
        for index, layer in enumerate(self.grid.layers):
            (height, width), (kh, kw) = self.grid.size, layer.kernel
            top, left = (height - kh) // 2, (width - kw) // 2
            kernels = self.values[self.grid.starts[index] : self.grid.starts[index + 1]].reshape(-1, height, width)
            parts.append(kernels[:, top : top + kh, left : left + kw].reshape(-1))
        weights = torch.cat(parts)
        whole = max(1, len(weights) // self.grid.outputs)
        return weights[: whole * self.grid.outputs].reshape(whole, -1)

    def original(self, rows: Tensor | None = None) -> Kernels:
        """The original kernels of some rows, or of all."""
        if rows is None:
            return Kernels(self.values, self._all, self.layers, self.counts)
        return Kernels(self.values[rows], rows, self.layers[rows], self.counts[rows])

    def predicted(self, outputs: Tensor, rows: Tensor | None = None) -> Kernels:
        """Predictor outputs [m, k²] of the same rows as kernels: what smaller kernels do not use is zero."""
        index, layers, counts = (self._all, self.layers, self.counts) if rows is None else (rows, self.layers[rows], self.counts[rows])
        values = self._shaped(outputs, layers) if self._mixed else outputs
        return Kernels(values if self._mask is None else values * self._mask[index], index, layers, counts)

    def _shaped(self, outputs: Tensor, layers: Tensor) -> Tensor:
        size, shaped = self._size_of_layer[layers].unsqueeze(1), torch.zeros_like(outputs)
        for number, kernel in enumerate(self._sizes):  # every size for all rows: which rows have it, only the device knows
            shaped = torch.where(size == number, self.grid.pad_up(self.grid.sample_down(outputs, kernel)), shaped)
        return shaped


def _inverse(grid: KernelGrid, orders: Sequence[LayerOrder]) -> Tensor:
    """[rows] int64: for every original kernel, the row that predicts it."""
    places = torch.empty(grid.rows, dtype=torch.int64)
    for index, order in enumerate(orders):
        start, end = grid.starts[index], grid.starts[index + 1]
        places[start + order.indices()] = torch.arange(start, end)
    return places
