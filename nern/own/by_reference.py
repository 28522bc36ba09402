"""Builds networks by reference: a name in a library, a depth, or a class in a file, with weights from a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from nern.config.structuring import structure_component
from nern.errors import ConfigError
from nern.interfaces import Architecture
from nern.options import option_fields, option_name
from nern.registry.discovery import create_registry
from nern.registry.registry import Registry
from nern.run.own_network import OwnNetwork, usual_resize
from nern.toolkit.references import build_reference

LIBRARIES = ("timm", "torchvision")


def own_network(
    reference: str,
    weights: str | Path,
    images: str | Path | None,
    *,
    arguments: Mapping[str, Any],
    layers: str | Sequence[str] = "all",
    size: Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    resize: int | None = None,
    recipe: str = "fast",
    steps: float = 1.0,
    registry: Registry | None = None,
) -> OwnNetwork:
    """The network that a reference builds, with the weights of a file, and a folder of images or noise as data.

    Args:
        reference: `timm:NAME`, `torchvision:NAME`, `cifar-resnet:20`, `file.py:Class` or `package.module:function`.
        weights: a state dict (.safetensors, .pt, .pth, .th).
        images: a folder of images; None for noise.
        arguments: of the class or function, of the library's constructor, or further options of the architecture.
        size: channels, height and width of the inputs, or one side of square inputs.

    Raises:
        ConfigError: there is no such network, or an option is impossible for it.
        DataError: the weights are missing or belong to another network.
    """
    registry = registry or create_registry()
    values = describe(reference, arguments, registry, layers, size, images is not None, resize)
    values |= {name: list(numbers) for name, numbers in (("mean", mean), ("std", std)) if numbers is not None}
    values["weights"] = str(Path(weights).absolute())
    component = structure_component("architecture", values, registry, f"--model {reference}")
    network = component.built().eval()
    component.load(network)
    return OwnNetwork(network, images, recipe=recipe, steps=steps, described=values)


def network_of(reference: str, arguments: Mapping[str, Any], registry: Registry) -> nn.Module:
    """The network that a reference builds, with fresh weights; references and arguments are those of `own_network`.

    Raises:
        ConfigError: there is no such network, or an argument is impossible for it.
    """
    if reference.partition(":")[0] not in (*LIBRARIES, "cifar-resnet"):
        return build_reference(reference, arguments)
    architecture: Architecture = structure_component(
        "architecture", describe(reference, arguments, registry), registry, f"--model {reference}"
    )
    return architecture.built()


def describe(
    reference: str,
    arguments: Mapping[str, Any],
    registry: Registry,
    layers: str | Sequence[str] = "all",
    size: Sequence[int] | None = None,
    resized: bool = False,
    resize: int | None = None,
) -> dict[str, Any]:
    """The `architecture` section of a configuration for a reference."""
    kind, _, name = reference.partition(":")
    chosen = layers if isinstance(layers, str) else list(layers)
    side = {} if size is None else {"size": size[-1]}
    if kind in LIBRARIES:
        options = {option_name(field) for field in option_fields(registry.find("architecture", kind).cls)}
        own = {key: value for key, value in arguments.items() if key in options}
        further = (
            {"arguments": {key: value for key, value in arguments.items() if key not in options}} if arguments.keys() - options else {}
        )
        return {"name": kind, "model": name, "layers": chosen, **side, **({} if resize is None else {"resize": resize}), **further, **own}
    if kind == "cifar-resnet":
        if not name.isdigit():
            raise ConfigError(f"--model {reference}: write the depth, such as cifar-resnet:20")
        return {"name": kind, "depth": int(name), **side, **arguments}
    place, _, attribute = reference.rpartition(":")
    build = f"{Path(place).expanduser().absolute()}:{attribute}" if place.endswith(".py") else reference
    values: dict[str, Any] = {"name": "module", "build": build, "arguments": dict(arguments), "layers": chosen, "network": attribute}
    values["size"] = [3, 224, 224] if size is None else [3, size[0], size[0]] if len(size) == 1 else list(size)
    if resized:
        values["resize"] = resize or usual_resize(values["size"][-1])
    return values
