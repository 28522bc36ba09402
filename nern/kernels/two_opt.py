"""Shortens a path through kernels by local search; the shorter path takes as many bits as the longer one."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from nern.kernels.bisection import PART, bisected
from nern.kernels.distances import units
from nern.support.threads import advance

_FLAT = 16  # with more dimensions, all distances inside parts of near vectors are compared
_TABLE = 1 << 22  # most distances in memory at a time
_SEGMENT = 3  # most kernels that an Or-opt move relocates
_GAIN = 1e-9  # smallest gain of a move, well above rounding


def shorter_path(vectors: Tensor, path: Tensor, neighbours: int = 8, rounds: int = 50) -> Tensor:
    """Improve an open path by 2-opt and Or-opt moves among near neighbours (Bentley 1992; Or 1976).

    Each round considers every kernel whose neighbourhood on the path has changed (don't-look bits) and all moves that make one of
    its `neighbours` nearest kernels its neighbour on the path. The best moves are applied, best first, as far as they do not
    interfere. Both ends of the path are free. For d = 1 the shortest path is known: the sorted numbers.

    Args:
        vectors: [n, d] float; cosine distance, ℓ2 for d = 1.
        path: [n] int64, a permutation.
        neighbours: how many nearest kernels are tried for each kernel.
        rounds: most rounds; the search ends earlier where no move is left.

    Returns:
        [n] int64, never longer than `path`.
    """
    points = vectors.detach().cpu().double().numpy()
    if len(points) <= 2:
        return path.clone()
    if points.shape[1] == 1:
        return torch.from_numpy(np.argsort(points[:, 0], kind="stable"))
    tour = _Tour(units(points), path.numpy(), neighbours)
    for _ in range(rounds):
        advance(0)
        if not tour.improve():
            break
    return torch.from_numpy(tour.order[1:-1].copy())


def nearest(points: np.ndarray, count: int) -> np.ndarray:
    """The `count` nearest other vectors of every unit (or zero) vector [n, d], approximately: [n, count] int64."""
    near = np.empty((len(points), count + 1), np.int64)
    if points.shape[1] <= _FLAT:
        tree = cKDTree(points, leafsize=24, balanced_tree=False)
        for part in np.array_split(tree.indices, max(1, len(points) >> 14)):
            near[part] = tree.query(points[part], k=range(1, count + 2), workers=torch.get_num_threads())[1]
            advance(0)
    else:
        for part in bisected(points, PART):
            for some in np.array_split(part, max(1, len(part) ** 2 // _TABLE)):
                near[some] = part[np.argpartition(points[some] @ -points[part].T, count, axis=1)[:, : count + 1]]
                advance(0)
    own = near == np.arange(len(points))[:, None]
    own[~own.any(axis=1), -1] = True  # every row loses one column: the vector itself, or else the farthest one
    others: np.ndarray = near[~own].reshape(len(points), count)
    return others


class _Tour:
    """A path with an additional point n at both ends, at distance 0 from every kernel, so that the ends need no special treatment."""

    def __init__(self, points: np.ndarray, path: np.ndarray, neighbours: int) -> None:
        count = len(points)
        self.stop = count
        self.points = np.concatenate([points, np.zeros((1, points.shape[1]))])
        self.near = nearest(points, min(neighbours, count - 1))
        self.order = np.concatenate([[count], path, [count]])  # the kernel at each position
        self.place = np.empty(count, np.int64)
        self.place[path] = np.arange(1, count + 1)
        self.look = np.ones(count, bool)

    def distance(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Cosine distance of kernels; 0 where one of them is the additional point."""
        distance: np.ndarray = 1 - np.einsum("...d,...d->...", self.points[a], self.points[b])
        distance[(a == self.stop) | (b == self.stop)] = 0
        return distance

    def improve(self) -> bool:
        """Make one round; returns whether any move was made. Before it returns False, it considers all kernels once more."""
        if not self.look.any():
            self.look[:] = True
        looked = np.flatnonzero(self.look)
        self.look[:] = False
        made = False
        for move in self._moves(looked).tolist():
            done = self._reverse(*move[:4]) if move[4] < 0 else self._carry(*move)
            self.look[[kernel for kernel in move if 0 <= kernel < self.stop]] = True
            made |= done
        return made or len(looked) < self.stop

    def _moves(self, kernels: np.ndarray) -> np.ndarray:
        """The best move of each kernel that has one, best first: [m, 6], the arguments of `_reverse` and `_carry`."""
        gains, moves = [np.empty(0)], [np.empty((0, 6), np.int64)]
        for start in range(0, len(kernels), 1 << 13):
            a, c = self._pairs(kernels[start : start + (1 << 13)])
            tried = [self._reversals(a, c, side) for side in (1, -1)]
            tried += [self._carries(a, c, length, way, side) for length in range(1, _SEGMENT + 1) for way in (1, -1) for side in (1, -1)]
            gain, move = np.concatenate([g for g, _ in tried]), np.concatenate([m for _, m in tried])
            best = np.lexsort((-gain, move[:, 0]))
            first = best[np.append(True, move[best][1:, 0] != move[best][:-1, 0])] if len(best) else best
            gains.append(gain[first])
            moves.append(move[first])
            advance(0)
        ranks = np.argsort(-np.concatenate(gains), kind="stable")
        ranked: np.ndarray = np.concatenate(moves)[ranks]
        return ranked

    def _pairs(self, kernels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pairs of kernels that are nearer to each other than to one of their neighbours on the path: [m] each."""
        a, c = np.repeat(kernels, self.near.shape[1]), self.near[kernels].ravel()
        around = [self.distance(x, self.order[self.place[x] + side]) for x in (a, c) for side in (1, -1)]
        chosen = self.distance(a, c) < np.maximum.reduce(around)
        return a[chosen], c[chosen]

    def _reversals(self, a: np.ndarray, c: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
        """2-opt moves: edges (a, b) and (c, d), where b and d lie on the same side of a and c, become (a, c) and (b, d)."""
        b, d = self.order[self.place[a] + side], self.order[self.place[c] + side]
        gain = self.distance(a, b) + self.distance(c, d) - self.distance(a, c) - self.distance(b, d)
        rows = np.flatnonzero(gain > _GAIN)
        none = np.full(len(rows), -1)
        return gain[rows], np.stack([a[rows], b[rows], c[rows], d[rows], none, none], axis=1)

    def _carries(self, a: np.ndarray, c: np.ndarray, length: int, way: int, side: int) -> tuple[np.ndarray, np.ndarray]:
        """Or-opt moves: the kernels a … e between p and q are relocated between c and x, with a next to c."""
        at, last = self.place[a], self.stop + 1
        end = at + way * (length - 1)
        inside = (end >= 1) & (end < last)
        a, c, at, end = a[inside], c[inside], at[inside], end[inside]
        e, p, q = self.order[end], self.order[at - way], self.order[end + way]
        to = self.place[c]
        x = self.order[to + side]
        low, high = np.minimum(at, end), np.maximum(at, end)
        apart = ((to < low) | (to > high)) & ((to + side < low) | (to + side > high))
        gain = self.distance(p, a) + self.distance(e, q) + self.distance(c, x)
        gain -= self.distance(p, q) + self.distance(c, a) + self.distance(e, x)
        rows = np.flatnonzero(apart & (gain > _GAIN))
        return gain[rows], np.stack([a[rows], e[rows], c[rows], x[rows], p[rows], q[rows]], axis=1)

    def _side(self, kernel: int, other: int) -> int:
        """On which side of a kernel another one lies: 1, -1, or 0 where it is no neighbour."""
        at = self.place[kernel]
        return 1 if self.order[at + 1] == other else -1 if self.order[at - 1] == other else 0

    def _reverse(self, a: int, b: int, c: int, d: int) -> bool:
        side = self._side(a, b)
        if side == 0 or side != self._side(c, d):
            return False
        first, last = sorted((int(self.place[a]), int(self.place[c])))
        self._write(first + (side > 0), self.order[first + (side > 0) : last + (side > 0)][::-1].copy())
        return True

    def _carry(self, a: int, e: int, c: int, x: int, p: int, q: int) -> bool:
        at, end, to, side = int(self.place[a]), int(self.place[e]), int(self.place[c]), self._side(c, x)
        way = self._side(a, p)
        low, high = min(at, end), max(at, end)
        if not side or not way or low <= to <= high or low <= to + side <= high or high - low >= _SEGMENT:
            return False
        if self.order[at + way] != p or self.order[end - way] != q or (a != e and (at - end) * way < 0):
            return False
        segment = self.order[low : high + 1].copy()
        if (segment[0] == a) != (side > 0):  # a is placed next to c: it comes first where c comes before it
            segment = segment[::-1]
        slot = max(to, to + side)  # the position after which everything moves
        if slot > high:
            self._write(low, np.concatenate([self.order[high + 1 : slot], segment]))
        else:
            self._write(slot, np.concatenate([segment, self.order[slot:low]]))
        return True

    def _write(self, start: int, kernels: np.ndarray) -> None:
        self.order[start : start + len(kernels)] = kernels
        self.place[kernels] = np.arange(start, start + len(kernels))
