"""Copies of networks, and forward passes that leave a network as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nern.outputs.nested import tensors_of


def duplicate(network: nn.Module) -> nn.Module:
    """A copy of a network that shares nothing with it.

    Tensors that a forward pass has left in attributes, among them the weights of torch's old `weight_norm`, are copied without the
    graph that computed them.
    """
    return copy.deepcopy(network, dict(_left_by_forward_passes(network)))  # type: ignore[arg-type]


def copied(network: nn.Module, place: Callable[[Tensor], Tensor]) -> nn.Module:
    """A copy of a network whose parameters and buffers are what `place` gives for those of the original.

    Modules and tensors with two names have both in the copy, too. Tensors that `place` returns unchanged are shared with the original.
    """
    known = _left_by_forward_passes(network)
    for value in [*network.parameters(), *network.buffers()]:
        put = place(value.detach())
        known[id(value)] = nn.Parameter(put, requires_grad=False) if isinstance(value, nn.Parameter) else put
    return copy.deepcopy(network, dict(known))  # type: ignore[arg-type]


@contextmanager
def unchanged(network: nn.Module) -> Iterator[None]:
    """Give the buffers of a network their values again after a block whose forward passes may change them."""
    before = [
        (module, name, value, value._version, value.clone())
        for module in network.modules()
        for name, value in module._buffers.items()
        if value is not None
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for module, name, value, version, kept in before:
                if module._buffers[name] is not value:
                    module._buffers[name] = value
                if value._version != version:
                    value.copy_(kept)


def computed_attributes(network: nn.Module) -> list[Tensor]:
    """The tensors in attributes of modules that have a graph, because a forward pass has left them there."""
    return [value for module in network.modules() for value in tensors_of(list(vars(module).values())) if not value.is_leaf]


def _left_by_forward_passes(network: nn.Module) -> dict[int, Tensor]:
    """Copies without a graph of the tensors that have one, by the id of the tensor; `copy.deepcopy` refuses such tensors."""
    return {id(value): value.detach().clone() for value in computed_attributes(network)}
