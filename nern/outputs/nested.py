"""Functions for inputs, outputs and targets that are a tensor, or tensors nested in tuples, lists and dictionaries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree


def map_tensors(function: Callable[[Tensor], Any], value: Any) -> Any:
    """The same nesting with every tensor replaced by `function` of it."""
    return pytree.tree_map_only(Tensor, function, value)


def tensors_of(value: Any) -> list[Tensor]:
    """Every tensor in a nesting, in its order."""
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]


def count(value: Any) -> int:
    """The number of examples in a batch: the length of its first tensor, or of a list with one entry for each example."""
    if isinstance(value, list):
        return len(value)
    return len(tensors_of(value)[0])


def part(value: Any, examples: slice) -> Any:
    """Take some examples of a batch; a list holds one entry for each example."""
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


def laid_out(value: Any, layout: torch.memory_format) -> Any:
    """The same nesting with images [b, c, h, w] in a memory layout such as `torch.channels_last`, in which convolutions are faster."""
    return map_tensors(lambda tensor: tensor.contiguous(memory_format=layout) if tensor.dim() == 4 else tensor, value)


def lay_out(network: nn.Module, layout: torch.memory_format) -> nn.Module:
    """Change the memory layout of convolution weights [f, c, kh, kw] in place; weights of other dimensions stay as they are.

    Weights with one channel have the same memory in every layout, but get the strides of this one, too, because torch chooses its
    algorithm by the strides (`contiguous` would not change them).
    """
    for value in network.parameters():
        if value.dim() == 4:
            value.data = value.data.to(memory_format=layout)
    return network


def call(network: nn.Module, inputs: Any) -> Any:
    """Run a network.

    Args:
        inputs: a tensor is the one argument; a tuple holds the arguments in order, a dictionary holds them by name.
    """
    if isinstance(inputs, Mapping):
        return network(**inputs)
    return network(*inputs) if isinstance(inputs, tuple) else network(inputs)


def described(value: Any) -> str:
    """An output as messages describe it: `a tensor of shape [2, 10]`, `a tuple of 2`."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)}"
    if isinstance(value, Mapping):
        return f"a dictionary with {', '.join(map(str, value)) or 'nothing in it'}"
    return f"a {type(value).__name__}" + (f" of {len(value)}" if isinstance(value, (tuple, list)) else "")
