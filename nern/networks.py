"""Runs the original and the reconstructed network: one set of modules, two sets of weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property

import attrs
import torch
from torch import Tensor, nn
from torch.func import functional_call

from nern.feature_maps import FeatureCapture, sums_among


@attrs.frozen
class Outputs:
    """What one pass gives."""

    logits: Tensor  # [b, classes]
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

    def original(self, inputs: Tensor, features: bool = False) -> Outputs:
        """Run the original network without gradient."""
        with torch.no_grad():
            return self._run({}, inputs, features)

    def reconstructed(self, inputs: Tensor, weights: Mapping[str, Tensor], features: bool = False) -> Outputs:
        """Run with predicted `weights` (parameter name → weight), differentiable in them."""
        folded, scales = {}, self.scales
        for name, weight in weights.items():
            scale = scales.get(name)
            weight = weight if scale is None else weight * scale
            folded[name] = weight.contiguous(memory_format=torch.channels_last) if weight.dim() == 4 else weight
        return self._run(folded, inputs, features)

    def _run(self, weights: Mapping[str, Tensor], inputs: Tensor, features: bool) -> Outputs:
        network, _, capture = self._ready
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            if not features:
                return Outputs(functional_call(network, dict(weights), (inputs,)).float(), [])
            with capture.running() as captured:
                logits = functional_call(network, dict(weights), (inputs,))
        if capture.spoiled:
            return self._run(weights, inputs, features)
        return Outputs(logits.float(), captured)


def fold_batch_norms(network: nn.Module, keep: Sequence[str] = ()) -> dict[str, Tensor]:
    """Fold every batch norm that alone follows a convolution into it, in place.

    The network must be in eval mode. Convolutions named in `keep` stay as they are, and so do those whose weight has
    another holder or is computed. A network that torch.fx cannot trace stays as it is, too: folding is a speed-up, not
    a need.

    Returns:
        The scale [filters, 1, 1, 1] of every folded convolution's weight, by parameter name.
    """
    try:
        graph = torch.fx.symbolic_trace(network).graph
    except Exception:
        return {}
    modules = dict(network.named_modules())
    calls: dict[str, int] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            calls[node.target] = calls.get(node.target, 0) + 1
    holders: dict[int, int] = {}
    for module in modules.values():
        for parameter in module.parameters(recurse=False):
            holders[id(parameter)] = holders.get(id(parameter), 0) + 1
    scales = {}
    for node in graph.nodes:
        if node.op != "call_module" or not isinstance(modules[node.target], nn.BatchNorm2d):
            continue
        source = node.all_input_nodes[0]
        if source.op != "call_module" or len(source.users) > 1 or source.target in keep:
            continue
        conv, norm = modules[source.target], modules[node.target]
        if not isinstance(conv, nn.Conv2d) or calls[source.target] > 1 or calls[node.target] > 1 or norm.running_var is None:
            continue
        if holders.get(id(conv._parameters.get("weight"))) != 1 or holders.get(id(conv.bias), 1) > 1:
            continue
        scale = torch.rsqrt(norm.running_var + norm.eps) * (norm.weight if norm.weight is not None else 1)
        shift = (norm.bias if norm.bias is not None else 0) - norm.running_mean * scale
        if conv.bias is not None:
            shift = shift + conv.bias * scale
        conv.weight.data = (conv.weight * scale.view(-1, 1, 1, 1)).contiguous(memory_format=torch.channels_last)
        conv.bias = nn.Parameter(shift.detach(), requires_grad=False)
        parent, _, name = node.target.rpartition(".")
        setattr(modules[parent], name, nn.Identity())
        scales[f"{source.target}.weight"] = scale.detach().view(-1, 1, 1, 1)
    return scales
