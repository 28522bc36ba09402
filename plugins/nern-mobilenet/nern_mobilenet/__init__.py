"""MobileNetV2 and MobileNetV3 for nern."""

from __future__ import annotations

from collections.abc import Mapping

from nern import Architecture, hookimpl
from nern_mobilenet.architecture import MobileNet
from nern_mobilenet.mappings import Pointwise

__all__ = ["MobileNet", "Pointwise"]


@hookimpl
def nern_architectures() -> Mapping[str, type[Architecture]]:
    return {"mobilenet": MobileNet}
