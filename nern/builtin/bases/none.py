"""Nothing is added to predicted kernels."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from nern import Base, KernelGrid, hookimpl


@attrs.frozen
class NoBase(Base):
    """Nothing: predicted kernels are the network's."""

    def build(self, grid: KernelGrid) -> None:
        return None


@hookimpl
def nern_bases() -> Mapping[str, type[Base]]:
    return {"none": NoBase}
