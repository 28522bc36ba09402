"""The file a user keeps: one safetensors file from which the whole network can be rebuilt.

Tensors: `predictor.*` and `embedding.*` (integers with their steps where `storage` says so, see `nern.storage`; of a pruned
predictor, a bitmask and the values that are left), `base.*` (what is added to predictions, where there is such a thing), `ordering`
(packed bits, uint8), `zeros` (packed bits, where weights stay zero), `scales` (one for each layer, where layers are
scaled), `copied.<dtype>`: every parameter and buffer that is not represented, one after the other in the order of the
network's state dict, one tensor per dtype, since a name and a shape for each would cost more bytes than many of them hold,
and `names`: all names and shapes, compressed (`nern.artifact.entries`), where nern and torch alone cannot build the network.
Metadata: `nern`, a JSON object, with a checksum over itself and all tensors: a changed option would rebuild another network
as surely as a changed weight.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import attrs
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from nern.artifact.absorbed import Absorbed
from nern.artifact.budget import TooMuch, bounded, largest
from nern.artifact.coded_parameters import CODED, decode_coded, encode_coded
from nern.artifact.components import component
from nern.artifact.copied import join_copied, split_copied, storable
from nern.artifact.encoding import decode, encode
from nern.artifact.entries import Entry, dtype_of, entries_of, pack_entries, unpack_entries
from nern.artifact.hub import hub_file, is_hub
from nern.artifact.opening import Opening, check_layout, layout_of
from nern.errors import ArtifactError, ConfigError, DataError, PluginError
from nern.interfaces import Architecture, Base, Embedding, Predictor
from nern.kernels.coordinates import KernelGrid
from nern.kernels.orders import ORDER_KINDS, BitReader, pack_orders
from nern.networks.state_dicts import digest, exact_entries, fill, with_weights
from nern.registry.discovery import create_registry
from nern.registry.registry import Registry
from nern.representation.entropy import code_parameters, is_coded
from nern.representation.quantization import NAMES as FORMATS
from nern.representation.quantization import NumberFormat, rounded_copy
from nern.representation.representation import Representation, assemble
from nern.support.bits import pack_bits, unpack_bits
from nern.support.files import expand_path, is_file, write_tensors
from nern.support.messages import cannot_write, first_line, shortened
from nern.support.showing import Shown

FORMAT_VERSION = 2
WITHOUT_BASE = 1  # the version of a file without a base, which older readers can read
NAMES = "names"
#: Components that a file is made of; the others are not needed to read it.
FILE_KINDS = ("architecture", "embedding", "predictor", "base")


@attrs.frozen
class Bytes:
    """Bytes on disk."""

    original: int  # the original network's state dict as a safetensors file
    predictor: int
    embedding: int
    ordering: int
    zeros: int  # where weights stay zero
    copied: int
    header: int  # names, shapes and metadata
    total: int  # the whole file
    base: int = 0  # what is added to predictions


@attrs.define
class Artifact(Shown):
    """A representation together with everything needed to rebuild the network."""

    representation: Representation
    _architecture: Architecture | Callable[[], Architecture]
    embedding: Embedding
    predictor: Predictor
    _network: nn.Module | Opening  # the original architecture with the copied parameters in place
    dtypes: dict[str, torch.dtype]  # dtype of every entry of the original state dict
    registry: Registry
    sha256: str  # of the original weights
    notes: dict[str, Any]  # the task without paths, figures of the run
    absorbed: Absorbed | None = None  # batch norms whose scales are part of the represented convolutions in front of them
    copied: str = "exact"  # how floating-point entries are stored that are copied: exact, float16 or int8
    base: Base | None = None  # what built the representation's base, where it has one

    def __repr__(self) -> str:
        own = self._architecture if isinstance(self._architecture, Architecture) else None
        network = getattr(own, "network", None) or (type(own).__name__ if own is not None else "a network that is not built yet")
        tested = ((self.notes.get("checkpoints") or {}).get("chosen") or {}).get("test") or {}
        figures = ", ".join(f"{name} {value:.4g}" for name, value in list(tested.items())[:3])
        weights = sum(entry.numel for entry in self.entries)
        lines = [f"Artifact of {network}: {weights:,} numbers in {len(self.entries)} entries", repr(self.representation)]
        return "\n".join([*lines, *([f"on the test images: {figures}"] if figures else [])])

    @property
    def architecture(self) -> Architecture:
        """How the network is built.

        Raises:
            ArtifactError: that needs a plugin which is not installed.
        """
        if not isinstance(self._architecture, Architecture):
            self._architecture = self._architecture()
        return self._architecture

    @property
    def network(self) -> nn.Module:
        """The original architecture with the copied parameters in place; a file's network is built when it is first wanted.

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
        """From now on, the network is built by this architecture, where the file's own cannot: one that knows a class or a module."""
        self._architecture = architecture

    def state_dict(self) -> dict[str, Tensor]:
        """The reconstructed network's complete state dict, with original names, shapes and dtypes, on the CPU.

        The network is not built: neither its class nor the plugin that offers it is needed.
        """
        predicted = {name: value.cpu() for name, value in self.representation.reconstruct().items()}
        layers, copied = self.representation.grid.layers, self.copied_entries()
        return {
            entry.name: (copied[entry.name] if entry.layer is None else predicted[layers[entry.layer].parameter]).to(entry.dtype, copy=True)
            for entry in self.entries
        }

    def reconstruct(self) -> nn.Module:
        """The network with predicted weights, in eval mode, every entry with its original name, shape and dtype.

        Raises:
            ArtifactError: building the network needs a plugin or a class that is not there; `state_dict` needs neither.
        """
        network = with_weights(self.network, {name: value.cpu() for name, value in self.representation.reconstruct().items()})
        exact = exact_entries(network)
        for name, value in network.state_dict(keep_vars=True).items():  # buffers that are in no state dict stay as they are
            if value.dtype == self.dtypes[name] and name not in exact:
                continue
            value.requires_grad_(value.requires_grad and self.dtypes[name].is_floating_point)  # integers have no gradient
            value.data = exact[name].clone() if name in exact else value.data.to(self.dtypes[name])
        return network.eval()

    def check_original(self, network: nn.Module) -> None:
        """See that `network` holds the weights that this representation was made from.

        Raises:
            DataError: it holds others.
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
            if name != NAMES:  # which count as a part of the header
                sizes["predictor" if name == "scales" else name.split(".")[0]] += value.numel() * value.element_size()
        total = len(save(tensors, metadata))
        empty = {entry.name: torch.empty(entry.shape, dtype=entry.dtype) for entry in self.entries}
        state = {name: value if storable(value.dtype) else value.reshape(-1).view(torch.uint8) for name, value in empty.items()}
        return Bytes(original=len(save(state)), header=total - sum(sizes.values()), total=total, **sizes)

    def _content(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        from nern.config.structuring import unstructure

        representation, storage = self.representation, self.representation.storage
        state, _ = _untied(representation.state_dict(keep_vars=True))
        # trained copies that are not coded are copied like the others
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
            "sampling": represented.sampling,
            "orders": _run_lengths([order.kind for order in self.representation.orders]),
            "dtypes": {
                name: str(dtype).removeprefix("torch.")
                for name, dtype in self.dtypes.items()
                if dtype != self.network.state_dict()[name].dtype
            },
            "layout": layout_of(self.network, represented),
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
        return tensors, {"nern": _compact({"sha256": _seal(about, tensors), **about})}

    def copied_entries(self) -> dict[str, Tensor]:
        """Every copied entry as it is now, of its type in the file."""
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
        """The copied entries that are stored as such: neither coded nor the same in every network."""
        left_out = set(self.absorbed.constants([entry.name for entry in self.entries])) if self.absorbed else set()
        if self.representation.copies and is_coded(self.representation):
            left_out |= set(self.representation.copies.names)
        return {name: value for name, value in self.copied_entries().items() if name not in left_out}

    def _trained_places(self) -> list[int]:
        """Where the trained copies stand in the state dict."""
        places = {entry.name: place for place, entry in enumerate(self.entries)}
        assert self.representation.copies is not None
        return [places[name] for name in self.representation.copies.names]


@overload
def load(path: str | Path, registry: Registry | None = ..., *, into: None = ..., plugins: Sequence[str] = ...) -> Artifact: ...
@overload
def load(path: str | Path, registry: Registry | None = ..., *, into: nn.Module, plugins: Sequence[str] = ...) -> nn.Module: ...
def load(
    path: str | Path, registry: Registry | None = None, *, into: nn.Module | None = None, plugins: Sequence[str] = ()
) -> Artifact | nn.Module:
    """Read a representation file, checking everything in it.

    Args:
        path: the file, or `hf://user/repo` for one on the Hugging Face Hub, which is fetched.
        registry: where components come from; by default built-ins and installed plugins.
        into: a module with the original network's names and shapes; it is given the reconstructed weights and returned in
            eval mode, in place of the artifact.
        plugins: local plugins that the file needs: Python files or names of modules.

    Raises:
        ArtifactError: the file is missing, damaged, foreign, or needs a plugin that is not installed.
        DataError: the names or shapes of `into` are another network's.
    """
    place = hub_file(str(path)) if is_hub(path) else Path(expand_path(str(path)))
    artifact = _read(place, registry or create_registry(plugins, kinds=FILE_KINDS))
    return artifact if into is None else fill(into, artifact.state_dict(), str(path)).eval()


def _read(path: Path, registry: Registry) -> Artifact:
    if not is_file(path):
        raise ArtifactError(f"representation file {shortened(path)} does not exist, or is no ordinary file")
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except Exception as error:  # of the library, of the file system, of types that torch does not have
        if path.suffix in (".pt", ".pth", ".th", ".bin", ".ckpt"):
            raise ArtifactError(
                f"{path} looks like a file of weights, not like a representation; name a .nern file or a run folder "
                f"(weights are given with architecture.weights={path})"
            ) from error
        raise ArtifactError(
            f"{path} is not a complete representation file ({first_line(error)}); write it again with nern train"
        ) from error
    if "nern" not in metadata:
        raise ArtifactError(f"{path} is a safetensors file, but no representation written by nern")
    try:
        about = json.loads(metadata["nern"])
        if about.pop("sha256") != _seal(about, tensors):
            raise ArtifactError(f"{path} is damaged: its content does not match its checksum; write it again with nern train")
        if about["version"] > FORMAT_VERSION:
            raise ArtifactError(f"{path} has format version {about['version']}, this nern reads up to {FORMAT_VERSION}; update nern")
        with bounded(path.stat().st_size, f"{path}: what it declares"):
            return _rebuild(path, about, tensors, registry)
    except ArtifactError:
        raise
    except (ConfigError, PluginError) as error:
        raise _needs_plugin(path, error) from error
    except Exception as error:  # who can make a checksum can write anything into a file, and it fails in any way
        raise ArtifactError(
            f"{path} is damaged or was not written by nern ({type(error).__name__}: {shortened(first_line(error), 200)})"
        ) from error


def _needs_plugin(path: Path, error: Exception, more: str = "") -> ArtifactError:
    return ArtifactError(f"{path} needs a plugin: {error}; install the package that offers it, or name a local one with plugins=[…]{more}")


def _architecture(path: Path, about: dict[str, Any], registry: Registry) -> Architecture:
    values = _owned(about["architecture"])
    if values.get("layers") == "all" and "all" not in about:  # as files called it before linear layers could be represented
        values["layers"] = "convolutions"
    values = {key: value for key, value in values.items() if key not in ("weights", "entry", "rename")}  # no path is taken from a file
    if values.get("pretrained") is True:  # nor is anything fetched for it
        values["pretrained"] = False
    try:
        found: Architecture = component("architecture", values, registry)
    except (ConfigError, PluginError, ImportError) as error:
        raise _needs_plugin(path, error, "; state_dict() and load(…, into=module) work without it") from error
    return found


def _rebuild(path: Path, about: dict[str, Any], tensors: dict[str, Tensor], registry: Registry) -> Artifact:
    embedding, predictor = (component(kind, _owned(about[kind]), registry) for kind in ("embedding", "predictor"))
    base: Base | None = component("base", _owned(about["base"]), registry) if "base" in about else None
    architecture: Architecture | Callable[[], Architecture] = lambda: _architecture(path, about, registry)  # noqa: E731
    network: nn.Module | None = None
    if NAMES in tensors:
        entries, grid = unpack_entries(tensors[NAMES], about["sampling"])
    else:
        architecture = _architecture(path, about, registry)
        network = architecture.built().eval()
        grid = KernelGrid(tuple(architecture.layers(network)), about["sampling"])
        check_layout(path, about, network, grid)
        dtypes = {name: value.dtype for name, value in network.state_dict().items()}
        entries = entries_of(network, grid, {**dtypes, **{name: dtype_of(dtype) for name, dtype in about["dtypes"].items()}})
    _check_sizes(path, about, entries, grid)
    reader = BitReader(tensors["ordering"])
    kinds = [kind for kind, count in about["orders"] for _ in range(count)]
    orders = [ORDER_KINDS[kind].from_bits(layer.filters, layer.channels, reader) for kind, layer in zip(kinds, grid.layers, strict=True)]
    reader.finish()
    representation = assemble(grid, orders, embedding, predictor, base)
    own = {name: value for name, value in tensors.items() if name.split(".")[0] in ("predictor", "embedding", "base", "scales")}
    storage, trained = _format(about.get("storage", "float32")), list[str]()
    if storage.is_coded:
        chosen = [entries[_count(place)] for place in about.get("trained", [])]
        trained = [entry.name for entry in chosen]
        representation.train_copies({entry.name: torch.zeros(entry.shape) for entry in chosen})
        code_parameters(representation)
        decode_coded(representation, tensors)
        own = {name: value for name, value in own.items() if not name.endswith(CODED)}
        own |= {name: value for name, value in representation.state_dict().items() if ".parametrizations." in name}
    numbers = [name for name, _ in representation.named_parameters() if ".parametrizations." not in name]
    like, tied = _untied(representation.state_dict(keep_vars=True))
    own = decode(own, numbers, storage, about.get("sparse", []), like)
    own |= {name: own[first] for name, first in tied.items()}
    if "scales" in own:
        representation.scale(torch.ones(len(grid.layers)))
    if "zeros" in about:
        representation.keep_zeros(_masks(tensors["zeros"], about["zeros"], grid))
    floats = [str(own[name].dtype).removeprefix("torch.") for name in numbers if name in own]
    representation.storage = storage if storage.bits or storage.is_coded or not floats else _format(floats[0])
    try:
        representation.load_state_dict(own)
    except RuntimeError as error:
        raise ArtifactError(f"{path} does not fit its own predictor: {' '.join(str(error).split())}") from error
    copied = {entry.name: entry for entry in entries if entry.layer is None}
    left_out = set(trained)
    constants: dict[str, float] = {}
    absorbed = Absorbed.from_dict(about["absorbed"]) if "absorbed" in about else None
    if absorbed is not None:
        constants = absorbed.constants([entry.name for entry in entries])
        left_out |= set(constants)
    form = about.get("copied", "exact")
    values = split_copied(tensors, [entry for name, entry in copied.items() if name not in left_out], form)
    values |= {name: torch.full(copied[name].shape, value).to(copied[name].dtype) for name, value in constants.items()}
    values |= {name: torch.zeros(copied[name].shape, dtype=copied[name].dtype) for name in trained}  # the representation holds them
    opening = Opening(path, about, entries, grid, values)
    return Artifact(
        representation.eval(), architecture, embedding, predictor, opening if network is None else opening.filled(network),
        {entry.name: entry.dtype for entry in entries}, registry, about["sha256_original"], about["notes"],
        absorbed=absorbed, copied=form, base=base,
    )  # fmt: skip


def _check_sizes(path: Path, about: dict[str, Any], entries: Sequence[Entry], grid: KernelGrid) -> None:
    """Raise ArtifactError or ValueError where names, shapes, types and counts that a file declares do not belong together."""
    if about["sampling"] not in ("centre", "average", "max") or not isinstance(about["notes"], dict):
        raise ValueError("'sampling' or 'notes' is not what nern writes")
    if len({entry.name for entry in entries}) < len(entries):
        raise ValueError("a name appears twice among the network's entries")
    if sum(_count(count) for _, count in about["orders"]) != len(grid.layers):
        raise ValueError("there are more or fewer orders than layers")
    declared, most = sum(entry.numel * entry.dtype.itemsize for entry in entries), largest(path.stat().st_size)
    if declared > most:
        raise TooMuch(f"{path} declares {declared:,} bytes of weights; a file of its length can stand for {most:,} at most")
    for entry in entries:
        if entry.layer is not None and not entry.dtype.is_floating_point:
            raise ValueError(f"'{entry.name}' is represented and of {entry.dtype}, which kernels cannot be")
        if entry.layer is not None and tuple(grid.layers[_count(entry.layer)].shape) != entry.shape:
            raise ValueError(f"'{entry.name}' has another shape than its layer")
    for layer in grid.layers:
        kernels = layer.split(torch.empty(layer.shape, device="meta"))
        if (
            tuple(kernels.shape) != (layer.count, *layer.kernel)
            or tuple(layer.join(kernels).shape) != tuple(layer.shape)
            or layer.layer < 0
        ):
            raise ValueError(f"'{layer.parameter}' cannot be made of kernels")


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 31:
        raise ValueError(f"{shortened(value)} is not a count")
    return value


def _format(name: Any) -> NumberFormat:
    if name not in FORMATS:
        raise ValueError(f"{shortened(name)} is no format of a predictor's numbers")
    return NumberFormat(name)


def _without_file(architecture: dict[str, Any], private: Sequence[str]) -> dict[str, Any]:
    """An architecture's options without those that are its own machine's business, such as how to read the original weights."""
    return {key: None if key == "weights" else value for key, value in architecture.items() if key == "weights" or key not in private}


def _seal(about: dict[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the metadata and the tensors."""
    return hashlib.sha256(f"{digest(tensors)} {_compact(about)}".encode()).hexdigest()


