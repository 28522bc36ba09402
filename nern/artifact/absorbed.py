"""Which entries of a network are the same in every file, because its batch norms are part of the convolutions in front of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
from torch import nn

from nern.networks.batch_norm import Pair

VARIANCE = ".running_var"


@attrs.frozen
class Absorbed:
    """The batch norms of a network that only add a bias, kept as what sets them apart, since most networks have no others.

    Batch norms are known by their running variance among the names of a state dict.
    """

    eps: tuple[float, ...]  # what is added to their variances: one number for all, or one for each
    others: tuple[str, ...] = ()  # batch norms that stay as they are
    zeros: tuple[str, ...] = ()  # biases of convolutions that are zero, since the batch norms have taken them over

    @classmethod
    def of(cls, network: nn.Module, pairs: Sequence[Pair]) -> Absorbed | None:
        """What is to be known of the pairs that were absorbed in a network; None where there are none."""
        if not pairs:
            return None
        absorbed = {pair.norm: float(network.get_submodule(pair.norm).eps) for pair in pairs}  # type: ignore[arg-type]
        norms = _norms(list(network.state_dict()))
        eps = [absorbed[name] for name in norms if name in absorbed]
        zeros = [f"{pair.convolution}.bias" for pair in pairs if network.get_submodule(pair.convolution).bias is not None]
        others = [name for name in norms if name not in absorbed]
        return cls(tuple(eps[:1] if len(set(eps)) == 1 else eps), tuple(others), tuple(zeros))

    def constants(self, names: Sequence[str]) -> dict[str, float]:
        """The entries that are the same in every network, with their values.

        Args:
            names: of all entries, in the order of the state dict.

        Raises:
            ValueError: there are more or fewer batch norms than are known.
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
