"""Inputs, outputs and targets that are a tensor, or tensors in tuples, lists and dictionaries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree


def map_tensors(function: Callable[[Tensor], Any], value: Any) -> Any:
    """The same nesting with every tensor replaced by `function` of it."""
    return pytree.tree_map_only(Tensor, function, value)


def tensors_of(value: Any) -> list[Tensor]:
    """Every tensor in a nesting, in its order."""
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]


def count(value: Any) -> int:
    """How many examples a batch holds: the length of its first tensor, or of a list with one entry for each example."""
    if isinstance(value, list):
        return len(value)
    return len(tensors_of(value)[0])


def part(value: Any, examples: slice) -> Any:
    """Some examples of a batch; a list holds one entry for each example."""
    if isinstance(value, Tensor):
        return value[examples]
    if isinstance(value, list):
        return value[examples]
    if isinstance(value, Mapping):
        return {key: part(item, examples) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(part(item, examples) for item in value)
    return value


def moved(value: Any, device: torch.device | str) -> Any:
    """The same nesting on another device."""
    return map_tensors(lambda tensor: tensor.to(device), value)


def to_float32(value: Any) -> Any:
    """The same nesting with floating-point tensors of every width as float32."""
    return map_tensors(lambda tensor: tensor.float() if tensor.is_floating_point() else tensor, value)


def channels_last(value: Any) -> Any:
    """The same nesting with images [b, c, h, w] laid out pixel by pixel, which convolutions are faster on."""
    return map_tensors(lambda tensor: tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor, value)


def lay_out_channels_last(network: nn.Module) -> nn.Module:
    """Lay convolution weights [f, c, kh, kw] out like `channels_last` inputs, in place; others, such as volumes', stay as they are."""
    for value in network.parameters():
        if value.dim() == 4:
            value.data = value.data.contiguous(memory_format=torch.channels_last)
    return network


def call(network: nn.Module, weights: Mapping[str, Tensor], inputs: Any) -> Any:
    """Run a network with some of its weights replaced.

    Args:
        weights: by parameter name.
        inputs: a tensor is the one argument; a tuple holds the arguments in order, a dictionary holds them by name.
    """
    if isinstance(inputs, Mapping):
        return functional_call(network, dict(weights), (), dict(inputs))
    return functional_call(network, dict(weights), inputs if isinstance(inputs, tuple) else (inputs,))


def described(value: Any) -> str:
    """`a tensor of shape [2, 10]`, `a tuple of 2`, as messages call an output."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)}"
    if isinstance(value, Mapping):
        return f"a dictionary with {', '.join(map(str, value)) or 'nothing in it'}"
    return f"a {type(value).__name__}" + (f" of {len(value)}" if isinstance(value, (tuple, list)) else "")
