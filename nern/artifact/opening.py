"""The network of a file, built from its declared architecture when it is first wanted, and within bounds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from nern.artifact.budget import bounded
from nern.artifact.entries import Entry
from nern.errors import ArtifactError
from nern.interfaces import Architecture
from nern.kernels.coordinates import KernelGrid
from nern.networks.state_dicts import same_bits, set_exact_entries
from nern.support.messages import first_line


@attrs.frozen(eq=False)
class Opening:
    """A network that is not built yet: its architecture, entries and copied values, as read from a file."""

    path: Path
    about: dict[str, Any]
    entries: list[Entry]
    grid: KernelGrid
    copied: dict[str, Tensor]

    def build(self, architecture: Architecture) -> nn.Module:
        """The network of the file, with the copied entries in place.

        Raises:
            ArtifactError: the architecture fails, or builds another network or one that is too large for the file.
        """
        try:
            with bounded(self.path.stat().st_size, f"{self.path}: its network"):
                network = architecture.built().eval()
        except ArtifactError:
            raise
        except Exception as error:  # the architecture may be a plugin's, and may raise anything
            raise ArtifactError(
                f"{self.path}: the network cannot be built: {first_line(error)}; state_dict() and load(…, into=module) do without it"
            ) from error
        check_layout(self.path, self.about, network, self.grid, self.entries)  # with its own layers: it says how they are represented
        return self.filled(network)

    @torch.no_grad()
    def filled(self, network: nn.Module) -> nn.Module:
        """`network` with the copied entries loaded; values that its own types cannot hold exactly are remembered beside it."""
        own, exact = network.state_dict(), {}
        for name, value in self.copied.items():
            own[name].copy_(value.real if value.is_complex() and not own[name].is_complex() else value)
            if not same_bits(own[name].to(value.dtype), value):
                exact[name] = value
        set_exact_entries(network, exact)
        return network


def check_layout(path: Path, about: dict[str, Any], network: nn.Module, grid: KernelGrid, entries: Sequence[Entry] = ()) -> None:
    """Raise ArtifactError where a network's names, shapes or layers are not those that the file was written for."""
    own = [(name, tuple(value.shape)) for name, value in network.state_dict().items()]
    if about["layout"] != layout_of(network, grid) or (entries and [(entry.name, entry.shape) for entry in entries] != own):
        raise ArtifactError(
            f"{path} was written for another version of architecture '{about['architecture']['name']}': names or shapes differ"
        )


def layout_of(network: nn.Module, grid: KernelGrid) -> str:
    """A fingerprint of the names and shapes of a network, which a file records to recognise it."""
    entries = [(name, tuple(value.shape)) for name, value in network.state_dict().items()]
    layers = [(layer.parameter, layer.layer, layer.filters, layer.channels, layer.kernel) for layer in grid.layers]
    return hashlib.sha256(repr((entries, layers)).encode()).hexdigest()[:16]
