"""The file a user keeps: one safetensors file from which the whole network can be rebuilt.

The file holds these tensors:

- `predictor.*`, `embedding.*`: trained parameters, as floats or as integers with their steps (`nern.representation.quantization`);
  of a pruned predictor a bitmask and the values that are left (`nern.artifact.bitmask`);
- `base.*`: the base, which is added to predictions, where the representation has one;
- `ordering`: the orders of the kernels as packed bits, uint8;
- `zeros`: packed bits that say which weights stay zero, where some do;
- `scales`: one number for each layer, where layers are scaled;
- `copied.<dtype>`: every parameter and buffer that is not represented, one after the other in the order of the state dict. There is
  one tensor for each dtype, since a name and a shape for each entry would take more bytes than many entries have;
- `names`: all names and shapes, compressed (`nern.artifact.entries`), where nern and torch alone cannot build the network.

The metadata `nern` is a JSON object. It holds a checksum over itself and all tensors, since a changed option would rebuild another
network as surely as a changed weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from safetensors.torch import save
from torch import Tensor, nn

from nern.artifact.absorbed import Absorbed
from nern.artifact.coded_parameters import encode_coded
from nern.artifact.copied import join_copied, storable
from nern.artifact.encoding import encode
from nern.artifact.entries import Entry, entries_of, pack_entries
from nern.artifact.layout import FORMAT_VERSION, NAMES, WITHOUT_BASE, compact, seal, untied
from nern.artifact.opening import Opening, layout_of
from nern.errors import ArtifactError, DataError
from nern.interfaces import Architecture, Base, Embedding, Predictor
from nern.kernels.coordinates import KernelGrid
from nern.kernels.orders import pack_orders
from nern.networks.state_dicts import digest, exact_entries, with_weights
from nern.registry.registry import Registry
from nern.representation.entropy import is_coded
from nern.representation.quantization import rounded_copy
from nern.representation.representation import Representation
from nern.support.bits import pack_bits
from nern.support.files import expand_path, write_tensors
from nern.support.messages import cannot_write
from nern.support.showing import Shown


@attrs.frozen
class Bytes:
    """Bytes on disk."""

    original: int
    """The original network's state dict as a safetensors file."""
    predictor: int
    """The predictor's parameters and buffers, and the scales of layers."""
    embedding: int
    """The embedding's parameters and buffers."""
    ordering: int
    """Which kernel belongs to which coordinate."""
    zeros: int
    """Where weights stay zero."""
    copied: int
    """The parameters and buffers that are not represented, but stored as they are."""
    header: int
    """Names, shapes and metadata."""
    total: int
    """Bytes of the whole file."""
    base: int = 0
    """The base, which is added to predictions."""

    @property
    def change(self) -> str:
        """The bytes before and after as text, with the ratio: smaller or larger."""
        ratio = self.original / max(1, self.total)
        words = f"{ratio:.1f} times smaller" if ratio >= 1 else f"{1 / ratio:.1f} times LARGER than the network itself"
        return f"{self.original:,} before, {self.total:,} after ({words})"


