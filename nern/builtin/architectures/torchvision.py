"""Image classifiers of torchvision, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from nern import Architecture, OptionError, hookimpl, option
from nern.toolkit.messages import did_you_mean
from nern.toolkit.torchvision_networks import TorchvisionNetwork


def _classifier(instance: Any, attribute: Any, value: str) -> None:
    from torchvision import models

    known = models.list_models(module=models)
    if value in known:
        return
    if value in models.list_models():
        raise OptionError(attribute.name, f"must be an image classifier, which torchvision's {value} is not")
    hint = did_you_mean(value, known, f"; there are: {', '.join(known)}", before="; ")
    raise OptionError(attribute.name, f"must be the name of a torchvision model, got '{value}'{hint}")


@attrs.frozen
class Torchvision(TorchvisionNetwork):
    """Any image classifier of torchvision with convolutions, by name."""

    model: str = option(help="name of the model, such as mobilenet_v3_small", check=_classifier)

    @property
    def builder(self) -> str:
        return self.model


@hookimpl
def nern_architectures() -> Mapping[str, type[Architecture]]:
    return {"torchvision": Torchvision}
