"""The trained thing: kernels from coordinates, and the network from kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from nern.errors import ConfigError
from nern.interfaces import Embedding, Predictor
from nern.kernels.coordinates import KernelGrid, RowTable
from nern.kernels.orders import LayerOrder, Unordered
from nern.representation.lookup import AxisTables, Lookup
from nern.representation.quantization import NumberFormat


class Representation(nn.Module):
    """A predictor, its embedding, and the order in which predicted kernels fill the network.

    Nothing in it grows with the network but the order: coordinates are computed where they are needed.

    Args:
        embedding: module from coordinates [n, 3] to [n, d].
        predictor: module from [n, d] to [n, k²].
        grid: the represented kernels.
        orders: one per layer of the grid.
    """

    scales: Tensor | None

    def __init__(self, embedding: nn.Module, predictor: nn.Module, grid: KernelGrid, orders: Sequence[LayerOrder]) -> None:
        super().__init__()
        self.embedding, self.predictor = embedding, predictor
        self.grid, self.orders = grid, list(orders)
        self.table = RowTable(grid)
        self.storage = NumberFormat()  # how a file holds its numbers
        self.register_buffer("scales", None)
        for index, order in enumerate(self.orders):
            if not isinstance(order, Unordered):
                self.register_buffer(f"places{index}", _inverse(order), persistent=False)

    def keep_zeros(self, masks: Mapping[str, Tensor]) -> None:
        """From now on, weights are zero wherever `masks` (parameter name → bool of the weight's shape) are false."""
        for index, layer in enumerate(self.grid.layers):
            if layer.parameter in masks:
                self.register_buffer(f"mask{index}", masks[layer.parameter].to(self.device), persistent=False)

    def scale(self, scales: Tensor) -> None:
        """From now on, predictions of layer i are multiplied by `scales[i]`; they are stored with the parameters."""
        self.register_buffer("scales", scales.to(self.device, torch.float32))

    def round(self) -> None:
        """Round the parameters to what a file holds of them.

        Raises:
            TrainingError: a parameter is too large for the type.
        """
        self.storage.round(self.named_parameters())

    @property
    def device(self) -> torch.device:
        """Where the predictor is."""
        return self.table.starts.device

    @property
    def masks(self) -> dict[str, Tensor]:
        """What `keep_zeros` was given, in the order of the layers."""
        found = {layer.parameter: self._buffers.get(f"mask{index}") for index, layer in enumerate(self.grid.layers)}
        return {name: mask for name, mask in found.items() if mask is not None}

    def embed(self, rows: Tensor | None = None) -> Tensor | Lookup:
        """Embedded coordinates of some rows [m] int64, or of all."""
        coordinates = self.table.coordinates(rows)
        if getattr(self.predictor, "accepts_lookup", False) and hasattr(self.embedding, "tables"):
            make: Callable[[], AxisTables] = self.embedding.tables  # type: ignore[assignment]
            return Lookup(make(), coordinates)
        embedded: Tensor = self.embedding(coordinates)
        return embedded

    def predict(self, rows: Tensor | None = None) -> Tensor:
        """Predicted kernels [m, k²] of some rows, or of all, in coordinate order."""
        outputs: Tensor = self.predictor(self.embed(rows))
        outputs = outputs.float()
        return outputs if self.scales is None else outputs * self.scales[self.table.layers(rows)].unsqueeze(1)

    @torch.no_grad()
    def predict_in_chunks(self, rows: Tensor | None = None, chunk: int = 1 << 16) -> Tensor:
        """`predict` without gradient, `chunk` rows at a time, so that memory does not grow with the network."""
        rows = torch.arange(self.grid.rows, device=self.device) if rows is None else rows
        kernels = torch.empty(len(rows), self.grid.outputs, device=self.device)
        for start in range(0, len(rows), chunk):
            kernels[start : start + chunk] = self.predict(rows[start : start + chunk])
        return kernels

    def weights(self, outputs: Tensor) -> dict[str, Tensor]:
        """Predictions for all rows [rows, k²] → convolution weights by parameter name, differentiable."""
        weights, masks = {}, self.masks
        for index, layer in enumerate(self.grid.layers):
            kernels = outputs[self.grid.starts[index] : self.grid.starts[index + 1]]
            places = self._buffers.get(f"places{index}")
            if places is not None:
                kernels = kernels.index_select(0, places)
            weight = layer.join(self.grid.sample_down(kernels, layer.kernel))
            mask = masks.get(layer.parameter)
            weights[layer.parameter] = weight if mask is None else torch.where(mask, weight, torch.zeros_like(weight))
        return weights

    @torch.no_grad()
    def reconstruct(self, chunk: int = 1 << 16) -> dict[str, Tensor]:
        """All represented weights, predicted in float32 and `chunk` rows at a time."""
        with torch.autocast(self.device.type, enabled=False):
            return self.weights(self.predict_in_chunks(None, chunk))


def _inverse(order: LayerOrder) -> Tensor:
    """[kernels] int32: for every original kernel of a layer, the place that predicts it."""
    indices = order.indices()
    places = torch.empty(len(indices), dtype=torch.int32)
    places[indices] = torch.arange(len(indices), dtype=torch.int32)
    return places


def assemble(grid: KernelGrid, orders: list[LayerOrder], embedding: Embedding, predictor: Predictor) -> Representation:
    """A representation with fresh modules.

    Raises:
        ConfigError: the embedding or predictor does not keep its contract.
    """
    embed = embedding.build(grid)
    if not isinstance(getattr(embed, "dim", None), int):
        raise ConfigError(f"embedding {type(embedding).__name__}: the built module needs an attribute 'dim' (int)")
    representation = Representation(embed, predictor.build(int(embed.dim), grid.outputs), grid, orders)  # type: ignore[arg-type]
    with torch.no_grad():
        shape = list(representation.eval().predict(torch.zeros(2, dtype=torch.int64)).shape)
    if shape != [2, grid.outputs]:
        raise ConfigError(f"predictor {type(predictor).__name__}: two coordinates must give [2, {grid.outputs}], gave {shape}")
    return representation.train()
