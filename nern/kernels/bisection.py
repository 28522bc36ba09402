"""Cuts many vectors into parts of vectors near each other, in nearly linear time."""

from __future__ import annotations

import numpy as np

from nern.support.threads import advance

PART = 1 << 12  # most vectors of many dimensions among which all distances are compared
_ROUNDS = 8  # of the power iteration that finds the direction in which vectors differ most


def bisected(points: np.ndarray, most: int) -> list[np.ndarray]:
    """Indices of vectors [n, d] in parts of at most `most`, ascending in each.

    A part that is too large is halved at the median of its longest axis (the first principal component) until none is.
    """
    ready: list[np.ndarray] = []
    waiting = [np.arange(len(points))]
    while waiting:
        part = waiting.pop()
        if len(part) <= most:
            ready.append(part)
            continue
        near = np.argpartition(_along_longest_axis(points[part]), len(part) // 2)
        waiting += [part[np.sort(near[len(part) // 2 :])], part[np.sort(near[: len(part) // 2])]]
        advance(0)
    return ready


def _along_longest_axis(points: np.ndarray) -> np.ndarray:
    """Positions [n] of vectors [n, d] along the direction in which they differ most, approximately."""
    centred = points - points.mean(axis=0)
    axis = np.random.default_rng(0).standard_normal(points.shape[1])
    for _ in range(_ROUNDS):
        axis = centred.T @ (centred @ axis)
        axis /= np.linalg.norm(axis) or 1.0
    positions: np.ndarray = centred @ axis
    return positions
