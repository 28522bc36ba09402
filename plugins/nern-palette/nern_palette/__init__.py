"""A base of a few kernels for each layer."""

from __future__ import annotations

from collections.abc import Mapping

from nern import Base, hookimpl
from nern_palette.base import Palette

__all__ = ["Palette"]


@hookimpl
def nern_bases() -> Mapping[str, type[Base]]:
    return {"palette": Palette}
