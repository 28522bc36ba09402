"""Orders of a layer's kernels: fast greedy paths, their length, and their packing into bits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from math import ceil, log2
from typing import ClassVar

import attrs
import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor


def bits_per_entry(choices: int) -> int:
    """⌈log₂ n⌉: bits that tell `choices` things apart."""
    return ceil(log2(choices)) if choices > 1 else 0


@attrs.frozen(eq=False)
class LayerOrder(ABC):
    """Which original kernel stands at each coordinate of a layer with `filters` × `channels` kernels."""

    filters: int
    channels: int
    kind: ClassVar[str]

    @abstractmethod
    def indices(self) -> Tensor:
        """[filters · channels] int64: at each coordinate in row-major order, the original kernel's index."""

    @abstractmethod
    def fields(self) -> Iterator[tuple[np.ndarray, int]]:
        """What is stored: arrays of integers, each with the bits an entry takes."""

    @classmethod
    @abstractmethod
    def from_bits(cls, filters: int, channels: int, reader: BitReader) -> LayerOrder:
        """Read back what `fields` stored."""

    @property
    def bits(self) -> int:
        """Size of the stored order in bits (Ashkenazi et al. 2023, sec. 3.3)."""
        return sum(values.size * width for values, width in self.fields())


@attrs.frozen(eq=False)
class Unordered(LayerOrder):
    """Every kernel at its own coordinate; nothing is stored."""

    kind: ClassVar[str] = "none"

    def indices(self) -> Tensor:
        return torch.arange(self.filters * self.channels)

    def fields(self) -> Iterator[tuple[np.ndarray, int]]:
        return iter(())

    @classmethod
    def from_bits(cls, filters: int, channels: int, reader: BitReader) -> LayerOrder:
        return cls(filters, channels)


@attrs.frozen(eq=False)
class KernelOrder(LayerOrder):
    """One permutation of all kernels of the layer: F·C·⌈log₂(F·C)⌉ bits (cross-filter)."""

    permutation: Tensor  # [filters · channels] int64
    kind: ClassVar[str] = "kernels"

    def indices(self) -> Tensor:
        return self.permutation

    def fields(self) -> Iterator[tuple[np.ndarray, int]]:
        yield self.permutation.numpy(), bits_per_entry(self.filters * self.channels)

    @classmethod
    def from_bits(cls, filters: int, channels: int, reader: BitReader) -> LayerOrder:
        return cls(filters, channels, reader.permutations(1, filters * channels)[0])


@attrs.frozen(eq=False)
class FilterOrder(LayerOrder):
    """Kernels permuted inside each filter, then whole filters: F·C·⌈log₂ C⌉ + F·⌈log₂ F⌉ bits (in-filter)."""

    inner: Tensor  # [filters, channels] int64: row f orders the kernels of original filter f
    outer: Tensor  # [filters] int64: original filter at each place
    kind: ClassVar[str] = "filters"

    def indices(self) -> Tensor:
        return (self.outer[:, None] * self.channels + self.inner[self.outer]).reshape(-1)

    def fields(self) -> Iterator[tuple[np.ndarray, int]]:
        yield self.inner.reshape(-1).numpy(), bits_per_entry(self.channels)
        yield self.outer.numpy(), bits_per_entry(self.filters)

    @classmethod
    def from_bits(cls, filters: int, channels: int, reader: BitReader) -> LayerOrder:
        inner = reader.permutations(filters, channels)
        return cls(filters, channels, inner, reader.permutations(1, filters)[0])


ORDER_KINDS: dict[str, type[LayerOrder]] = {cls.kind: cls for cls in (Unordered, KernelOrder, FilterOrder)}


# -- packing ---------------------------------------------------------------------------------------------------------


def pack(orders: list[LayerOrder]) -> Tensor:
    """Orders → uint8 [bytes], every entry at its own ⌈log₂ n⌉ bits, most significant bit first, no gaps."""
    parts = [_to_bits(values, width) for order in orders for values, width in order.fields()]
    bits = np.concatenate(parts) if parts else np.zeros(0, np.uint8)
    return torch.from_numpy(np.packbits(bits))


def _to_bits(values: np.ndarray, width: int) -> np.ndarray:
    shifts = np.arange(width - 1, -1, -1)
    return ((values.astype(np.int64)[:, None] >> shifts) & 1).astype(np.uint8).reshape(-1)


