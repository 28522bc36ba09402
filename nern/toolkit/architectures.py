"""Base classes of architectures whose layers and feature maps are found by walking the network's modules."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import attrs
import torch
from torch import nn

from nern.errors import DataError, OptionError
from nern.interfaces import Architecture, Preprocessing, check_mean, check_std
from nern.kernels.coordinates import LayerMapping
from nern.networks.copies import duplicate as duplicate
from nern.networks.feature_maps import choose_feature_maps
from nern.networks.layers import map_layers
from nern.networks.state_dicts import keep_exact as keep_exact
from nern.networks.state_dicts import load_weights as load_weights
from nern.options import above, at_least, at_most, option
from nern.support.messages import first_line, some


@attrs.frozen
class DiscoveredArchitecture(Architecture):
    """A network whose layers and feature maps are found by walking its modules.

    A subclass only builds the network. In-place activations are allowed, but a compared map that one changes has to be copied
    first; `out_of_place` makes activations write new tensors, which saves the copy.
    """

    _layers: list[str] | Literal["convolutions", "all"] = option(
        "convolutions",
        help="represented layers: convolutions for every one that a forward pass calls; all for linear layers as well; or patterns of "
        "parameter names such as layer?.*.weight, which may name tables of embeddings, too",
    )
    _features: list[str] | None = option(
        None,
        help="feature maps to compare: patterns of module names, and of sums such as layer?.*.sum; null for the batch norm (or the "
        "output) of each represented convolution and every residual sum",
    )

    def layers(self, network: nn.Module) -> Sequence[LayerMapping]:
        return map_layers(network, self.example_inputs(), self._chosen())

    def features(self, network: nn.Module) -> Sequence[str]:
        return choose_feature_maps(network, self.layers(network), self.example_inputs(), self._features)

    def _chosen(self) -> Literal["convolutions", "all"] | Sequence[str]:
        """The layers to represent, as `nern.networks.layers.map_layers` takes them."""
        return self._layers


@attrs.frozen
class LibraryArchitecture(DiscoveredArchitecture):
    """A network that a library builds by name, and whose weights the library can download."""

    classes: int | None = option(None, help="number of classes; null for the library's own", check=at_least(2))
    size: int | None = option(None, help="height and width of the input images in pixels; null for the model's own", check=at_least(1))
    resize: int | None = option(
        None,
        help="shorter side of photographs before the centre crop, in pixels; null for the model's own, or, where size is set, for "
        "images that have that size already",
        check=at_least(1),
    )
    crop: float | None = option(
        None, help="size divided by the shorter side before the centre crop: another way to give resize", check=[above(0), at_most(1)]
    )
    mean: list[float] | None = option(None, help="mean of each input channel, of values in [0, 1]; null for the model's own")
    std: list[float] | None = option(None, help="standard deviation of each input channel; null for the model's own")
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"] | None = option(
        None, help="how photographs are resized; null for the model's own"
    )
    arguments: dict[str, Any] = option(factory=dict, help="further arguments of the library's constructor, such as transform_input")
    pretrained: bool = option(False, help="take the library's own weights, which it downloads; otherwise name a file in weights")

    def __attrs_post_init__(self) -> None:
        for name, check in (("mean", check_mean), ("std", check_std)):
            if getattr(self, name) is not None:
                check(getattr(self, name))
        if self.crop is not None and self.resize is not None:
            raise OptionError("crop", "must be null where resize is given: both say how large photographs are before the crop")
        if self.pretrained and self.weights is not None:
            raise OptionError("pretrained", "must be false where weights names a file")
        if self.pretrained and self.classes is not None:
            raise OptionError("classes", "must be null where pretrained is true: the library's weights have classes of their own")
        if self.resize is not None and self.size is not None and self.resize < self.size:
            raise OptionError("resize", f"must be >= size ({self.size}), got {self.resize}")

    @property
    def has_weights(self) -> bool:
        return self.pretrained or super().has_weights

    def constructed(self, make: Callable[..., nn.Module], own: Mapping[str, Any]) -> nn.Module:
        """Call a constructor of the library with its arguments and those of the option `arguments`; returns the network.

        Raises:
            OptionError: an argument is set twice, or the constructor refuses one.
        """
        for name, instead in self.told.items():
            if name in self.arguments and name in own:
                raise OptionError("arguments", f"must not hold '{name}' where architecture.{instead} is set: both say the same")
        try:
            return make(**{**own, **self.arguments})
        except (TypeError, ValueError, AssertionError, KeyError, AttributeError) as error:
            if not self.arguments:
                raise
            raise OptionError("arguments", f"({', '.join(self.arguments)}) are refused by the library: {first_line(error)}") from error

    told: ClassVar[Mapping[str, str]] = {}
    """Arguments of the library's constructors that other options set already: argument → option."""

    def adjusted(self, published: Preprocessing) -> Preprocessing:
        """The library's preprocessing, in which values that options set are replaced.

        Raises:
            OptionError: mean or std does not have one value for each channel of the inputs.
        """
        channels = published.size[0]
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values is not None and len(values) != channels:
                raise OptionError(name, f"must have one value per channel ({channels}), got {len(values)}")
        size, resize = published.size, published.resize
        if self.size is not None:
            size, resize = (channels, self.size, self.size), None
        if self.crop is not None:
            resize = math.floor(max(size[1:]) / self.crop)
        return attrs.evolve(
            published,
            mean=published.mean if self.mean is None else tuple(self.mean),
            std=published.std if self.std is None else tuple(self.std),
            size=size,
            resize=self.resize or resize,
            interpolation=self.interpolation or published.interpolation,
        )

    @abstractmethod
    def fetch(self) -> nn.Module:
        """The library's network with its own weights, which are downloaded if necessary."""

    def load(self, network: nn.Module) -> dict[str, torch.dtype]:
        if not self.pretrained:
            return super().load(network)
        try:
            state = self.fetch().state_dict()
        except Exception as error:  # every library raises its own kinds: of urllib, of a hub's client, of the file system
            raise DataError(
                f"cannot get the library's weights ({first_line(error)}); set architecture.pretrained=false and weights=FILE"
            ) from error
        own = network.state_dict()
        other = [name for name, value in own.items() if name not in state or state[name].shape != value.shape]
        if other:
            raise DataError(f"the library's weights are of another network than architecture.arguments builds: {some(other)} differ")
        for name in set(state) - set(own):
            del state[name]  # the state dict is changed in place, because some networks need the versions of modules that it carries
        network.load_state_dict(state)
        return {name: value.dtype for name, value in own.items()}


def out_of_place(network: nn.Module) -> nn.Module:
    """Switch off in-place activations, so that none changes a feature map that is compared."""
    for module in network.modules():
        if getattr(module, "inplace", False) is True:
            setattr(module, "inplace", False)  # noqa: B010 (a module's attributes are typed as modules and tensors)
    return network


def only(value: Any) -> Any:
    """The number in a list of equal numbers, as libraries write sizes; a plain number stays as it is."""
    return value[0] if isinstance(value, (list, tuple)) else value
