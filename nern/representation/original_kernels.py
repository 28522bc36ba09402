"""The original network's kernels, in the order in which the representation predicts them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import cache, partial

import torch
from torch import Tensor

from nern.interfaces import Kernels, PaddedValues
from nern.kernels.coordinates import KernelGrid
from nern.kernels.orders import LayerOrder
from nern.kernels.weight_places import WeightPlaces


class OriginalKernels:
    """The original network's kernels in coordinate order, and views of predictions in the same shape.

    They are held as their weights alone, one kernel after the other. Where kernels differ in size, those of a sample are
    padded when they are looked at; all of them together come in groups of one size (`Kernels.parts`), since most kernels of
    a network may be 1 × 1 and the largest 7 × 7.

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
        self.places = WeightPlaces(grid).to(device)
        self.table = self.places.table
        self.rows = torch.arange(grid.rows, device=device)
        self._flat = grid.flatten(parameters, orders).to(device)
        self._mask: Tensor | None = None
        if masks:
            everywhere = {layer.parameter: torch.ones(layer.shape, dtype=torch.bool) for layer in grid.layers}
            self._mask = grid.flatten({**everywhere, **masks}, orders).to(device)
        self._mixed = self.places.mixed

    def less(self, flat: Tensor) -> OriginalKernels:
        """What is left of these kernels without weights of all rows [weights], kernel after kernel."""
        rest = copy.copy(self)
        rest._flat = self._flat - flat
        return rest

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
        if rows is None and self._mixed:
            return self._grouped(self._flat)
        return self._kernels(self.places.gather(self._flat, rows), rows, self._kept(rows))

    def predicted(self, outputs: Tensor, rows: Tensor | None = None) -> Kernels:
        """Predictor outputs [m, k²] of the same rows as kernels: what smaller kernels do not use is zero."""
        if rows is None and self._mixed:
            return self.of_weights(self.grid.unpadded(outputs))
        values = outputs if rows is None or not self._mixed else self._shaped(outputs, rows)
        kept = self._kept(rows)
        return self._kernels(values if kept is None else values * kept, rows, kept)

    def of_weights(self, flat: Tensor) -> Kernels:
        """Predicted weights of all rows [weights], kernel after kernel, as kernels."""
        if self._mixed:
            return self._grouped(flat if self._mask is None else flat * self._mask)
        return self.predicted(flat.reshape(self.grid.rows, self.grid.outputs))

    def with_sample(self, flat: Tensor, outputs: Tensor, rows: Tensor) -> Tensor:
        """Predicted weights of all rows [weights], of which those of a sample carry gradient.

        Args:
            flat: predictions of all rows without gradient.
            outputs: predictor outputs of the sample [m, k²].
            rows: of the sample [m] int64.
        """
        # A kernel that was drawn twice is the same kernel: the gradient of the networks reaches it once.
        place = torch.arange(len(rows), device=rows.device, dtype=torch.int32)
        last = torch.zeros(self.grid.rows, device=rows.device, dtype=torch.int32).index_put_((rows,), place)
        outputs = torch.where((last[rows] == place).unsqueeze(1), outputs, outputs.detach())
        if not self._mixed:
            return flat.reshape(self.grid.rows, -1).index_copy(0, rows, outputs).reshape(-1)
        at, there = self.places(rows)
        beyond = torch.where(there, at, len(flat))  # where the numbers go that a smaller kernel does not have
        extended = torch.cat([flat, flat.new_zeros(1)])
        return extended.index_copy(0, beyond.reshape(-1), self._shaped(outputs, rows).reshape(-1))[:-1]

    def _grouped(self, flat: Tensor) -> Kernels:
        """All kernels, each size on its own without padding."""
        parts: list[Kernels] = []
        kept = [None] * len(self.grid.groups) if self._mask is None else self.places.by_group(self._mask)
        for group, values, mask in zip(self.grid.groups, self.places.by_group(flat), kept, strict=True):
            count = values.new_full((1,), group.area).expand(group.rows) if mask is None else mask.sum(1).float()
            index = self.rows[group.start : group.end]
            parts.append(Kernels(values, index, partial(self.table.layers, index), count))

        def padded() -> Tensor:
            both = zip(parts, self.grid.groups, strict=True)
            return torch.cat([self.grid.pad_up(part.values.reshape(-1, *group.kernel)) for part, group in both])

        counts = cache(lambda: torch.cat([part.count for part in parts]))
        return Kernels(PaddedValues(tuple(parts), cache(padded)), self.rows, cache(self.table.layers), counts)

    def _kept(self, rows: Tensor | None) -> Tensor | None:
        """Which weights count [m, k²] bool, where some stay zero."""
        return None if self._mask is None else self.places.gather(self._mask, rows)

    def _kernels(self, values: Tensor, rows: Tensor | None, kept: Tensor | None) -> Kernels:
        layers = self.table.layers(rows)
        counts = self.places.areas[layers].float() if kept is None else kept.sum(1).float()
        index = self.rows if rows is None else rows
        return Kernels(values, index, layers, counts)

    def _shaped(self, outputs: Tensor, rows: Tensor) -> Tensor:
        """Predictor outputs of some rows [m, k²] as padded kernels."""
        grid = self.grid
        size, shaped = self.places.size_of_layer[self.table.layers(rows)].unsqueeze(1), torch.zeros_like(outputs)
        for number, kernel in enumerate(self.places.sizes):  # every size for all rows: which rows have it, only the device knows
            shaped = torch.where(size == number, grid.pad_up(grid.sample_down(outputs, kernel)), shaped)
        return shaped

    def _layerwise(self, flat: Tensor) -> tuple[Tensor, ...]:
        """The part of each layer of values held like the weights."""
        return torch.split(flat, [layer.count * layer.area for layer in self.grid.layers])
