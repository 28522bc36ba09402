"""Folds batch norms into the convolutions in front of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


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
