"""The base that adds nothing."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from nern import Base, KernelGrid, hookimpl


@attrs.frozen
class NoBase(Base):
    """No base: predicted kernels are the kernels of the reconstructed network."""

    def build(self, grid: KernelGrid) -> None:
        return None


@hookimpl
def nern_bases() -> Mapping[str, type[Base]]:
    return {"none": NoBase}
