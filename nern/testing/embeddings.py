"""Checks an embedding."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from nern.interfaces import Embedding
from nern.kernels.coordinates import KernelGrid
from nern.support.seeding import generator
from nern.testing import fixtures
from nern.testing.assertions import check_tensor, close, expect
from nern.testing.modules import build_seeded, check_gradients, check_moves, check_state, device_of
from nern.testing.options import check_options


def check_embedding(embedding: Embedding, grid: KernelGrid | None = None) -> None:
    """Check that coordinates [n, 3] int64 become finite vectors [n, dim] float32, each alone, and that parameters are trained and stored.

    The module is checked after `initialise`, as a run trains it, with original kernels that all differ.
    """
    check_options("embedding", embedding)
    grid = grid or fixtures.grid()

    def build() -> nn.Module:
        module = embedding.build(grid)
        originals = [torch.randn(layer.count, *layer.kernel, generator=generator(0, layer.layer)) for layer in grid.layers]
        embedding.initialise(module, originals)
        return module

    module, again = build_seeded(build), build_seeded(build)
    dim = getattr(module, "dim", None)
    expect(isinstance(dim, int), "the module that build() returns needs an attribute 'dim' (int)")
    coordinates = grid.coordinates()
    before = coordinates.clone()
    vectors = module(coordinates)
    expect(torch.equal(coordinates, before), "forward(coordinates) changes the coordinates that it is given")
    check_tensor(vectors, [len(coordinates), cast(int, dim)], "forward(coordinates)")
    expect(torch.equal(vectors, again(coordinates)), "build() and initialise() give another embedding under the same seed")
    expect(bool((vectors != vectors[:1]).any()), "every coordinate gets the same vector")
    close(module(coordinates[2:5]), vectors[2:5], "a row's vector depends on the other rows")
    if hasattr(module, "tables"):
        tables: Any = module.tables
        close(tables().dense(coordinates), vectors, "tables() and forward() give different embeddings")
    check_gradients(module, vectors, "embedding")
    check_state(module, lambda: embedding.build(grid), lambda built: built(coordinates), "embedding")
    check_moves(module, lambda built: built(coordinates.to(device_of(built))), "embedding")
