"""Pruning in which the remaining entries compensate the removed ones (Frantar & Alistarh 2023, SparseGPT).

All inputs of a predictor are known: they are the coordinates of its kernels. The inputs of each linear layer for all kernels
therefore give exact second moments, under which the change of the layer's outputs is minimised. Layers are pruned in the order in
which they compute, each with the inputs that the pruned layers before it produce.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from nern.representation.representation import Representation

DAMPING = 0.001  # damping that is added to the diagonal of the second moments, relative to its mean
BLOCK = 256  # columns among whose entries the ones to keep are chosen together


@torch.no_grad()
def prune_with_compensation(representation: Representation, ratio: float) -> dict[str, Tensor]:
    """Set a part of every linear layer's matrix to zero, and change the remaining entries and the bias to compensate, in place.

    Args:
        ratio: part of the entries of each matrix that becomes zero, from 0 to below 1.

    Returns:
        By parameter name within the predictor, a bool mask of the entries that stay. Matrices outside of linear layers are left
        out.
    """
    masks = {}
    for name, layer in _in_order(representation):
        moments = _second_moments(representation, layer)
        joined = layer.weight.double() if layer.bias is None else torch.cat([layer.weight, layer.bias[:, None]], 1).double()
        changed, mask = pruned_matrix(joined, moments if layer.bias is not None else moments[:-1, :-1], ratio, layer.in_features)
        layer.weight.copy_(changed[:, : layer.in_features])
        if layer.bias is not None:
            layer.bias.copy_(changed[:, -1])
        masks[f"{name}.weight"] = mask
    return masks


def pruned_matrix(matrix: Tensor, moments: Tensor, ratio: float, prunable: int) -> tuple[Tensor, Tensor]:
    """The pruned matrix W [outputs, n], with zeros in its first `prunable` columns, and the mask of the entries that stay.

    Columns are settled from left to right. An entry is removed where that adds little to the squared error of the outputs; the
    columns that follow then compensate by the least-squares solution under the moments.

    Args:
        moments: [n, n] float64, the sum of x xᵀ over inputs x.
    """
    matrix, size = matrix.clone(), len(moments)
    damped = moments + DAMPING * moments.diagonal().mean().clamp_min(1e-30) * torch.eye(size, dtype=moments.dtype, device=moments.device)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    upper = torch.linalg.cholesky((inverse + inverse.T) / 2, upper=True)
    kept = torch.ones(len(matrix), prunable, dtype=torch.bool, device=matrix.device)
    gone = 0
    for start in range(0, prunable, BLOCK):
        end = min(start + BLOCK, prunable)
        target = math.floor(ratio * len(matrix) * end + 1e-9)
        costs = (matrix[:, start:end] / upper.diagonal()[start:end]).square().reshape(-1)
        block = torch.ones_like(costs, dtype=torch.bool)
        block[costs.argsort(stable=True)[: target - gone]] = False
        kept[:, start:end], gone = block.view(len(matrix), -1), target
        for column in range(start, end):
            lost = torch.where(kept[:, column], 0.0, matrix[:, column]) / upper[column, column]
            matrix[:, column].masked_fill_(~kept[:, column], 0)
            matrix[:, column + 1 :] -= torch.outer(lost, upper[column, column + 1 :])
    return matrix, kept


def _in_order(representation: Representation) -> list[tuple[str, nn.Linear]]:
    """The predictor's linear layers in the order in which they compute."""
    layers = {layer: name for name, layer in representation.predictor.named_modules() if type(layer) is nn.Linear}
    called: dict[nn.Linear, str] = {}

    def note(module: nn.Module, _: Any) -> None:
        called.setdefault(module, layers[module])  # type: ignore[arg-type,index]

    handles = [layer.register_forward_pre_hook(note) for layer in layers]
    with _embedded_coordinates(representation, handles):
        representation.predict(_some_rows(representation))
    return [(name, layer) for layer, name in called.items()]


def _second_moments(representation: Representation, layer: nn.Linear) -> Tensor:
    """The sum of x xᵀ over a layer's inputs x for all kernels, [n + 1, n + 1] float64; a 1 is appended to x for the bias."""
    size = layer.in_features + 1
    total = torch.zeros(size, size, dtype=torch.float64, device=layer.weight.device)

    def add(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        x = inputs[0].detach().reshape(-1, layer.in_features).double()
        x = torch.cat([x, x.new_ones(len(x), 1)], 1)
        total.addmm_(x.T, x)

    with _embedded_coordinates(representation, [layer.register_forward_pre_hook(add)]):
        representation.predict_in_chunks(chunk=1 << 14)
    return total


def _some_rows(representation: Representation) -> Tensor | None:
    """Rows of a few kernels, or of all kernels where the predictor wants whole filters or layers."""
    return torch.arange(min(2, representation.grid.rows), device=representation.device) if representation.wants == "rows" else None


@contextmanager
def _embedded_coordinates(representation: Representation, handles: list[Any]) -> Iterator[None]:
    """Make the predictor take embedded coordinates instead of look-ups while a block runs, so that hooks see them; removes the hooks."""
    predictor = representation.predictor
    before = vars(predictor).get("accepts_lookup")
    predictor.accepts_lookup = False  # type: ignore[assignment]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        if before is None:
            del predictor.accepts_lookup
        else:
            predictor.accepts_lookup = before  # type: ignore[assignment]
