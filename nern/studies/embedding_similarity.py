"""The similarity of the embeddings of neighbouring coordinates (Ashkenazi et al. 2023, appendix F)."""

from __future__ import annotations

import torch
from torch import Tensor

from nern.errors import ConfigError
from nern.interfaces import Embedding
from nern.kernels.coordinates import KernelGrid, LayerMapping
from nern.support.contracts import at_work


def embedding_similarity(embedding: Embedding, channels: int = 64, at: int = 31) -> Tensor:
    """Cosine similarity of the embeddings of (0, 0, c), c < `channels`, to that of (0, 0, `at`), scaled to [0, 1].

    In a concatenated embedding, the parts of layer and filter are the same for all c and only narrow the range of similarities.
    Therefore the lowest similarity is mapped to 0, and the highest, at `at` itself, to 1.

    Returns:
        [channels] float64.

    Raises:
        ConfigError: `at` is no channel.
    """
    if not 0 <= at < channels:
        raise ConfigError(f"channel {at} is outside 0 … {channels - 1}")
    grid = KernelGrid((LayerMapping("weight", (1, channels, 3, 3), 0),))
    with torch.no_grad(), at_work(embedding, "embedding"):
        vectors: Tensor = embedding.build(grid)(grid.coordinates()).double()
    cosines: Tensor = torch.nn.functional.cosine_similarity(vectors, vectors[at][None], dim=1)
    return (cosines - cosines.min()) / (cosines.max() - cosines.min()).clamp_min(1e-12)
