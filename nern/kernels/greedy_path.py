"""The greedy path through kernels, in far less than quadratic time."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from nern.kernels.bisection import PART, bisected
from nern.kernels.distances import units
from nern.support.threads import advance

#: Distances that differ by less than this count as equal, so that ties do not depend on rounding.
TIE = 1e-12
_FLAT = 16  # with more dimensions, a tree search visits nearly every point
_FEW = 512  # up to this many points, a table of all distances is faster than a tree
_TABLE = 1 << 24  # most distances in memory at a time
_NEIGHBOURS = 8  # nearest neighbours that are looked up first, including the point itself
_WIDE = 64  # nearest neighbours that are looked up where the first ones do not suffice
_CHUNK = 1 << 14  # points whose neighbours one call looks up


def greedy_path(vectors: Tensor) -> Tensor:
    """The greedy nearest-neighbour path: it starts at vector 0 and always continues with the nearest vector not yet visited.

    Cosine distance for d > 1, ℓ2 for d = 1; a zero vector is at cosine distance 1 of everything. Among vectors whose distances
    differ by less than 1e-12, the one with the lowest index is taken.

    Up to 16 dimensions, or up to 4,096 vectors, the path is exact, in float64; a k-d tree keeps the time far below quadratic. More
    vectors of more dimensions, such as large tiles of a matrix, are divided into parts of vectors near each other, and the path is
    greedy inside each part. It is then a little longer, and its time grows hardly faster than the number of vectors.

    Args:
        vectors: [n, d] float.

    Returns:
        [n] int64, a permutation.
    """
    if vectors.dim() != 2:
        raise ValueError(f"vectors must be [n, d], got {list(vectors.shape)}")
    return greedy_paths(vectors[None])[0]


def greedy_paths(vectors: Tensor) -> Tensor:
    """`greedy_path` of each of several sets of vectors: [b, n, d] float → [b, n] int64."""
    if vectors.dim() != 3:
        raise ValueError(f"vectors must be [b, n, d], got {list(vectors.shape)}")
    points = vectors.detach().cpu().double().numpy()
    sets, count, dimensions = points.shape
    if count <= 2:
        return torch.arange(count).repeat(sets, 1)
    paths = np.empty((sets, count), np.int64)
    if dimensions == 1:
        for index in range(sets):
            paths[index] = _walk_line(points[index, :, 0])
            advance(count)
    elif count <= (PART if dimensions > _FLAT else _FEW):
        step = max(1, _TABLE // count**2)  # sets
        for start in range(0, sets, step):
            paths[start : start + step] = _walk_table(units(points[start : start + step]))
            advance(count * len(paths[start : start + step]))
    else:
        walk = _walk_parts if dimensions > _FLAT else _walk_tree
        for index in range(sets):
            paths[index] = walk(units(points[index]))
    return torch.from_numpy(paths)


def _walk_table(points: np.ndarray) -> np.ndarray:
    """Greedy paths [b, n] through unit (or zero) vectors [b, n, d], from a table of all distances, all sets at the same time."""
    sets, count, _ = points.shape
    distances = np.matmul(points, points.transpose(0, 2, 1))
    np.subtract(1, distances, out=distances)
    taken = np.zeros((sets, count))
    paths = np.zeros((sets, count), np.int64)
    every = np.arange(sets)
    for step in range(1, count):
        here = paths[:, step - 1]
        taken[every, here] = np.inf
        row = distances[every, here] + taken
        paths[:, step] = (row <= row.min(axis=1, keepdims=True) + TIE).argmax(axis=1)
    return paths


def _walk_parts(points: np.ndarray) -> np.ndarray:
    """Greedy paths through parts of unit (or zero) vectors [n, d], joined to one path [n].

    Vectors near each other are in one part, which the path leaves only when all of it is visited. It goes on in the part whose mean
    is nearest, at the vector that is nearest there.
    """
    parts = bisected(points, PART)
    means, left = np.stack([points[part].mean(axis=0) for part in parts]), set(range(len(parts)))
    here, start, path = next(index for index, part in enumerate(parts) if part[0] == 0), 0, np.empty(0, np.int64)
    while True:
        left.remove(here)
        part = np.concatenate([parts[here][start : start + 1], np.delete(parts[here], start)])
        path = np.concatenate([path, part[_walk_table(points[part][None])[0]]])
        advance(len(part))
        if not left:
            return path
        rest, last = sorted(left), points[path[-1]]
        here = rest[int((means[rest] @ last).argmax())]
        start = int((points[parts[here]] @ last).argmax())


def _walk_line(values: np.ndarray) -> np.ndarray:
    """Greedy path [n] through numbers [n]: the nearest unvisited number is the next lower or the next higher one."""
    unique, group = np.unique(values, return_inverse=True)
    members = np.argsort(group, kind="stable").tolist()  # sorted by value, then by index
    ends = np.cumsum(np.bincount(group)).tolist()
    heads = [0, *ends[:-1]]  # first unvisited member of each value
    value, groups, last = unique.tolist(), group.tolist(), len(unique)
    lower, higher = list(range(-1, last - 1)), list(range(1, last + 1))  # linked list of the values that have unvisited members
    close = _Lowest(members) if last > 1 and np.diff(unique).min() <= TIE else None
    here, path = groups[0], [0]
    for _ in range(1, len(values)):
        heads[here] += 1  # members of a value are visited by rising index
        spent = heads[here] == ends[here]
        down, up = lower[here], higher[here]
        below = value[here] - value[down] if down >= 0 else np.inf
        beyond = value[up] - value[here] if up < last else np.inf
        if close is not None:
            close.drop(heads[here] - 1)
            reach = (min(below, beyond) if spent else 0.0) + TIE
            first, final = bisect_left(value, value[here] - reach), bisect_right(value, value[here] + reach) - 1
            following = groups[close.between(ends[first - 1] if first else 0, ends[final])]
        elif not spent:
            following = here
        elif abs(below - beyond) <= TIE:
            following = down if members[heads[down]] < members[heads[up]] else up
        else:
            following = down if below < beyond else up
        if spent:
            if up < last:
                lower[up] = down
            if down >= 0:
                higher[down] = up
        here = following
        path.append(members[heads[here]])
    return np.array(path)


class _Lowest:
    """Finds the lowest of the remaining numbers between two positions of a list, in logarithmic time."""

    def __init__(self, numbers: list[int]) -> None:
        self._size = size = len(numbers)
        self._least = [0] * size + numbers
        for node in range(size - 1, 0, -1):
            self._least[node] = min(self._least[2 * node], self._least[2 * node + 1])

    def drop(self, at: int) -> None:
        least, node = self._least, at + self._size
        least[node] = self._size  # above every index
        while node > 1:
            node //= 2
            least[node] = min(least[2 * node], least[2 * node + 1])

    def between(self, start: int, end: int) -> int:
        """The lowest number at positions start to end - 1."""
        lowest, start, end = self._size, start + self._size, end + self._size
        while start < end:
            if start & 1:
                lowest = min(lowest, self._least[start])
                start += 1
            if end & 1:
                end -= 1
                lowest = min(lowest, self._least[end])
            start, end = start // 2, end // 2
        return lowest


def _walk_tree(points: np.ndarray) -> np.ndarray:
    """Greedy path [n] through unit (or zero) vectors [n, d], by a k-d tree over the unvisited vectors."""
    walk = _TreeWalk(points)  # the first look-up takes most of the time, so it reports all kernels as done
    while walk.left:
        walk.go_on()
    return np.array(walk.path)


class _TreeWalk:
    """A greedy walk over *spots*: the distinct vectors, numbered so that vectors near each other have similar numbers.

    At the start, the nearest neighbours of all spots are looked up at once, on several threads. Whenever half of the spots have
    been visited, the look-up is repeated for the spots that have few unvisited neighbours left in their lists. Visits do not make a
    list wrong: the unvisited neighbours in it are still the nearest of all unvisited spots.
    """

    def __init__(self, points: np.ndarray) -> None:
        order, starts = distinct(points)
        spots = points[order[starts]]
        zero = ~spots.any(axis=1)
        inside = np.flatnonzero(~zero)
        near = cKDTree(spots[inside], balanced_tree=False).indices if len(inside) else inside
        sort = np.concatenate([inside[near], np.flatnonzero(zero)])  # a tree cannot hold the zero vector: it comes last
        self.spots, self.zero = spots[sort], len(inside)
        members, ends = order.tolist(), np.append(starts[1:], len(order))
        spans = zip(starts[sort].tolist(), ends[sort].tolist(), strict=True)
        self.waiting = [members[start:end][::-1] for start, end in spans]  # unvisited indices of the vectors at each spot, the lowest last
        self.spot_of = np.empty(len(points), np.int64)
        self.spot_of[order] = np.repeat(np.argsort(sort), ends - starts)
        self.taken, self.visited = bytearray(len(sort)), bytearray(len(points))
        self.near = np.zeros((len(sort), _NEIGHBOURS), np.int32)
        self.distance = np.full((len(sort), _NEIGHBOURS), np.inf)
        self.path: list[int] = []
        self.lowest = 0
        self.here = int(self.spot_of[0])
        self.rest = np.arange(len(sort))
        self._look_up(self.rest[: self.zero], advances=1)
        advance(len(points) - self.zero)
        self._take(self.here)

    @property
    def left(self) -> bool:
        return len(self.path) < len(self.visited)

    def go_on(self) -> None:
        """Walk until half of the remaining spots have been visited."""
        spots = len(self.rest) // 2 if len(self.rest) > 64 else len(self.rest)
        while spots > 0 and self.left:
            if self.here == self.zero:  # all vectors are equally far from the zero vector
                while self.visited[self.lowest]:
                    self.lowest += 1
                self.here = int(self.spot_of[self.lowest])
            else:
                spot = self._nearest(self.near[self.here].tolist(), self.distance[self.here].tolist())
                self.here = self._search() if spot < 0 else spot
            spots -= self._take(self.here)
        self._renew()

    def _take(self, spot: int) -> bool:
        """Visit the lowest unvisited index at a spot; returns whether none is left there."""
        index = self.waiting[spot].pop()
        self.path.append(index)
        self.visited[index] = 1
        if self.waiting[spot]:
            return False
        self.taken[spot] = 1
        return True

    def _nearest(self, spots: list[int], distances: list[float]) -> int:
        """The next spot, from the list of spots nearest to here and their distances; -1 where the list is not long enough to tell."""
        for place, (spot, distance) in enumerate(zip(spots, distances, strict=True)):
            if not self.taken[spot]:
                limit = distance + TIE
                if distances[-1] <= limit or (limit >= 1 and self.zero < len(self.taken)):
                    return -1
                while distances[place + 1] <= limit:
                    place += 1
                    if not self.taken[spots[place]] and self.waiting[spots[place]][-1] < self.waiting[spot][-1]:
                        spot = spots[place]
                return spot
        return -1

    def _search(self) -> int:
        """The next spot where the list of the present spot is not long enough."""
        here = self.spots[self.here]
        if len(self.inside) > _WIDE:
            distance, at = self.tree.query(here, k=_WIDE)
            spot = self._nearest(self.inside[at].tolist(), (distance**2 / 2).tolist())
            if spot >= 0:
                return spot
        distance = 1 - self.rest_spots @ here
        distance[np.frombuffer(self.taken, np.uint8)[self.rest] == 1] = np.inf
        tied = self.rest[distance <= distance.min() + TIE].tolist()
        return int(min(tied, key=lambda spot: self.waiting[spot][-1]))

    def _renew(self) -> None:
        """Remove the visited spots."""
        taken = np.frombuffer(self.taken, np.uint8)
        self.rest = self.rest[taken[self.rest] == 0]
        inside = self.rest[self.rest < self.zero]
        self._look_up(inside[(taken[self.near[inside]] == 0).sum(axis=1) < 3])

    def _look_up(self, spots: np.ndarray, advances: int = 0) -> None:
        """Build the tree of all remaining spots, and renew the neighbour lists of some spots."""
        self.rest_spots = self.spots[self.rest]
        self.inside = self.rest[self.rest < self.zero]
        self.tree = cKDTree(self.spots[self.inside], leafsize=24, balanced_tree=False)
        width = min(_NEIGHBOURS, len(self.inside))
        for start in range(0, len(spots), _CHUNK):
            some = spots[start : start + _CHUNK]
            distance, at = self.tree.query(self.spots[some], k=range(1, width + 1), workers=torch.get_num_threads())
            self.near[some, :width], self.near[some, width:] = self.inside[at], self.inside[at[:, -1:]]
            self.distance[some, :width], self.distance[some, width:] = distance**2 / 2, distance[:, -1:] ** 2 / 2
            advance(len(some) * advances)


def distinct(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Group equal rows of [n, d] float64: the indices of all rows, group by group and ascending in each, and where each group starts."""
    odd = np.random.default_rng(0).integers(1 << 62, size=points.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    keys = (np.ascontiguousarray(points).view(np.uint64) * odd).sum(axis=1, dtype=np.uint64)
    order = np.argsort(keys, kind="stable")
    # If two different rows have the same key by chance, a group may be split, which does no harm
    new = (points[order][1:] != points[order][:-1]).any(axis=1)
    return order, np.concatenate([[0], np.flatnonzero(new) + 1])
