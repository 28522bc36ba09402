"""The trained representation: predicts kernels from coordinates, and rebuilds the network's weights from kernels."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import attrs
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nern.errors import ConfigError
from nern.kernels.coordinates import KernelGrid, KernelGroup, RowTable
from nern.kernels.orders import LayerOrder, Unordered
from nern.representation.groups import RowGroups, Wants
from nern.representation.lookup import AxisTables, Block, Lookup
from nern.representation.quantization import NumberFormat
from nern.representation.trained_copies import TrainedCopies
from nern.support.showing import Shown
from nern.support.subsets import takes

#: Kernels of a layer whose embedding is computed filter by filter and channel by channel, not looked up for each kernel.
LARGE_LAYER = 1 << 13


@attrs.frozen
class _Part:
    """Consecutive rows whose kernels have one size."""

    group: KernelGroup
    start: int  # first row
    end: int  # last row + 1
    block: Block | None = None  # the filters that these are, where they are whole filters of a layer

    def rows(self, device: torch.device) -> Tensor:
        """[m] int64."""
        return torch.arange(self.start, self.end, device=device)


class Representation(Shown, nn.Module):
    """A predictor, its embedding, and the order in which predicted kernels fill the network.

    Only the order, and a base where there is one, grow with the network: coordinates are computed when they are needed.

    Args:
        embedding: module from coordinates [n, 3] to [n, d].
        predictor: module from [n, d] to [n, k²].
        grid: the represented kernels.
        orders: one per layer of the grid.
        base: module from rows [n] to [n, k²], which is added to predictions; None where nothing is.
    """

    scales: Tensor | None

    def __init__(
        self, embedding: nn.Module, predictor: nn.Module, grid: KernelGrid, orders: Sequence[LayerOrder], base: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.embedding, self.predictor, self.base = embedding, predictor, base
        self.grid, self.orders = grid, list(orders)
        self.table = RowTable(grid)
        self.wants: Wants = getattr(predictor, "wants", "rows")
        self._groups: RowGroups | None = None
        self._offered = [name for name in ("rows", "groups") if takes(predictor.forward, name)]
        self._narrows = takes(predictor.forward, "columns")
        self._columns: dict[tuple[int, int], Tensor] = {}  # of kernels smaller than the largest
        self.storage = NumberFormat()  # the number format of its file
        self.register_buffer("scales", None)
        self.copies: TrainedCopies | None = None
        for index, order in enumerate(self.orders):
            if not isinstance(order, Unordered):
                self.register_buffer(f"places{index}", _inverse(order), persistent=False)

    def __repr__(self) -> str:
        count = sum(value.numel() for value in self.parameters())
        predictor, embedding = type(self.predictor).__name__, type(self.embedding).__name__
        based = "" if self.base is None else f" on {type(self.base).__name__}"
        return f"Representation by {predictor} of {embedding}{based}: {count:,} parameters as {self.storage.name}, for {self.grid!r}"

    def keep_zeros(self, masks: Mapping[str, Tensor]) -> None:
        """Keep weights at zero from now on wherever `masks` (parameter name → bool of the weight's shape) are false."""
        for index, layer in enumerate(self.grid.layers):
            if layer.parameter in masks:
                self.register_buffer(f"mask{index}", masks[layer.parameter].to(self.device), persistent=False)

    def scale(self, scales: Tensor) -> None:
        """Multiply predictions of layer i by `scales[i]` from now on; the scales are stored with the parameters."""
        self.register_buffer("scales", scales.to(self.device, torch.float32))

    def train_copies(self, values: Mapping[str, Tensor], form: str = "exact") -> None:
        """Train these copied parameters (name → value), too, from now on; rebuilt networks then have the trained values.

        Args:
            form: how a file stores them unless they are entropy-coded: exact, float16 or int8.
        """
        self.copies = TrainedCopies(values, form).to(self.device) if values else None

    def round(self) -> None:
        """Round the parameters to the values that a file stores.

        Raises:
            TrainingError: a parameter is too large for the type.
        """
        self.storage.round(self.own_parameters())
        if self.copies is not None and not self.storage.is_coded:
            self.copies.round()

    def own_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters of embedding, predictor and base, by name."""
        return ((name, value) for name, value in self.named_parameters() if not name.startswith("copies."))

    @property
    def device(self) -> torch.device:
        """The device that the representation is on."""
        return self.table.starts.device

    @property
    def masks(self) -> dict[str, Tensor]:
        """The masks that `keep_zeros` set, in the order of the layers."""
        masks = {layer.parameter: self._buffers.get(f"mask{index}") for index, layer in enumerate(self.grid.layers)}
        return {name: mask for name, mask in masks.items() if mask is not None}

    def embed(self, rows: Tensor | None = None, block: Block | None = None) -> Tensor | Lookup:
        """Embedded coordinates of some rows [m] int64, or of all rows.

        Args:
            block: whole filters of a layer in place of rows, where the embedding gives its tables to the predictor.
        """
        if self._looks_up:
            make: Callable[[], AxisTables] = self.embedding.tables  # type: ignore[assignment]
            return Lookup(make(), self.table.coordinates(rows) if block is None else partial(block.coordinates, self.device), block)
        embedded: Tensor = self.embedding(self.table.coordinates(rows))
        return embedded

    def raw(self, rows: Tensor | None = None) -> Tensor:
        """The predictor's outputs [m, k²] for some rows, or for all, in its own dtype and without scales and base."""
        outputs: Tensor = self.predictor(self.embed(rows), **self._places(rows))
        return outputs

    @property
    def _looks_up(self) -> bool:
        """Whether the embedding gives its tables to the predictor."""
        return getattr(self.predictor, "accepts_lookup", False) and hasattr(self.embedding, "tables")

    def predict(self, rows: Tensor | None = None) -> Tensor:
        """Predicted kernels [m, k²] of some rows [m] int64, or of all rows in coordinate order."""
        outputs = self.raw(rows).float()
        scaled = outputs if self.scales is None else outputs * self.scales[self.table.layers(rows)].unsqueeze(1)
        return scaled if self.base is None else scaled + self.added(rows)

    def added(self, rows: Tensor | None = None) -> Tensor:
        """The kernels that the base adds to predictions of some rows, or of all rows: [m, k²] float32."""
        assert self.base is not None
        rows = torch.arange(self.grid.rows, device=self.device) if rows is None else rows
        with torch.autocast(self.device.type, enabled=False):
            added: Tensor = self.base(rows)
        return added.float()

    def predict_at(self, coordinates: Tensor) -> Tensor:
        """Predicted kernels [m, k²] at any coordinates [m, 3], also fractional ones and ones where the network has no kernel.

        Between two kernels, embeddings are interpolated where the embedding allows it, and so are the scales of layers.

        Raises:
            ConfigError: the predictor or a base needs to know which rows of the grid are predicted, or the embedding takes no fractions.
        """
        if self.base is not None:
            raise ConfigError(f"the base {type(self.base).__name__} adds to kernels of the network: it has none at other coordinates")
        if self._offered or self.wants != "rows":
            raise ConfigError("this predictor needs to know which kernels it predicts: it has no kernels at other coordinates")
        try:
            outputs: Tensor = self.predictor(self.embedding(coordinates)).float()
        except (RuntimeError, IndexError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"embedding {type(self.embedding).__name__} takes no such coordinates ({reason})") from error
        if self.scales is None:
            return outputs
        layer = coordinates[:, 0].to(self.scales.dtype).clamp(0, len(self.scales) - 1)
        below, above = self.scales[layer.floor().long()], self.scales[layer.ceil().long()]
        return outputs * (below + (above - below) * layer.frac()).unsqueeze(1)

    @property
    def groups(self) -> RowGroups | None:
        """The groups of kernels that are predicted together, where the predictor wants whole filters or layers; None otherwise."""
        if self.wants == "rows":
            return None
        if self._groups is None or self._groups.sizes.device != self.device:
            self._groups = RowGroups(self.grid, self.wants, self.device)
        return self._groups

    def first_rows(self, count: int) -> Tensor:
        """About `count` rows [m] int64 from the first on, of which none is predicted together with rows that are missing."""
        rows = torch.arange(self.grid.rows, device=self.device)
        return rows[: count if self.groups is None else self.groups.cuts(rows, count)[1]]

    def _places(self, rows: Tensor | None) -> dict[str, Tensor]:
        """The further arguments that the predictor takes: the `rows`, and the `groups` that these belong to."""
        if not self._offered:
            return {}
        rows = torch.arange(self.grid.rows, device=self.device) if rows is None else rows
        groups = self.groups
        offered = {"rows": rows, "groups": rows if groups is None else groups.of(rows)}
        return {name: offered[name] for name in self._offered}

    @torch.no_grad()
    def predict_in_chunks(self, rows: Tensor | None = None, chunk: int = 1 << 16) -> Tensor:
        """`predict` without gradient, `chunk` rows at a time, so that memory does not grow with the network."""
        rows = torch.arange(self.grid.rows, device=self.device) if rows is None else rows
        kernels = torch.empty(len(rows), self.grid.outputs, device=self.device)
        for start, end in itertools.pairwise(self._cuts(rows, chunk)):
            kernels[start:end] = self.predict(rows[start:end])
        return kernels

    def _cuts(self, rows: Tensor, chunk: int) -> list[int]:
        """Positions that cut rows into parts of about `chunk` rows, including both ends; groups that are predicted together stay whole."""
        groups = self.groups
        return [*range(0, len(rows), chunk), len(rows)] if groups is None else groups.cuts(rows, chunk)

    @torch.no_grad()
    def predict_weights(self, chunk: int = 1 << 16) -> Tensor:
        """Every predicted weight [weights], kernel after kernel without padding, `chunk` kernels at a time and without gradient."""
        return self._every_weight(self._kernels, chunk)

    @torch.no_grad()
    def added_weights(self, chunk: int = 1 << 16) -> Tensor:
        """The number that the base adds to every weight [weights], kernel after kernel without padding, and without gradient."""
        return self._every_weight(lambda part: self.grid.sample_down(self.added(part.rows(self.device)), part.group.kernel), chunk)

    def _every_weight(self, kernels_of: Callable[[_Part], Tensor], chunk: int) -> Tensor:
        """[weights] from a function of rows whose kernels have one size, about `chunk` of them at a time."""
        whole = self.predict_whole()
        if whole is not None:
            return whole
        flat = torch.empty(self.grid.weights, device=self.device)
        for part in self._parts(chunk):
            kernels = kernels_of(part)
            at = part.group.first + (part.start - part.group.start) * part.group.area
            flat[at : at + kernels.numel()] = kernels.reshape(-1)
        return flat

    def _parts(self, chunk: int) -> Iterator[_Part]:
        """All rows in parts of about `chunk`, each of kernels of one size; those of large layers are whole filters."""
        blocks = self._looks_up and self.wants == "rows" and self.table.stored is None
        for group in self.grid.groups:
            start = group.start  # of the rows that are not given yet
            inside = [i for i, first in enumerate(self.grid.starts[:-1]) if group.start <= first < group.end] if blocks else []
            for index in inside:
                layer, first = self.grid.layers[index], self.grid.starts[index]
                if len(inside) > 1 and layer.count < LARGE_LAYER:  # small layers are predicted together
                    continue
                yield from self._cut_rows(group, start, first, chunk)
                filters = max(1, chunk // layer.channels)
                for begin in range(0, layer.filters, filters):
                    some = range(begin, min(begin + filters, layer.filters))
                    rows = first + some.start * layer.channels, first + some.stop * layer.channels
                    yield _Part(group, *rows, Block(layer.layer, some, layer.channels))
                start = first + layer.count
            yield from self._cut_rows(group, start, group.end, chunk)

    def _cut_rows(self, group: KernelGroup, start: int, end: int, chunk: int) -> Iterator[_Part]:
        if start < end:
            for first, last in itertools.pairwise(self._cuts(torch.arange(start, end, device=self.device), chunk)):
                yield _Part(group, start + first, start + last)

    def predict_whole(self) -> Tensor | None:
        """Every predicted weight [weights] at once, differentiable, where the predictor can give unpadded kernels (`whole`).

        None where it cannot, and where there is a base.
        """
        whole = getattr(self.predictor, "whole", None) if self.base is None else None
        flat: Tensor | None = None if whole is None else whole(self.embedding)
        if flat is None or self.scales is None:
            return flat
        counts = torch.tensor([layer.count * layer.area for layer in self.grid.layers], device=self.device)
        return flat * self.scales.repeat_interleave(counts, output_size=len(flat))

    def predict_piecewise(self, chunk: int = 1 << 16) -> Tensor:
        """Every predicted weight [weights], differentiable, `chunk` kernels at a time.

        The backward pass predicts each part again in place of keeping what the predictor computed, which takes gigabytes for a
        large network (activation checkpointing; Chen et al. 2016).
        """
        pieces = [checkpoint(self._kernels, part, use_reentrant=False).reshape(-1) for part in self._parts(chunk)]
        return torch.cat(pieces)

    def _kernels(self, part: _Part) -> Tensor:
        """Predicted kernels [m, kh, kw] of rows whose kernels have one size; the middle is cut out before anything else is done."""
        kernel, device = part.group.kernel, self.device
        if self.grid.small_kernels != "centre":
            return self.grid.sample_down(self.predict(part.rows(device)), kernel)
        embedded = self.embed(None if part.block else part.rows(device), part.block)
        places = self._places(part.rows(device)) if self._offered else {}
        if self._narrows and kernel != self.grid.size:
            outputs: Tensor = self.predictor(embedded, columns=self._columns_of(kernel), **places)
            kernels = outputs.reshape(-1, *kernel).float()
        else:
            kernels = self.grid.sample_down(self.predictor(embedded, **places), kernel).float()
        scaled = kernels if self.scales is None else kernels * self.scales[self.table.layers(part.rows(device))].view(-1, 1, 1)
        return scaled if self.base is None else scaled + self.grid.sample_down(self.added(part.rows(device)), kernel)

    def _columns_of(self, kernel: tuple[int, int]) -> Tensor:
        """Which of the k² outputs a smaller kernel takes, [kh · kw] int64."""
        columns = self._columns.get(kernel)
        if columns is None or columns.device != self.device:
            every = torch.arange(self.grid.outputs, device=self.device).unsqueeze(0)
            columns = self._columns[kernel] = self.grid.sample_down(every, kernel).reshape(-1)
        return columns

    def weights(self, outputs: Tensor) -> dict[str, Tensor]:
        """Turn predictions for all rows into weights by parameter name, differentiable.

        Trained copied parameters are among them.

        Args:
            outputs: [rows, k²], or the weights alone [weights], kernel after kernel.
        """
        weights, masks = {}, self.masks
        flat = self.grid.unpadded(outputs) if outputs.dim() == 2 else outputs
        parts = torch.split(flat, [layer.count * layer.area for layer in self.grid.layers])
        for index, (layer, part) in enumerate(zip(self.grid.layers, parts, strict=True)):
            kernels = part.reshape(layer.count, *layer.kernel)
            places = self._buffers.get(f"places{index}")
            if places is not None:
                kernels = kernels.index_select(0, places)
            weight = layer.join(kernels)
            mask = masks.get(layer.parameter)
            weights[layer.parameter] = weight if mask is None else torch.where(mask, weight, torch.zeros_like(weight))
        return weights if self.copies is None else {**weights, **self.copies()}

    @torch.no_grad()
    def reconstruct(self, chunk: int = 1 << 16) -> dict[str, Tensor]:
        """All represented weights, predicted in float32 and `chunk` rows at a time."""
        with torch.autocast(self.device.type, enabled=False):
            return self.weights(self.predict_weights(chunk))


def _inverse(order: LayerOrder) -> Tensor:
    """[kernels] int32: for every original kernel of a layer, the position at which it is predicted."""
    indices = order.indices()
    places = torch.empty(len(indices), dtype=torch.int32)
    places[indices] = torch.arange(len(indices), dtype=torch.int32)
    return places
