"""Reads a representation file and checks everything in it: a checksum shows accidental damage, but anybody can compute a new one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, overload

import torch
from safetensors import safe_open
from torch import Tensor, nn

from nern.artifact.absorbed import Absorbed
from nern.artifact.artifact import Artifact
from nern.artifact.budget import TooMuch, bounded, largest
from nern.artifact.coded_parameters import CODED, decode_coded
from nern.artifact.components import component
from nern.artifact.copied import split_copied
from nern.artifact.encoding import decode
from nern.artifact.entries import Entry, dtype_of, entries_of, unpack_entries
from nern.artifact.hub import hub_file, is_hub
from nern.artifact.layout import FORMAT_VERSION, NAMES, seal, untied
from nern.artifact.opening import Opening, check_layout
from nern.errors import ArtifactError, ConfigError, PluginError
from nern.interfaces import Architecture, Base
from nern.kernels.coordinates import KernelGrid
from nern.kernels.orders import ORDER_KINDS, BitReader
from nern.networks.state_dicts import fill
from nern.registry.discovery import create_registry
from nern.registry.registry import Registry, way_to
from nern.representation.assembling import assemble
from nern.representation.entropy import code_parameters
from nern.representation.quantization import NAMES as FORMATS
from nern.representation.quantization import NumberFormat
from nern.support.bits import unpack_bits
from nern.support.files import expand_path, is_file
from nern.support.messages import first_line, shortened

#: Extension points whose components are needed to read a file.
FILE_KINDS = ("architecture", "embedding", "predictor", "base")


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


def _not_a_file(path: Path) -> str:
    """What is wrong with a path that is no ordinary file."""
    try:
        if path.is_dir():
            return f"{shortened(path)} is a folder, but not that of a run; name a .nern file, or the folder that nern train wrote"
        if not path.exists():
            return f"there is no representation file and no run folder called {shortened(path)}"
    except (OSError, ValueError):  # a name that the system cannot hold
        return f"there is no representation file and no run folder called {shortened(path)}"
    return f"{shortened(path)} is no ordinary file, but a pipe, a device or a socket; name a .nern file"


def _read(path: Path, registry: Registry) -> Artifact:
    if not is_file(path):
        raise ArtifactError(_not_a_file(path))
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except Exception as error:  # safetensors, the file system, or a type that torch does not have
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
        if about.pop("sha256") != seal(about, tensors):
            raise ArtifactError(f"{path} is damaged: its content does not match its checksum; write it again with nern train")
        if about["version"] > FORMAT_VERSION:
            raise ArtifactError(f"{path} has format version {about['version']}, this nern reads up to {FORMAT_VERSION}; update nern")
        with bounded(path.stat().st_size, f"{path}: what it declares"):
            return _rebuild(path, about, tensors, registry)
    except ArtifactError:
        raise
    except (ConfigError, PluginError) as error:
        raise _needs_plugin(path, error) from error
    except Exception as error:  # a forged file with a valid checksum can fail in any way
        raise ArtifactError(
            f"{path} is damaged or was not written by nern ({type(error).__name__}: {shortened(first_line(error), 200)})"
        ) from error


def _needs_plugin(path: Path, error: Exception, more: str = "") -> ArtifactError:
    way_out = "" if "belongs to package" in str(error) else f"; {way_to('FILE')}"  # which the registry says where it knows the package
    return ArtifactError(f"{path} needs a plugin: {error}{way_out}{more}")


def _architecture(path: Path, about: dict[str, Any], registry: Registry) -> Architecture:
    values = _owned(about["architecture"])
    # Older files say "all" for all convolutions: linear layers could not be represented then
    if values.get("layers") == "all" and "all" not in about:
        values["layers"] = "convolutions"
    values = {key: value for key, value in values.items() if key not in ("weights", "entry", "rename")}  # paths in a file are ignored
    if values.get("pretrained") is True:  # nor does a file make anything download weights
        values["pretrained"] = False
    try:
        architecture: Architecture = component("architecture", values, registry)
    except (ConfigError, PluginError, ImportError) as error:
        raise _needs_plugin(path, error, "; state_dict() and load(…, into=module) work without it") from error
    return architecture


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
    like, tied = untied(representation.state_dict(keep_vars=True))
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
    # Their values are part of the representation
    values |= {name: torch.zeros(copied[name].shape, dtype=copied[name].dtype) for name in trained}
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


def _masks(packed: Tensor, names: list[str], grid: KernelGrid) -> dict[str, Tensor]:
    """Bool masks of the weights that are not zero, by parameter name."""
    shapes = {layer.parameter: layer.shape for layer in grid.layers}
    sizes = [math.prod(shapes[name]) for name in names]
    parts = torch.split(unpack_bits(packed, sum(sizes)), sizes)
    return {name: part.reshape(shapes[name]) for name, part in zip(names, parts, strict=True)}


def _owned(component: dict[str, Any]) -> dict[str, Any]:
    """Component options from a file: a name without a package means nern's own component, also where a plugin offers the same name."""
    return {**component, "name": component["name"] if ":" in component["name"] else f"nern:{component['name']}"}
