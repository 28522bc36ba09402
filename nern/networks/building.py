"""Prepares a freshly built network for loading weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from nern.errors import ConfigError
from nern.outputs.nested import call
from nern.support.messages import first_line


def ready(network: nn.Module, inputs: Callable[[], Any]) -> nn.Module:
    """The network without `torch.compile` around it or its parts, and with lazy parts initialised.

    A compiled network has other names in its state dict and hides its modules; the network inside computes the same. Parts such as
    `LazyConv2d` get their shapes in a first forward pass, which is run here where a network has such parts.

    Args:
        inputs: function that makes inputs for the network.

    Raises:
        ConfigError: the network has lazy parts and cannot take such inputs.
    """
    network = uncompiled(network)
    if any(is_lazy(value) for value in [*network.parameters(), *network.buffers()]):
        training = network.training
        try:
            with torch.no_grad():
                call(network.eval(), inputs())
        except Exception as error:
            raise ConfigError(
                f"the network has lazy parts and cannot take its inputs ({first_line(error)}); set architecture.size"
            ) from error
        network.train(training)
    return network


def uncompiled(network: nn.Module) -> nn.Module:
    """The network without `torch.compile`, which may be around the network or around any of its modules."""
    while isinstance(inner := getattr(network, "_orig_mod", None), nn.Module):
        network = inner
    for module in network.modules():
        for name, child in list(module._modules.items()):
            while child is not None and isinstance(inner := getattr(child, "_orig_mod", None), nn.Module):
                child = module._modules[name] = inner
        if getattr(module, "_compiled_call_impl", None) is not None:  # set by module.compile()
            module._compiled_call_impl = None
    return network