class BitReader:
    """Reads packed integers back."""

    def __init__(self, packed: Tensor) -> None:
        self._bits = np.unpackbits(packed.numpy())
        self._at = 0

    def permutations(self, rows: int, length: int) -> Tensor:
        """The next `rows` permutations of `length` entries: [rows, length] int64.

        Raises:
            ValueError: too few bits are left, or the entries are no permutation.
        """
        width = bits_per_entry(length)
        end = self._at + rows * length * width
        if end > len(self._bits):
            raise ValueError("the stored ordering is too short")
        bits = self._bits[self._at : end].reshape(rows, length, width).astype(np.int64)
        self._at = end
        values = bits @ (1 << np.arange(width - 1, -1, -1, dtype=np.int64))
        if not np.array_equal(np.sort(values, axis=1), np.broadcast_to(np.arange(length), (rows, length))):
            raise ValueError("the stored ordering is not a permutation")
        permutations: Tensor = torch.from_numpy(values)
        return permutations

    def finish(self) -> None:
        """Raises ValueError where whole bytes are left over."""
        if len(self._bits) - self._at >= 8:
            raise ValueError("the stored ordering is too long")


# -- paths -----------------------------------------------------------------------------------------------------------


def path_length(vectors: Tensor, path: Tensor | None = None) -> float:
    """Sum of the distances between neighbours on a path through `vectors` [n, d] (cosine; ℓ2 for d = 1)."""
    ordered = vectors.double() if path is None else vectors.double()[path]
    return float(pair_distances(ordered[:-1], ordered[1:]).sum())


def pair_distances(a: Tensor, b: Tensor) -> Tensor:
    """Distance of each pair of kernels [..., d] → [...]: cosine distance, or |a − b| where d = 1."""
    if a.shape[-1] == 1:
        differences: Tensor = (a - b).abs().squeeze(-1)
        return differences
    norms = (a.norm(dim=-1) * b.norm(dim=-1)).clamp_min(1e-12)
    distances: Tensor = 1 - (a * b).sum(-1) / norms
    return distances


def greedy_path(vectors: Tensor) -> Tensor:
    """The greedy nearest-neighbour path: from vector 0, always on to the nearest vector not yet visited.

    Cosine distance for d > 1, ℓ2 for d = 1; among equally near vectors the one with the lowest index. Exact, in float64.
    A k-d tree over the vectors still unvisited, made anew each time half of them are used up, keeps the cost far below
    quadratic and the memory linear.

    Args:
        vectors: [n, d] float.

    Returns:
        [n] int64, a permutation.
    """
    if vectors.dim() != 2:
        raise ValueError(f"vectors must be [n, d], got {list(vectors.shape)}")
    points = vectors.detach().cpu().double().numpy()
    if len(points) <= 2:
        return torch.arange(len(points))
    if points.shape[1] == 1:
        return torch.from_numpy(_walk_line(points[:, 0]))
    norms = np.linalg.norm(points, axis=1, keepdims=True)
    return torch.from_numpy(_walk(points / np.maximum(norms, 1e-12)))


#: Distances closer than this count as equal, so that ties do not hang on rounding.
TIE = 1e-12
_NEIGHBOURS = 12  # nearest neighbours looked up for all points at once, after each rebuild of the tree
_SMALL = 512  # points left at which comparing with all of them is quicker than a tree
_HIGH = 32  # dimensions from which a tree does not pay


def _walk(points: np.ndarray) -> np.ndarray:
    """Greedy path by cosine distance through unit (or zero) vectors [n, d]."""
    n, dimensions = points.shape
    path = np.empty(n, np.int64)
    path[0] = 0
    left = np.arange(1, n)  # unvisited at the last rebuild, ascending
    done = 1
    while done < n:
        small = len(left) <= _SMALL or dimensions > _HIGH
        stretch = _walk_all if small else _walk_tree
        end = n if small else done + len(left) // 2
        visited = stretch(points, left, path, done, end)
        left, done = left[~visited], end
    return path


