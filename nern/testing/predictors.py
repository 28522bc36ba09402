"""Checks a predictor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nern.interfaces import Predictor
from nern.kernels.coordinates import KernelGrid, LayerMapping
from nern.representation.groups import RowGroups
from nern.support.seeding import generator
from nern.support.subsets import call_with, takes
from nern.testing import fixtures
from nern.testing.assertions import check_tensor, close, expect, same
from nern.testing.modules import build_seeded, check_gradients, check_moves, check_state, device_of
from nern.testing.options import check_options


def check_predictor(predictor: Predictor, inputs: int = 12, outputs: int = 9) -> None:
    """Check that vectors [n, inputs] become finite kernels [n, outputs], each on its own, with gradients for parameters and vectors."""
    check_options("predictor", predictor)
    grid = _grid(outputs)
    embedded = torch.randn(grid.rows, inputs, generator=generator(0, "embedded"))
    kernels = 0.1 * torch.randn(200, outputs, generator=generator(0, "kernels")) + 0.02

    def build() -> nn.Module:
        module = fresh()
        originals = [0.1 * torch.randn(layer.count, *layer.kernel, generator=generator(0, layer.layer)) for layer in grid.layers]
        offered = {"grid": lambda: grid, "originals": lambda: originals}
        call_with(predictor.initialise, module, embedded, kernels, offered=offered)
        return module

    def fresh() -> nn.Module:
        module: nn.Module = call_with(predictor.build, inputs, outputs, offered={"grid": lambda: grid})
        return module

    def run(module: nn.Module, vectors: Any, chosen: slice = slice(None)) -> Tensor:
        rows = torch.arange(grid.rows, device=vectors.device if isinstance(vectors, Tensor) else None)[chosen]
        groups = None if wants == "rows" else RowGroups(grid, wants, rows.device)
        offered = {"rows": lambda: rows, "groups": lambda: rows if groups is None else groups.of(rows)}
        kernels: Tensor = call_with(module.forward, vectors, offered=offered)
        return kernels

    module, again = build_seeded(build), build_seeded(build)
    expect(same(module.state_dict(), again.state_dict()), "build() and initialise() give other weights under the same seed")
    expect(
        any(True for _ in module.parameters()) or getattr(module, "trained_by_embedding", False),
        "the predictor has no parameters: nothing can be trained; where the embedding has them, set trained_by_embedding = True",
    )
    wants: Any = getattr(module, "wants", "rows")
    expect(wants in ("rows", "filters", "layers"), f"'wants' must be rows, filters or layers, is {wants!r}")
    vectors = embedded.clone().requires_grad_()
    predicted = run(module.train(), vectors)
    check_tensor(predicted, [grid.rows, outputs], "forward(embedded)")
    if not any(value.requires_grad for value in module.parameters()) and predicted.requires_grad:
        predicted.square().sum().backward()  # type: ignore[no-untyped-call]
    check_gradients(module, predicted, "predictor")
    expect(vectors.grad is not None and bool(vectors.grad.ne(0).any()), "no gradient reaches the embedded coordinates")
    module.eval()
    with torch.no_grad():
        whole = run(module, embedded)
        every = torch.arange(grid.rows)
        start = grid.starts[1]  # rows of the second layer, which are also whole filters and a whole layer
        size = {"rows": 2, "filters": grid.layers[1].channels, "layers": grid.layers[1].count}[wants]
        some = slice(start, start + size)
        close(run(module, embedded[some], some), whole[some], f"in eval mode a kernel depends on other {wants} than its own")
        with torch.autocast("cpu", torch.bfloat16):
            rounded = run(module, embedded)
        expect(list(rounded.shape) == [grid.rows, outputs], "forward() gives another shape under bfloat16 autocast")
        if takes(module.forward, "columns") and wants == "rows":
            columns = torch.arange(outputs)[:: max(1, outputs // 3)]
            narrow = call_with(
                module.forward, embedded, offered={"rows": lambda: every, "groups": lambda: every, "columns": lambda: columns}
            )
            close(narrow, whole[:, columns], "forward() with columns gives others than those of all outputs")
        if getattr(module, "accepts_lookup", False):
            lookup = fixtures.lookup(inputs)
            close(module(lookup), module(lookup.dense()), "forward() gives other kernels for a Lookup than for its dense vectors")
    check_state(module, fresh, lambda built: run(built.eval(), embedded), "predictor")
    check_moves(module, lambda built: run(built, embedded.to(device_of(built))), "predictor")


def _grid(outputs: int) -> KernelGrid:
    """A grid of 64 kernels with `outputs` weights each, in two layers."""
    return KernelGrid((LayerMapping("first.weight", (8, 3, 1, outputs), 0), LayerMapping("second.weight", (10, 4, 1, outputs), 1)))