def _compact(about: dict[str, Any]) -> str:
    return json.dumps(about, separators=(",", ":"))


def _untied(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A state dict without parameters that another name holds, too; and which name that is, by the one left out."""
    firsts: dict[int, str] = {}
    tied = {name: firsts[id(value)] for name, value in state.items() if firsts.setdefault(id(value), name) != name}
    return {name: value for name, value in state.items() if name not in tied}, tied


def _masks(packed: Tensor, names: list[str], grid: KernelGrid) -> dict[str, Tensor]:
    """Where weights are not zero, by parameter name."""
    shapes = {layer.parameter: layer.shape for layer in grid.layers}
    sizes = [math.prod(shapes[name]) for name in names]
    parts = torch.split(unpack_bits(packed, sum(sizes)), sizes)
    return {name: part.reshape(shapes[name]) for name, part in zip(names, parts, strict=True)}


def _copied_entries(network: nn.Module, grid: KernelGrid) -> dict[str, Tensor]:
    """Entries of the state dict that are not represented, under this name or that of another layer with the same weight."""
    state = network.state_dict(keep_vars=True)
    represented = {id(state[layer.parameter]) for layer in grid.layers}
    return {name: value.detach() for name, value in state.items() if id(value) not in represented}


def _owned(component: dict[str, Any]) -> dict[str, Any]:
    """A bare name in a file is a built-in's, whoever else offers it now."""
    return {**component, "name": component["name"] if ":" in component["name"] else f"nern:{component['name']}"}


def _run_lengths(values: list[str]) -> list[tuple[str, int]]:
    runs: list[tuple[str, int]] = []
    for value in values:
        runs[-1:] = [(value, runs[-1][1] + 1)] if runs and runs[-1][0] == value else [*runs[-1:], (value, 1)]
    return runs