def _walk_all(points: np.ndarray, left: np.ndarray, path: np.ndarray, done: int, end: int) -> np.ndarray:
    """Fill path[done:end] by comparing with every point left; returns which of `left` were visited."""
    rest = points[left]
    visited = np.zeros(len(left), bool)
    for step in range(done, end):
        distances = 1 - rest @ points[path[step - 1]]
        distances[visited] = np.inf
        at = int(np.argmax(distances <= distances.min() + TIE))
        visited[at] = True
        path[step] = left[at]
    return visited


def _walk_tree(points: np.ndarray, left: np.ndarray, path: np.ndarray, done: int, end: int) -> np.ndarray:
    """The same with a k-d tree over `left`: neighbours of all points in one query, single queries where they run out."""
    rest = points[left]
    visited = np.zeros(len(left), bool)
    zero = ~rest.any(axis=1)  # a zero vector is at distance 1 of everything, which no place in a tree is
    inside = np.flatnonzero(~zero)
    zeros = np.flatnonzero(zero)
    if len(inside) <= _NEIGHBOURS:
        return _walk_all(points, left, path, done, end)
    tree = cKDTree(rest[inside], balanced_tree=False, compact_nodes=True)
    near_distance, near = tree.query(rest[inside], k=_NEIGHBOURS, workers=-1)
    near_distance, near = near_distance**2 / 2, inside[near]
    place = np.full(len(left), -1)
    place[inside] = np.arange(len(inside))
    first_zero, first_any, at = 0, 0, -1
    for step in range(done, end):
        here = points[path[step - 1]]
        if not here.any():
            while visited[first_any]:
                first_any += 1
            at = first_any
        else:
            row = place[at] if at >= 0 else -1
            found, distance = _nearest(near[row], near_distance[row], visited) if row >= 0 else (-1, 0.0)
            width = 4 * _NEIGHBOURS
            while found < 0:
                distances, ids = tree.query(here, k=min(width, len(inside)))
                found, distance = _nearest(inside[ids], distances**2 / 2, visited, complete=width >= len(inside))
                if found < 0 and width >= len(inside):
                    distance = np.inf
                    break
                width *= 4
            while first_zero < len(zeros) and visited[zeros[first_zero]]:
                first_zero += 1
            if first_zero < len(zeros):
                candidate = int(zeros[first_zero])
                if distance > 1 + TIE or (distance >= 1 - TIE and candidate < found):
                    found = candidate
            at = found
        visited[at] = True
        path[step] = left[at]
    return visited


def _nearest(ids: np.ndarray, distances: np.ndarray, visited: np.ndarray, complete: bool = False) -> tuple[int, float]:
    """Lowest index among the nearest unvisited of `ids` (by ascending distance), or -1 where the list cannot tell."""
    free = ~visited[ids]
    first = int(free.argmax())
    if not free[first]:
        return -1, 0.0
    limit = distances[first] + TIE
    if distances[-1] <= limit:
        if not complete:
            return -1, 0.0
        return int(ids[free & (distances <= limit)].min()), float(distances[first])
    if first + 1 < len(ids) and distances[first + 1] > limit:
        return int(ids[first]), float(distances[first])
    return int(ids[free & (distances <= limit)].min()), float(distances[first])


def _walk_line(values: np.ndarray) -> np.ndarray:
    """Greedy path through numbers [n]: the nearest unvisited is the next lower or the next higher value."""
    unique, inverse = np.unique(values, return_inverse=True)
    members = np.argsort(inverse, kind="stable")  # by value, then by index
    starts = np.searchsorted(inverse[members], np.arange(len(unique)))
    ends = np.append(starts[1:], len(values))
    taken = starts.copy()
    lower, higher = np.arange(-1, len(unique) - 1), np.arange(1, len(unique) + 1)  # linked list of values with members left
    path = np.empty(len(values), np.int64)
    here = int(inverse[0])
    path[0] = 0
    taken[here] += 1  # index 0 is the first member of its value
    for step in range(1, len(values)):
        if taken[here] == ends[here]:
            down, up = int(lower[here]), int(higher[here])
            if up < len(unique):
                lower[up] = down
            if down >= 0:
                higher[down] = up
            below = unique[here] - unique[down] if down >= 0 else np.inf
            beyond = unique[up] - unique[here] if up < len(unique) else np.inf
            lower_first = members[taken[down]] < members[taken[up]] if below == beyond else below < beyond
            here = down if lower_first else up
        path[step] = members[taken[here]]
        taken[here] += 1
    return path
