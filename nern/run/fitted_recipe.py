"""Fits a recipe to a network: the sizes, samples and losses that depend on its layers and weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nern.config.defaults import DEFAULTS
from nern.config.recipes import overridden
from nern.config.structuring import structure_component
from nern.kernels.coordinates import KernelGrid
from nern.options import located
from nern.registry.registry import Registry
from nern.support.contracts import at_work

#: Parameters of the predictor as a part of the represented weights, as in the paper's Table 1 (ResNet20, hidden size 160).
SHARE = 0.42
#: With more kernels than this, phases use a sample of them in each step instead of all.
MANY_KERNELS = 1 << 16
#: Layers are scaled one by one where their root mean squares differ by more than this factor.
UNEVEN = 4.0
#: With a larger part of the weights exactly zero a network counts as pruned.
PRUNED = 0.2


def fitted(
    values: dict[str, Any],
    grid: KernelGrid,
    maps: Sequence[str],
    state: Mapping[str, Tensor],
    overrides: Mapping[str, Any],
    registry: Registry,
) -> dict[str, Any]:
    """Adapt a recipe to a network: sizes, samples and losses that depend on it. Values that the user sets are not changed.

    The predictor gets as many parameters as a part `SHARE` of the represented weights. The maps of residual sums are compared where
    the network has sums, layers that differ much in scale are scaled, and of very many kernels each step takes a sample, except
    of codes, which cost nothing to predict. Codes of a pruned network are its weights themselves, since cosines over a kernel would
    spread its zeros.
    """
    predictor = values["predictor"]
    if values["embedding"]["name"] == "codes" and zeros_of(grid, state) > PRUNED:
        values["embedding"] = {"transform": "none", **values["embedding"]}
    if not {"predictor", "predictor.name", "predictor.hidden"} & set(overrides) and "hidden" in predictor:
        values["predictor"] = {**predictor, "hidden": hidden_size(values, grid, overrides, registry, SHARE * grid.weights)}
    norms = [float(state[layer.parameter].detach().float().square().mean().sqrt()) for layer in grid.layers]
    uneven = max(norms) > UNEVEN * max(min(norms), 1e-12)
    if uneven:
        values.setdefault("scale_layers", True)
    for phase in values["phases"]:
        losses = phase.get("losses") or values.get("losses", {})
        if "fmd" in losses and not maps:
            del losses["fmd"]
        elif "fmd" in losses and losses["fmd"].get("maps") == ["*.sum"] and not any(name.endswith(".sum") for name in maps):
            del losses["fmd"]["maps"]
        if "reconstruction" in losses and uneven:
            losses["reconstruction"].setdefault("balance", 1.0)
        sampler = phase.get("sampler") or values.get("sampler", {})
        if sampler.get("name") == "all" and grid.rows > MANY_KERNELS and values["predictor"]["name"] != "codes":
            phase["sampler"] = {"name": "uniform", "batch": MANY_KERNELS}
    return values


def zeros_of(grid: KernelGrid, state: Mapping[str, Tensor]) -> float:
    """The part of the represented weights that is exactly zero."""
    return sum(int((state[name] == 0).sum()) for name in {layer.parameter for layer in grid.layers}) / grid.weights


def hidden_size(values: Mapping[str, Any], grid: KernelGrid, overrides: Mapping[str, Any], registry: Registry, weights: float) -> int:
    """The hidden size with which predictor and embedding together have about this many parameters; a multiple of 4."""
    changed = overridden(values, {k: v for k, v in overrides.items() if k.split(".")[0] in ("predictor", "embedding")}, DEFAULTS)
    component = structure_component("embedding", changed["embedding"], registry, "embedding")
    with located("embedding"), at_work(component, "embedding"):
        embedding = component.build(grid)
    fixed, inputs = sum((value.numel() for value in embedding.parameters()), 0), int(embedding.dim)

    def size(hidden: int) -> int:
        options = {**changed["predictor"], "hidden": hidden}
        predictor = structure_component("predictor", options, registry, "predictor")
        with torch.device("meta"), located("predictor"), at_work(predictor, "predictor"):
            built = predictor.build(inputs, grid.outputs)
        count: int = fixed + sum(value.numel() for value in built.parameters())
        return count

    low, high = 1, 4096  # in units of 4
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if size(4 * middle) <= weights else (low, middle - 1)
    return 4 * low
