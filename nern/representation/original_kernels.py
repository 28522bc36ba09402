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

    They are stored without padding, one kernel after the other. Where kernels differ in size, those of a sample are padded when
    they are used. All kernels together come in groups of equal size (`Kernels.parts`), since padding would waste much memory where
    most kernels of a network are 1 × 1 and the largest is 7 × 7.

    Args:
        masks: see `Representation.keep_zeros`; losses do not count the weights that stay zero.
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
        """These kernels minus weights of all rows [weights], kernel after kernel."""
        rest = copy.copy(self)
        rest._flat = self._flat - flat
        return rest

    def weights_in_rows(self, scales: Tensor | None = None) -> Tensor:
        """All original kernels [rows, k²]; where kernels differ in size, the unpadded weights reshaped to rows of k².

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
        """The original kernels of some rows, or of all rows."""
        if rows is None and self._mixed:
            return self._grouped(self._flat)
        return self._kernels(self.places.gather(self._flat, rows), rows, self._kept(rows))

    def predicted(self, outputs: Tensor, rows: Tensor | None = None) -> Kernels:
        """Turn predictor outputs [m, k²] of some rows, or of all, into kernels: entries outside a smaller kernel become zero."""
        if rows is None and self._mixed:
            return self.of_weights(self.grid.unpadded(outputs))
        values = outputs if rows is None or not self._mixed else self._shaped(outputs, rows)
        kept = self._kept(rows)
        return self._kernels(values if kept is None else values * kept, rows, kept)

    def of_weights(self, flat: Tensor) -> Kernels:
        """Turn predicted weights of all rows [weights] into kernels."""
        if self._mixed:
            return self._grouped(flat if self._mask is None else flat * self._mask)
        return self.predicted(flat.reshape(self.grid.rows, self.grid.outputs))

    def with_sample(self, flat: Tensor, outputs: Tensor, rows: Tensor) -> Tensor:
        """Predicted weights of all rows [weights], where only the weights of the sample carry gradient.

        Args:
            flat: predictions of all rows without gradient.
            outputs: predictor outputs of the sample [m, k²].
            rows: rows of the sample [m] int64.
        """
        # A kernel that was drawn twice gets the gradient of the networks only once.
        ordered, order = rows.sort(stable=True)
        last = torch.ones_like(ordered, dtype=torch.bool)
        last[:-1] = ordered[1:] != ordered[:-1]
        outputs = torch.where(torch.empty_like(last).index_copy_(0, order, last).unsqueeze(1), outputs, outputs.detach())
        if not self._mixed:
            return flat.reshape(self.grid.rows, -1).index_copy(0, rows, outputs).reshape(-1)
        at, there = self.places(rows)
        shaped = self._shaped(outputs, rows)
        # the padding of a smaller kernel is at its first weight, and leaves that as it is
        first = shaped.detach().gather(1, there.int().argmax(1, keepdim=True))
        return flat.index_copy(0, at.reshape(-1), torch.where(there, shaped, first).reshape(-1))

    def _grouped(self, flat: Tensor) -> Kernels:
        """All kernels in groups of equal size, without padding."""
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
        """Mask of the weights that are not kept zero [m, k²] bool; None where no weight is."""
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
        # Every size is computed for all rows, since asking the device which rows have it would stall
        for number, kernel in enumerate(self.places.sizes):
            shaped = torch.where(size == number, grid.pad_up(grid.sample_down(outputs, kernel)), shaped)
        return shaped

    def _layerwise(self, flat: Tensor) -> tuple[Tensor, ...]:
        """Split a vector [weights] into the parts of the layers."""
        return torch.split(flat, [layer.count * layer.area for layer in self.grid.layers])
