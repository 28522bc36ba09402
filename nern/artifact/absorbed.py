"""Batch norms whose scale was moved into the convolution before them: most of their entries become constants, which no file holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
from torch import nn

from nern.networks.batch_norm import Pair

VARIANCE = ".running_var"


@attrs.frozen
class Absorbed:
    """The absorbed batch norms of a network: their scale is part of the convolution before them, and they only add a bias.

    In most networks every batch norm is absorbed, so a file names the exceptions alone.

    A name in a state dict that ends in `.running_var` tells that there is a batch norm.
    """

    eps: tuple[float, ...]  # the small number that each one adds to its variance: one for all, or one for each
    others: tuple[str, ...] = ()  # names of the batch norms that are not absorbed
    zeros: tuple[str, ...] = ()  # names of biases of convolutions that are zero, since the batch norm behind adds them

    @classmethod
    def of(cls, network: nn.Module, pairs: Sequence[Pair]) -> Absorbed | None:
        """The description of the pairs that were absorbed in a network; None where no pair was."""
        if not pairs:
            return None
        absorbed = {pair.norm: float(network.get_submodule(pair.norm).eps) for pair in pairs}  # type: ignore[arg-type]
        norms = _norms(list(network.state_dict()))
        eps = [absorbed[name] for name in norms if name in absorbed]
        zeros = [f"{pair.convolution}.bias" for pair in pairs if network.get_submodule(pair.convolution).bias is not None]
        others = [name for name in norms if name not in absorbed]
        return cls(tuple(eps[:1] if len(set(eps)) == 1 else eps), tuple(others), tuple(zeros))

    def constants(self, names: Sequence[str]) -> dict[str, float]:
        """The state dict entries that absorption makes constant, with their values.

        Args:
            names: the names of all entries, in the order of the state dict.

        Raises:
            ValueError: the names hold more or fewer batch norms than were absorbed.
        """
        norms = [name for name in _norms(names) if name not in self.others]
        eps = self.eps * len(norms) if len(self.eps) == 1 else self.eps
        if len(eps) != len(norms):
            raise ValueError(f"{len(eps)} batch norms were absorbed, the network has {len(norms)}")
        known, values = set(names), dict.fromkeys(self.zeros, 0.0)
        for name, added in zip(norms, eps, strict=True):
            own = {"weight": 1.0, "running_mean": 0.0, "running_var": 1.0 - added, "num_batches_tracked": 0.0}
            values |= {f"{name}.{entry}": value for entry, value in own.items() if f"{name}.{entry}" in known}
        return values

    def to_dict(self) -> dict[str, Any]:
        return {name: list(value) for name, value in attrs.asdict(self).items() if value}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Absorbed:
        """Undo `to_dict`."""
        return cls(*(tuple(values.get(field.name, ())) for field in attrs.fields(cls)))


def _norms(names: Sequence[str]) -> list[str]:
    return [name.removesuffix(VARIANCE) for name in names if name.endswith(VARIANCE)]
