"""The base of architectures that torchvision builds."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import attrs
import torch
from torch import nn

from nern.errors import OptionError
from nern.interfaces import Preprocessing
from nern.networks.state_dicts import load_weights
from nern.options import option
from nern.toolkit.architectures import LibraryArchitecture, only, out_of_place


@attrs.frozen
class TorchvisionNetwork(LibraryArchitecture):
    """Base of the networks that torchvision builds."""

    version: str | None = option(None, help="torchvision's weights whose preprocessing is used, such as IMAGENET1K_V1; null for the newest")
    told: ClassVar[Mapping[str, str]] = {"num_classes": "classes", "image_size": "size", "input_size": "size"}
    """Arguments of torchvision's builders that other options set already: argument → option."""
    auxiliary: ClassVar[Mapping[str, tuple[str, ...]]] = {"inception_v3": ("AuxLogits.",), "googlenet": ("aux1.", "aux2.")}
    """Prefixes of auxiliary classifiers, which are used in training only: published weights contain them, the network does not."""

    @property
    @abstractmethod
    def builder(self) -> str:
        """The name of the network in torchvision."""

    def build(self) -> nn.Module:
        from torchvision.models import get_model

        arguments: dict[str, Any] = {} if self.classes is None else {"num_classes": self.classes}
        if self.builder in self.auxiliary:
            arguments |= {"aux_logits": False, "init_weights": True, "transform_input": True}  # the last as with published weights
        if self.size is not None and self.builder.startswith("vit_"):
            arguments["image_size"] = self.size
        if self.size is not None and self.builder.startswith("maxvit"):
            arguments["input_size"] = (self.size, self.size)
        return out_of_place(self.constructed(partial(get_model, self.builder, weights=None), arguments))

    def fetch(self) -> nn.Module:
        from torchvision.models import get_model

        network: nn.Module = get_model(self.builder, weights=self._published(), progress=False)
        return network

    def load(self, network: nn.Module) -> dict[str, torch.dtype]:
        if self.pretrained or self.weights is None:
            return super().load(network)
        return load_weights(network, self.weights, skip=self.auxiliary.get(self.builder, ()), entry=self.entry, rename=self.rename)

    def preprocessing(self) -> Preprocessing:
        published = self._published().transforms()
        side, resize = only(published.crop_size), only(published.resize_size)
        return self.adjusted(
            Preprocessing(tuple(published.mean), tuple(published.std), (3, side, side), resize, published.interpolation.value)
        )

    def _published(self) -> Any:
        """The published weights that the option `version` names."""
        from torchvision.models import get_model_weights

        versions = get_model_weights(self.builder)
        if self.version is None:
            return versions.DEFAULT
        names = [published.name for published in versions]
        if self.version not in names:
            raise OptionError("version", f"must be one of {', '.join(names)}, got '{self.version}'")
        return versions[self.version]

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.version is not None:
            self._published()
