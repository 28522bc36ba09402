"""Runs the original and the reconstructed network: one set of modules, two sets of weights."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from nern.networks.batch_norm import fold_batch_norms, foldable
from nern.networks.feature_maps import FeatureCapture, sums_among
from nern.outputs.nested import call, channels_last, lay_out_channels_last, to_float32


@attrs.frozen
class Outputs:
    """What one pass gives."""

    logits: Any  # whatever the network gives: for a classifier logits [b, classes], else tensors in any nesting
    features: list[Tensor]  # [b, ...] each, in the order of the feature names


class NetworkPair:
    """The original network and its reconstruction, in eval mode, for training.

    Both share copied parameters and statistics, so the batch norm behind a convolution is folded into the weights of
    both: scale · w and a constant bias. Feature maps behind a folded batch norm are unchanged.

    Args:
        network: the original network; a copy runs, made when a loss first wants it.
        features: names of the feature maps that are compared: modules, and sums in them (`nern.feature_maps`).
        dtype: torch.bfloat16 runs convolutions and products in bfloat16 (weights stay float32).
        fold: whether to fold batch norms.
        trained: copied parameters that the reconstruction has values of its own for.
    """

    def __init__(
        self,
        network: nn.Module,
        features: Sequence[str],
        *,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        fold: bool = True,
        trained: Collection[str] = (),
    ) -> None:
        self.device, self.dtype = device, dtype
        self.features = list(features)
        # a trained bias of a folded batch norm → the bias that it is part of now, and what else that holds
        self._moved: dict[str, tuple[str, Tensor]] = {}
        self._source, self._fold, self._trained = network, fold, frozenset(trained)
        sums_among(network, features)  # what is no feature map is said now, not when a loss first wants it

    @cached_property
    def _ready(self) -> tuple[nn.Module, dict[str, Tensor], FeatureCapture]:
        """The copy that runs, the scales folded into it, and what captures its maps; made when a loss first wants them."""
        network = lay_out_channels_last(copy.deepcopy(self._source).to(self.device)).eval().requires_grad_(False)
        if not self._fold:
            return network, {}, FeatureCapture(network, self.features)
        pairs = foldable(network, keep=self.features)
        skip = [pair.norm for pair in pairs if self._trained & {f"{pair.norm}.weight", f"{pair.convolution}.bias"}]
        before = {pair: network.get_submodule(pair.norm).bias for pair in pairs if pair.norm not in skip}
        scales = fold_batch_norms(network, keep=self.features, skip=skip)
        for pair, bias in before.items():
            if f"{pair.norm}.bias" in self._trained:
                shift = network.get_submodule(pair.convolution).bias
                self._moved[f"{pair.norm}.bias"] = f"{pair.convolution}.bias", (shift - bias).detach()  # type: ignore[operator]
        return network, scales, FeatureCapture(network, self.features)

    @property
    def network(self) -> nn.Module:
        """The copy that runs, with the original weights."""
        return self._ready[0]

    @property
    def scales(self) -> dict[str, Tensor]:
        """What folding has multiplied weights with [filters, 1, 1, 1], by parameter name."""
        return self._ready[1]

    def original(self, inputs: Any, features: bool = False) -> Outputs:
        """Run the original network without gradient."""
        with torch.no_grad():
            return self._run({}, inputs, features)

    def reconstructed(self, inputs: Any, weights: Mapping[str, Tensor], features: bool = False) -> Outputs:
        """Run with predicted `weights` and trained copies (parameter name → value), differentiable in them."""
        folded, scales = {}, self.scales
        for name, weight in weights.items():
            if name in self._moved:
                place, rest = self._moved[name]
                folded[place] = weight + rest
                continue
            scale = scales.get(name)
            weight = weight if scale is None else weight * scale
            folded[name] = weight.contiguous(memory_format=torch.channels_last) if weight.dim() == 4 else weight
        return self._run(folded, inputs, features)

    def _run(self, weights: Mapping[str, Tensor], inputs: Any, features: bool) -> Outputs:
        network, _, capture = self._ready
        inputs = channels_last(inputs)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            if not features:
                return Outputs(to_float32(call(network, weights, inputs)), [])
            with capture.running() as captured:
                logits = call(network, weights, inputs)
        if capture.spoiled:
            return self._run(weights, inputs, features)
        return Outputs(to_float32(logits), captured)
