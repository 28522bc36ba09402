"""Distances between kernels, and the length of a path through them."""

from __future__ import annotations

import numpy as np
from torch import Tensor


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


def units(points: np.ndarray) -> np.ndarray:
    """Vectors [..., d] scaled to unit length; zero vectors stay zero."""
    norms = np.linalg.norm(points, axis=-1, keepdims=True)
    return points / np.where(norms > 0, norms, 1) + 0.0
