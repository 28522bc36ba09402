"""Folds batch norms into the convolutions before them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import attrs
import torch
from torch import Tensor, nn

from nern.networks.copies import copied


@attrs.frozen
class Pair:
    """The names of a convolution and of the batch norm that is the only user of its output."""

    convolution: str
    norm: str


def foldable(network: nn.Module, keep: Collection[str] = ()) -> list[Pair]:
    """The pairs of a convolution and a batch norm that is the only user of its output, in the order of a forward pass.

    Left out are convolutions that `keep` names, that carry a hook, or whose weight is shared, computed or read a second time, and
    batch norms that normalise by the statistics of the batch. Of a network that torch.fx cannot trace, no pair is found.
    """
    try:
        graph = torch.fx.symbolic_trace(copied(network, torch.clone)).graph  # a copy, since a forward pass may change buffers
    except Exception:
        return []
    modules = dict(network.named_modules(remove_duplicate=False))
    calls: dict[str, int] = {}
    read: set[int] = set()  # modules whose parameters are used by something else than their own call
    for node in graph.nodes:
        if node.op == "call_module":
            calls[node.target] = calls.get(node.target, 0) + 1
        elif node.op == "get_attr":
            read.add(id(modules.get(node.target.rpartition(".")[0])))
    holders: dict[int, int] = {}
    for module in network.modules():
        for parameter in module.parameters(recurse=False):
            holders[id(parameter)] = holders.get(id(parameter), 0) + 1
    pairs = []
    for node in graph.nodes:
        if node.op != "call_module" or not isinstance(modules[node.target], nn.BatchNorm2d):
            continue
        source = node.all_input_nodes[0]
        if source.op != "call_module" or len(source.users) > 1 or source.target in keep:
            continue
        conv, norm = modules[source.target], modules[node.target]
        if not isinstance(conv, nn.Conv2d) or calls[source.target] > 1 or calls[node.target] > 1 or norm.running_var is None:
            continue
        if norm.training or any(id(module) in read or _has_hooks(module) for module in (conv, norm)):
            continue
        if holders.get(id(conv._parameters.get("weight"))) != 1 or holders.get(id(conv.bias), 1) > 1:
            continue
        pairs.append(Pair(source.target, node.target))
    return pairs


def fold_batch_norms(
    network: nn.Module, keep: Collection[str] = (), skip: Collection[str] = (), layout: torch.memory_format = torch.channels_last
) -> dict[str, Tensor]:
    """Fold the batch norms that `foldable` finds into their convolutions, in place.

    The network must be in eval mode. Batch norms that `foldable` leaves out stay as they are: folding only saves time.

    Args:
        keep: names of convolutions that stay as they are.
        skip: names of batch norms that stay as they are.
        layout: memory layout of the folded weights.

    Returns:
        The scale [filters, 1, 1, 1] of every folded convolution's weight, by each of its names.
    """
    scales: dict[str, Tensor] = {}
    modules = dict(network.named_modules(remove_duplicate=False))
    for pair in foldable(network, keep):
        if pair.norm in skip:
            continue
        conv, norm = network.get_submodule(pair.convolution), network.get_submodule(pair.norm)
        assert isinstance(conv, nn.Conv2d)
        scale, shift = _scale_and_shift(conv, norm)
        conv.weight.data = (conv.weight * scale.view(-1, 1, 1, 1)).contiguous(memory_format=layout)
        conv.bias = nn.Parameter(shift.detach(), requires_grad=False)
        for place in network.modules():
            for name, child in list(place._modules.items()):
                if child is norm:  # under every name of a shared weight
                    place._modules[name] = nn.Identity()
        scales |= {f"{name}.weight": scale.detach().view(-1, 1, 1, 1) for name, module in modules.items() if module is conv}
    return scales


def absorbable(network: nn.Module, represented: Collection[str]) -> list[Pair]:
    """The batch norms whose scale can become part of a represented convolution.

    Args:
        represented: parameter names of the weights that are represented.
    """
    pairs = [pair for pair in foldable(network) if f"{pair.convolution}.weight" in represented]
    return [pair for pair in pairs if network.get_submodule(pair.norm).bias is not None]


@torch.no_grad()
def absorb_batch_norms(network: nn.Module, pairs: Sequence[Pair]) -> None:
    """Move the scales of batch norms into the convolutions in front of them, in place.

    The network computes the same as before, but such a batch norm only adds its bias from now on.
    """
    for pair in pairs:
        conv, norm = network.get_submodule(pair.convolution), network.get_submodule(pair.norm)
        assert isinstance(conv, nn.Conv2d)
        scale, shift = _scale_and_shift(conv, norm)
        conv.weight.mul_(scale.view(-1, 1, 1, 1))
        norm.bias.copy_(shift)  # type: ignore[operator]
    set_constants(network, pairs)


def constant_entries(network: nn.Module, pairs: Sequence[Pair]) -> dict[str, float]:
    """The state dict entries that are constants in every network whose batch norms are absorbed, with their values."""
    values: dict[str, float] = {}
    for pair in pairs:
        conv, norm = network.get_submodule(pair.convolution), network.get_submodule(pair.norm)
        own = {"running_mean": 0.0, "running_var": 1.0 - float(norm.eps), "weight": 1.0, "num_batches_tracked": 0.0}  # type: ignore[arg-type]
        values |= {f"{pair.norm}.{name}": own[name] for name in norm.state_dict() if name in own}
        if conv.bias is not None:
            values[f"{pair.convolution}.bias"] = 0.0
    return values


@torch.no_grad()
def set_constants(network: nn.Module, pairs: Sequence[Pair]) -> list[str]:
    """Set the entries of absorbed batch norms that are constants; returns their names."""
    state, values = network.state_dict(), constant_entries(network, pairs)
    for name, value in values.items():
        state[name].fill_(value)
    return list(values)


def _scale_and_shift(conv: nn.Conv2d, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """The factor of a convolution's weight that its batch norm makes [filters], and the bias of both together [filters]."""
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_var is not None
    assert norm.running_mean is not None
    scale = torch.rsqrt(norm.running_var + norm.eps) * (norm.weight if norm.weight is not None else 1)
    shift = (norm.bias if norm.bias is not None else 0) - norm.running_mean * scale
    return scale, shift if conv.bias is None else shift + conv.bias * scale


def _has_hooks(module: nn.Module) -> bool:
    """Whether a module has hooks, which may look at its inputs and outputs or change them."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, name, None) for name in hooks)
