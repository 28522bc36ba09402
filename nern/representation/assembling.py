"""Builds a representation from its components."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from nern.interfaces import Base, Embedding, Predictor
from nern.kernels.coordinates import KernelGrid
from nern.kernels.orders import LayerOrder
from nern.options import located
from nern.representation.component_contracts import problem_with_shape
from nern.representation.lookup import AxisTables
from nern.representation.representation import Representation
from nern.support.contracts import at_work, broken, described_value
from nern.support.subsets import call_with


def assemble(
    grid: KernelGrid, orders: list[LayerOrder], embedding: Embedding, predictor: Predictor, base: Base | None = None
) -> Representation:
    """Build a representation with freshly initialised modules.

    Raises:
        ConfigError: the embedding, predictor or base violates its contract, or has an option that is impossible for this network.
    """
    with located("embedding"), at_work(embedding, "embedding"):
        embed: Any = embedding.build(grid)
        dim: Any = getattr(embed, "dim", None)
    if not isinstance(embed, nn.Module) or type(dim) is not int:
        problem = "build() must give a module with an attribute 'dim' (int)"
        raise broken(embedding, "embedding", f"{problem}, gave {_with_dim(embed)}", embed)
    with located("predictor"), at_work(predictor, "predictor"):
        module: Any = call_with(predictor.build, dim, grid.outputs, offered={"grid": lambda: grid})
        wants: Any = getattr(module, "wants", "rows")
    if not isinstance(module, nn.Module):
        raise broken(predictor, "predictor", f"build() must give a module, gave {described_value(module)}")
    if wants not in ("rows", "filters", "layers"):
        raise broken(predictor, "predictor", f"'wants' must be rows, filters or layers, is {wants!r}", module)
    if getattr(module, "accepts_lookup", False) and hasattr(embed, "tables"):
        with at_work(embedding, "embedding", embed):
            make: Any = embed.tables
            tables = make()
        if not isinstance(tables, AxisTables):
            problem = f"tables() must give nern.representation.lookup.AxisTables, gave {described_value(tables)}"
            raise broken(embedding, "embedding", problem, embed)
    with located("base"), at_work(base, "base"):
        added: Any = None if base is None else base.build(grid)
    if not isinstance(added, (nn.Module, type(None))):
        raise broken(base, "base", f"build() must give a module or None, gave {described_value(added)}")
    representation = Representation(embed, module, grid, orders, added)
    first = torch.zeros(1 if representation.groups else 2, dtype=torch.int64)
    rows = representation.groups.rows(first) if representation.groups else first
    representation.eval()
    with torch.no_grad():
        with at_work(embedding, "embedding", embed):
            vectors = embed(representation.table.coordinates(rows))
        _expect_none(problem_with_shape(vectors, [len(rows), dim], "forward(coordinates)"), embedding, "embedding", embed)
        if added is not None:
            with at_work(base, "base", added):
                more = added(rows)
            _expect_none(problem_with_shape(more, [len(rows), grid.outputs], "forward(rows)"), base, "base", added)
        with at_work(predictor, "predictor", module):
            kernels = representation.raw(rows)
        _expect_none(problem_with_shape(kernels, [len(rows), grid.outputs], "forward(embedded)"), predictor, "predictor", module)
    return representation.train()


def _expect_none(problem: str | None, component: Any, kind: str, module: nn.Module) -> None:
    if problem:
        raise broken(component, kind, problem, module)


def _with_dim(module: Any) -> str:
    """What an embedding's `build` gave, as a message calls it."""
    if not isinstance(module, nn.Module):
        return described_value(module)
    dim = getattr(module, "dim", None)
    return f"one with {'none' if dim is None else repr(dim)}"
