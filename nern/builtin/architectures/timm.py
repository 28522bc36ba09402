"""Image classifiers of timm (Wightman 2019), by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import attrs
from torch import nn

from nern import Architecture, ConfigError, OptionError, Preprocessing, at_least, hookimpl, option
from nern.toolkit.architectures import LibraryArchitecture, out_of_place
from nern.toolkit.messages import did_you_mean


def _known(instance: Any, attribute: Any, value: str) -> None:
    import timm

    if timm.is_model(value):
        name, _, tag = value.partition(".")
        if not tag or value in timm.list_models(f"{name}.*", pretrained=True):
            return
    known = timm.list_models() + timm.list_models(pretrained=True)
    hint = did_you_mean(value, known, "; timm.list_models() lists them", before="; ")
    raise OptionError(attribute.name, f"must be the name of a timm model, got '{value}'{hint}")


@attrs.frozen
class Timm(LibraryArchitecture):
    """Any image classifier of timm with convolutions, by name."""

    model: str = option(help="name of the model, with or without the tag of its weights, such as convnext_atto.d2_in1k", check=_known)
    told: ClassVar[Mapping[str, str]] = {"num_classes": "classes", "in_chans": "channels", "img_size": "size"}
    channels: int = option(3, help="channels of the input images", check=at_least(1))

    def build(self) -> nn.Module:
        return out_of_place(self._create(pretrained=False))

    def fetch(self) -> nn.Module:
        return self._create(pretrained=True)

    def _create(self, pretrained: bool) -> nn.Module:
        import timm

        arguments: dict[str, Any] = {} if self.classes is None else {"num_classes": self.classes}
        if self.channels != 3:
            arguments["in_chans"] = self.channels
        if self.size is not None and self._published().get("fixed_input_size"):
            arguments["img_size"] = self.size
        return self.constructed(partial(timm.create_model, self.model, pretrained=pretrained), arguments)

    def _published(self) -> dict[str, Any]:
        import timm

        settings = timm.models.get_pretrained_cfg(self.model)
        return {} if settings is None else dict(settings.to_dict())  # type: ignore[no-untyped-call]

    def preprocessing(self) -> Preprocessing:
        """The same preprocessing as timm's evaluation transforms, for square inputs."""
        from timm.data.config import resolve_data_config

        config = resolve_data_config(args={}, pretrained_cfg=self._published() or {"input_size": (3, 224, 224)})  # type: ignore[no-untyped-call]
        _, height, width = config["input_size"]
        if config["crop_mode"] == "border":
            raise ConfigError(f"architecture.model: {self.model} wants photographs with a border, which nern does not add")
        resize = math.floor(max(height, width) / config["crop_pct"])
        mean, std = (_per_channel(config[name], self.channels) for name in ("mean", "std"))
        return self.adjusted(
            Preprocessing(
                mean, std, (self.channels, height, width), resize, config["interpolation"], squash=config["crop_mode"] == "squash"
            )
        )  # fmt: skip


def _per_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    return tuple(values) if len(values) == channels else (sum(values) / len(values),) * channels


@hookimpl
def nern_architectures() -> Mapping[str, type[Architecture]]:
    return {"timm": Timm}
