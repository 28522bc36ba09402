"""The names, shapes and types of a network's state dict; a file with them gives the state dict without the network's code."""

from __future__ import annotations

import json
import lzma
import math
from collections.abc import Mapping, Sequence

import attrs
import torch
from torch import Tensor, nn

from nern.kernels.coordinates import KernelGrid
from nern.networks.mappings import MAPPINGS

MOST_BYTES = 1 << 22  # bytes that unpacked names and shapes may take at most
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 20, "pb": 0}]


@attrs.frozen
class Entry:
    """One entry of a state dict."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    layer: int | None  # position of the represented layer that predicts it; None for a copied entry

    @property
    def numel(self) -> int:
        """How many numbers the entry has."""
        return math.prod(self.shape)


def entries_of(network: nn.Module, grid: KernelGrid, dtypes: Mapping[str, torch.dtype]) -> list[Entry]:
    """The entries of a network's state dict, in its order; the names of a shared weight all point to the same layer.

    Args:
        dtypes: the type of each entry in the original weights.
    """
    state = network.state_dict(keep_vars=True)
    layers = {id(state[layer.parameter]): index for index, layer in enumerate(grid.layers)}
    return [Entry(name, tuple(value.shape), dtypes[name], layers.get(id(value))) for name, value in state.items()]


def pack_entries(entries: Sequence[Entry], grid: KernelGrid) -> Tensor | None:
    """Entries and mappings as compressed JSON, uint8 [bytes]; None where one of the mappings is a plugin's own class.

    All names come first, then all shapes, types and layers, since similar things beside each other compress best.
    """
    kinds = {cls: kind for kind, cls in MAPPINGS.items()}
    if not all(type(layer) in kinds for layer in grid.layers):
        return None
    types = list(dict.fromkeys(entry.dtype for entry in entries))
    firsts = {entry.layer: index for index, entry in reversed(list(enumerate(entries)))}
    columns = [
        "\n".join(entry.name for entry in entries),
        [entry.shape for entry in entries],
        [str(dtype).removeprefix("torch.") for dtype in types],
        [types.index(entry.dtype) for entry in entries],
        [entry.layer for entry in entries],
        [[kinds[type(layer)], firsts[index], *attrs.astuple(layer)[2:]] for index, layer in enumerate(grid.layers)],
    ]
    text = json.dumps(columns, separators=(",", ":")).encode()
    return torch.frombuffer(bytearray(lzma.compress(text, lzma.FORMAT_RAW, filters=_FILTERS)), dtype=torch.uint8)


def unpack_entries(packed: Tensor, small_kernels: str) -> tuple[list[Entry], KernelGrid]:
    """Undo `pack_entries`.

    Raises:
        ValueError: the bytes do not hold entries.
    """
    reader = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS)
    try:
        text = reader.decompress(packed.numpy().tobytes(), MOST_BYTES)
    except (lzma.LZMAError, EOFError) as error:
        raise ValueError(f"the names of the network's entries cannot be read ({error})") from error
    if not reader.eof:
        raise ValueError("the names of the network's entries are cut off or too long")
    names, shapes, types, numbers, positions, mappings = json.loads(text)
    dtypes = [dtype_of(name) for name in types]
    columns = zip(names.split("\n"), shapes, numbers, positions, strict=True)
    entries = [Entry(name, _shape(shape), dtypes[number], layer) for name, shape, number, layer in columns]
    layers = []
    for kind, first, layer, *more in mappings:
        entry = entries[first]
        layers.append(MAPPINGS[kind](entry.name, entry.shape, int(layer), *more))
    return entries, KernelGrid(tuple(layers), small_kernels)


def _shape(sizes: Sequence[int]) -> tuple[int, ...]:
    if not all(type(size) is int and 0 <= size < 1 << 40 for size in sizes):
        raise ValueError(f"{sizes} is no shape")
    return tuple(sizes)


def dtype_of(name: str) -> torch.dtype:
    """The torch dtype with a name; raises ValueError where there is none."""
    dtype = getattr(torch, name, None) if isinstance(name, str) else None
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"'{name}' is no type of numbers")
    return dtype
