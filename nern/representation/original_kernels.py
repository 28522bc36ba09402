"""The original network's kernels, in the order in which the representation predicts them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nern.interfaces import Kernels
from nern.kernels.coordinates import KernelGrid, RowTable
from nern.kernels.orders import LayerOrder


class OriginalKernels:
    """The original network's kernels in coordinate order, and views of predictions in the same shape.

    They are held as their weights alone, one kernel after the other; smaller ones are padded when they are looked at.

    Args:
        masks: see `Representation.keep_zeros`; weights that stay zero do not count.
    """

    def __init__(
        self,
        grid: KernelGrid,
        parameters: Mapping[str, Tensor],
        orders: Sequence[LayerOrder],
        device: torch.device,
        masks: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.grid, self.device = grid, device
        self.table = RowTable(grid).to(device)
        self.rows = torch.arange(grid.rows, device=device)
        self._flat = grid.flatten(parameters, orders).to(device)
        self._mask: Tensor | None = None
        if masks:
            everywhere = {layer.parameter: torch.ones(layer.shape, dtype=torch.bool) for layer in grid.layers}
            self._mask = grid.flatten({**everywhere, **masks}, orders).to(device)
        self._sizes = list(dict.fromkeys(layer.kernel for layer in grid.layers))
        self._mixed = self._sizes != [grid.size]
        self._areas = torch.tensor([layer.area for layer in grid.layers], device=device)
        weights = self._areas * self.table.counts
        self._firsts = weights.cumsum(0) - weights
        self._size_of_layer = torch.tensor([self._sizes.index(layer.kernel) for layer in grid.layers], device=device)
        # for every size, which of its weights fills each of the k² places; -1 where none does
        self._places = torch.stack([_places(grid, kernel) for kernel in self._sizes]).to(device)

    def weights_in_rows(self, scales: Tensor | None = None) -> Tensor:
        """All original kernels [rows, k²]; where they differ in size, their weights without padding, in rows of k².

        Args:
            scales: what each layer's weights are divided by, [layers].
        """
        flat = self._flat
        if scales is not None:
            flat = torch.cat([part / scale for part, scale in zip(self._layerwise(flat), scales, strict=True)])
        whole = max(1, len(flat) // self.grid.outputs)
        return flat[: whole * self.grid.outputs].reshape(whole, -1)

    def by_layer(self, scales: Tensor | None = None) -> list[Tensor]:
        """The original kernels of each layer [filters · channels, kh, kw], in the order of their coordinates.

        Args:
            scales: what each layer's weights are divided by, [layers].
        """
        parts = zip(self.grid.layers, self._layerwise(self._flat), strict=True)
        kernels = [part.reshape(layer.count, *layer.kernel) for layer, part in parts]
        return kernels if scales is None else [part / scale for part, scale in zip(kernels, scales, strict=True)]

    def scales(self) -> Tensor:
        """Root mean square of each layer's weights [layers]; 1 where all are zero."""
        scales = torch.stack([part.double().square().mean().sqrt() for part in self._layerwise(self._flat)])
        return torch.where(scales > 0, scales, 1.0).float()

    def norms(self) -> Tensor:
        """ℓ2 norm of every kernel [rows] float32."""
        norms = []
        for layer, part in zip(self.grid.layers, self._layerwise(self._flat), strict=True):
            norms.append(part.reshape(layer.count, -1).norm(dim=1))
        return torch.cat(norms)

    def original(self, rows: Tensor | None = None) -> Kernels:
        """The original kernels of some rows, or of all."""
        return self._kernels(self._gathered(self._flat, rows), rows, self._kept(rows))

    def predicted(self, outputs: Tensor, rows: Tensor | None = None) -> Kernels:
        """Predictor outputs [m, k²] of the same rows as kernels: what smaller kernels do not use is zero."""
        values = self._shaped(outputs, rows) if self._mixed else outputs
        kept = self._kept(rows)
        return self._kernels(values if kept is None else values * kept, rows, kept)

    def _kept(self, rows: Tensor | None) -> Tensor | None:
        """Which weights count [m, k²] bool, where some stay zero."""
        return None if self._mask is None else self._gathered(self._mask, rows)

    def _kernels(self, values: Tensor, rows: Tensor | None, kept: Tensor | None) -> Kernels:
        layers = self.table.layers(rows)
        counts = self._areas[layers].float() if kept is None else kept.sum(1).float()
        index = self.rows if rows is None else rows
        return Kernels(values, index, layers, counts)

    def _gathered(self, flat: Tensor, rows: Tensor | None) -> Tensor:
        """Padded kernels [m, k²] of values held like the weights."""
        if not self._mixed:
            kernels = flat.reshape(self.grid.rows, self.grid.outputs)
            return kernels if rows is None else kernels[rows]
        if rows is None:
            parts = zip(self.grid.layers, self._layerwise(flat), strict=True)
            return torch.cat([self.grid.pad_up(part.reshape(layer.count, *layer.kernel)) for layer, part in parts])
        layers = self.table.layers(rows)
        places = self._places[self._size_of_layer[layers]]
        first = self._firsts[layers] + (rows - self.table.starts[layers]) * self._areas[layers]
        found = flat[first.unsqueeze(1) + places.clamp_min(0)]
        return torch.where(places >= 0, found, torch.zeros_like(found))

    def _shaped(self, outputs: Tensor, rows: Tensor | None) -> Tensor:
        grid = self.grid
        if rows is None:
            parts = zip(grid.layers, torch.split(outputs, [layer.count for layer in grid.layers]), strict=True)
            return torch.cat([grid.pad_up(grid.sample_down(part, layer.kernel)) for layer, part in parts])
        size, shaped = self._size_of_layer[self.table.layers(rows)].unsqueeze(1), torch.zeros_like(outputs)
        for number, kernel in enumerate(self._sizes):  # every size for all rows: which rows have it, only the device knows
            shaped = torch.where(size == number, grid.pad_up(grid.sample_down(outputs, kernel)), shaped)
        return shaped

    def _layerwise(self, flat: Tensor) -> tuple[Tensor, ...]:
        """The part of each layer of values held like the weights."""
        return torch.split(flat, [layer.count * layer.area for layer in self.grid.layers])


def _places(grid: KernelGrid, kernel: tuple[int, int]) -> Tensor:
    numbers = torch.arange(1, kernel[0] * kernel[1] + 1).reshape(1, *kernel)
    return grid.pad_up(numbers).squeeze(0) - 1