@attrs.define
class Artifact(Shown):
    """A representation together with everything needed to rebuild the network."""

    representation: Representation
    """The trained representation."""
    _architecture: Architecture | Callable[[], Architecture]
    embedding: Embedding
    """The component that built the representation's embedding."""
    predictor: Predictor
    """The component that built the representation's predictor."""
    _network: nn.Module | Opening  # the network with its copied parameters, or what builds it when it is first asked for
    dtypes: dict[str, torch.dtype]
    """Type of every entry of the original state dict."""
    registry: Registry
    """The registry that the components come from."""
    sha256: str
    """SHA-256 of the original weights."""
    notes: dict[str, Any]
    """Facts about the run: its task without paths, and its figures."""
    absorbed: Absorbed | None = None
    """Batch norms whose scales are part of the represented convolutions before them."""
    copied: str = "exact"
    """How copied floating-point entries are stored: exact, float16 or int8."""
    base: Base | None = None
    """The component that built the representation's base; None where it has no base."""

    def __repr__(self) -> str:
        own = self._architecture if isinstance(self._architecture, Architecture) else None
        network = getattr(own, "network", None) or (type(own).__name__ if own is not None else "a network that is not built yet")
        tested = ((self.notes.get("checkpoints") or {}).get("chosen") or {}).get("test") or {}
        figures = ", ".join(f"{name} {value:.4g}" for name, value in list(tested.items())[:3])
        weights = sum(entry.numel for entry in self.entries)
        lines = [f"Artifact of {network}: {weights:,} numbers in {len(self.entries)} entries", repr(self.representation)]
        return "\n".join([*lines, *([f"on the test set: {figures}"] if figures else [])])

    @property
    def architecture(self) -> Architecture:
        """The component that builds the network.

        Raises:
            ArtifactError: the component belongs to a plugin that is not installed.
        """
        if not isinstance(self._architecture, Architecture):
            self._architecture = self._architecture()
        return self._architecture

    @property
    def network(self) -> nn.Module:
        """The network with its copied parameters; after reading a file it is built when this is first asked for.

        Raises:
            ArtifactError: building it needs a plugin which is not installed, or it is not the network of the file.
        """
        if isinstance(self._network, Opening):
            self._network = self._network.build(self.architecture)
        return self._network

    @property
    def entries(self) -> list[Entry]:
        """Name, shape, dtype and source of every entry of the state dict, in its order."""
        if isinstance(self._network, Opening):
            return self._network.entries
        return entries_of(self._network, self.representation.grid, self.dtypes)

    def built_by(self, architecture: Architecture) -> None:
        """Build the network by this architecture from now on. It knows the network's class or module, which the file alone may not."""
        self._architecture = architecture

    def state_dict(self) -> dict[str, Tensor]:
        """The reconstructed network's complete state dict, with original names, shapes and dtypes, contiguous on the CPU.

        The network is not built: neither its class nor the plugin that offers it is needed.
        """
        return self.entries_with(self.representation.reconstruct())

    def entries_with(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state dict with given weights in place of the predicted ones; see `state_dict`.

        Args:
            weights: parameter name → weight of every represented layer, in the shape that the original has.
        """
        layers, copied = self.representation.grid.layers, self.copied_entries()
        return {
            entry.name: (copied[entry.name] if entry.layer is None else weights[layers[entry.layer].parameter].cpu())
            .to(entry.dtype)
            .clone(memory_format=torch.contiguous_format)  # weights of transposed convolutions are predicted in another order
            for entry in self.entries
        }

    def reconstruct(self) -> nn.Module:
        """The network with predicted weights, in eval mode, every entry with its original name, shape and dtype.

        Raises:
            ArtifactError: building the network needs a plugin or a class that is not there; `state_dict` needs neither.
        """
        return self.network_with(self.representation.reconstruct())

    def network_with(self, weights: Mapping[str, Tensor]) -> nn.Module:
        """The network with given weights in place of the predicted ones; see `reconstruct`.

        Args:
            weights: parameter name → weight of every represented layer, in the shape that the original has.
        """
        network = with_weights(self.network, {name: value.cpu() for name, value in weights.items()})
        exact = exact_entries(network)
        for name, value in network.state_dict(keep_vars=True).items():  # buffers that are in no state dict stay as they are
            if value.dtype == self.dtypes[name] and name not in exact:
                continue
            value.requires_grad_(value.requires_grad and self.dtypes[name].is_floating_point)  # integers have no gradient
            value.data = exact[name].clone() if name in exact else value.data.to(self.dtypes[name])
        return network.eval()

    def check_original(self, network: nn.Module) -> None:
        """Check that `network` holds the weights that this representation was made from.

        Raises:
            DataError: it holds other weights.
        """
        if digest(network.state_dict()) != self.sha256:
            raise DataError("these are not the weights that the representation was made from; name those with architecture.weights")

    def save(self, path: str | Path) -> Bytes:
        """Write the file.

        Raises:
            ArtifactError: the folder is missing, full or read-only; a file that was there stays as it was.
        """
        path = Path(expand_path(str(path)))
        try:
            self.write(path)
        except OSError as error:
            raise ArtifactError(cannot_write(path, error, "free space or name another file")) from error
        return self.bytes()

    def write(self, path: Path) -> None:
        """Write the file; raises OSError where that fails."""
        write_tensors(path, *self._content())

    def bytes(self) -> Bytes:
        """Size of the file and of its parts."""
        tensors, metadata = self._content()
        sizes = {"predictor": 0, "embedding": 0, "ordering": 0, "zeros": 0, "copied": 0, "base": 0}
        for name, value in tensors.items():
            if name != NAMES:  # the names count as a part of the header
                sizes["predictor" if name == "scales" else name.split(".")[0]] += value.numel() * value.element_size()
        total = len(save(tensors, metadata))
        empty = {entry.name: torch.empty(entry.shape, dtype=entry.dtype) for entry in self.entries}
        state = {name: value if storable(value.dtype) else value.reshape(-1).view(torch.uint8) for name, value in empty.items()}
        return Bytes(original=len(save(state)), header=total - sum(sizes.values()), total=total, **sizes)

    def _content(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        from nern.config.structuring import unstructure

        representation, storage = self.representation, self.representation.storage
        state, _ = untied(representation.state_dict(keep_vars=True))
        # Copied parameters that were trained, but not entropy-coded, are stored with the other copied ones.
        state = {name: value for name, value in state.items() if ".parametrizations." not in name and not name.startswith("copies.")}
        numbers = [name for name, _ in representation.named_parameters() if name in state]
        tensors, sparse = encode({name: value.detach().cpu().contiguous() for name, value in state.items()}, numbers, storage)
        coded = is_coded(representation)
        tensors |= encode_coded(representation) if coded else {}
        masks = representation.masks
        if masks:
            tensors["zeros"] = pack_bits(torch.cat([mask.reshape(-1) for mask in masks.values()]))
        tensors["ordering"] = pack_orders(self.representation.orders)
        tensors |= join_copied(self._stored_copies(), self.copied)
        represented = self.representation.grid
        names = None if self.architecture.standalone else pack_entries(self.entries, represented)
        if names is not None:
            tensors[NAMES] = names
        about = {
            "version": WITHOUT_BASE if representation.base is None else FORMAT_VERSION,
            "architecture": _without_file(unstructure(self.architecture, self.registry), self.architecture.private),
            "embedding": unstructure(self.embedding, self.registry),
            "predictor": unstructure(self.predictor, self.registry),
            **({"base": unstructure(self.base, self.registry)} if representation.base is not None else {}),
            "sampling": represented.small_kernels,
            "orders": _run_lengths([order.kind for order in self.representation.orders]),
            **self._about_network(),
            **({"all": "layers"} if getattr(self.architecture, "_layers", None) == "all" else {}),
            **({"storage": storage.name} if storage.bits or coded else {}),
            **({"absorbed": self.absorbed.to_dict()} if self.absorbed else {}),
            **({"copied": self.copied} if self.copied != "exact" else {}),
            **({"trained": self._trained_places()} if coded and representation.copies else {}),
            **({"sparse": sparse} if sparse else {}),
            **({"zeros": list(masks)} if masks else {}),
            "sha256_original": self.sha256,
            "notes": self.notes,
        }
        return tensors, {"nern": compact({"sha256": seal(about, tensors), **about})}

    def _about_network(self) -> dict[str, Any]:
        """What a file says of its network's entries; a network that is not built yet is not needed for it."""
        if isinstance(self._network, Opening):
            return {key: self._network.about[key] for key in ("dtypes", "layout")}
        own = self._network.state_dict()
        other = {name: str(dtype).removeprefix("torch.") for name, dtype in self.dtypes.items() if dtype != own[name].dtype}
        return {"dtypes": other, "layout": layout_of(self._network, self.representation.grid)}

    def copied_entries(self) -> dict[str, Tensor]:
        """Every copied entry with its present value, in the type that it has in the file."""
        if isinstance(self._network, Opening):
            entries = dict(self._network.copied)
        else:
            entries = _copied_entries(self.network, self.representation.grid)
            entries |= {name: value for name, value in exact_entries(self.network).items() if name in entries}
        trained = self.representation.copies() if self.representation.copies else {}
        form = "exact" if is_coded(self.representation) else self.copied
        entries |= {name: rounded_copy(value.detach().cpu(), form) for name, value in trained.items()}
        return {name: value.to(self.dtypes[name]) for name, value in entries.items()}

    def _stored_copies(self) -> dict[str, Tensor]:
        """The copied entries whose values the file holds: all but those that are entropy-coded and those that are constants."""
        left_out = set(self.absorbed.constants([entry.name for entry in self.entries])) if self.absorbed else set()
        if self.representation.copies and is_coded(self.representation):
            left_out |= set(self.representation.copies.names)
        return {name: value for name, value in self.copied_entries().items() if name not in left_out}

    def _trained_places(self) -> list[int]:
        """Where the trained copies stand in the state dict."""
        places = {entry.name: place for place, entry in enumerate(self.entries)}
        assert self.representation.copies is not None
        return [places[name] for name in self.representation.copies.names]


def _without_file(architecture: dict[str, Any], private: Sequence[str]) -> dict[str, Any]:
    """An architecture's options without those that only matter on one machine, such as where the original weights lie."""
    return {key: None if key == "weights" else value for key, value in architecture.items() if key == "weights" or key not in private}


def _copied_entries(network: nn.Module, grid: KernelGrid) -> dict[str, Tensor]:
    """Entries of the state dict that are not represented, neither by their own name nor by that of another layer that shares the weight."""
    state = network.state_dict(keep_vars=True)
    represented = {id(state[layer.parameter]) for layer in grid.layers}
    return {name: value.detach() for name, value in state.items() if id(value) not in represented}


def _run_lengths(values: list[str]) -> list[tuple[str, int]]:
    runs: list[tuple[str, int]] = []
    for value in values:
        runs[-1:] = [(value, runs[-1][1] + 1)] if runs and runs[-1][0] == value else [*runs[-1:], (value, 1)]
    return runs
