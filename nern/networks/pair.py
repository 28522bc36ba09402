"""Runs the original and the reconstructed network: one set of modules, two sets of weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from nern.networks.batch_norm import fold_batch_norms
from nern.networks.feature_maps import FeatureCapture, sums_among
from nern.outputs.nested import call, channels_last, to_float32


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
    """

    def __init__(
        self,
        network: nn.Module,
        features: Sequence[str],
        *,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        fold: bool = True,
    ) -> None:
        self.device, self.dtype = device, dtype
        self.features = list(features)
        self._source, self._fold = network, fold
        sums_among(network, features)  # what is no feature map is said now, not when a loss first wants it

    @cached_property
    def _ready(self) -> tuple[nn.Module, dict[str, Tensor], FeatureCapture]:
        """The copy that runs, the scales folded into it, and what captures its maps; made when a loss first wants them."""
        network = copy.deepcopy(self._source).to(self.device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
        scales = fold_batch_norms(network, keep=self.features) if self._fold else {}
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
        """Run with predicted `weights` (parameter name → weight), differentiable in them."""
        folded, scales = {}, self.scales
        for name, weight in weights.items():
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
