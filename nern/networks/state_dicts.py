"""State dicts: extracts them from files of any layout, loads them into a network, compares and writes them."""

from __future__ import annotations

import functools
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nern.errors import ArtifactError, ConfigError, DataError
from nern.networks.copies import duplicate
from nern.networks.nested_state_dicts import Candidate, candidates
from nern.networks.parameter_names import Renaming, beginnings_that_differ, without_wrappers
from nern.networks.weights_files import read_weights_file
from nern.support.files import write_object, write_tensors
from nern.support.messages import cannot_write, some

log = logging.getLogger("nern")


def read_state_dict(path: str | Path, entry: str | None = None) -> dict[str, Tensor]:
    """The state dict in a .safetensors or torch file, without wrappers and the parts of names that wrappers add.

    Torch files are read with weights-only loading: nothing in them is executed.

    Args:
        entry: the keys that lead to the state dict, joined by dots, where the file holds several.

    Raises:
        DataError: the file is missing, truncated, or holds something else.
    """
    return unwrap(read_weights_file(Path(path)), f"weights file {path}", entry)


def unwrap(content: Any, place: object = "state dict", entry: str | None = None) -> dict[str, Tensor]:
    """The plain state dict inside wrappers such as `{"state_dict": …}`, with prefixes such as `module.` removed from its names."""
    state = candidates(content, place, entry)[0].state
    plain = {without_wrappers(name): value for name, value in state.items()}
    return plain if len(plain) == len(state) else state


def load_weights(
    network: nn.Module,
    path: str | Path,
    skip: Sequence[str] = (),
    *,
    entry: str | None = None,
    rename: Mapping[str, str] | None = None,
) -> dict[str, torch.dtype]:
    """Load a weights file into `network`, in float32; returns the dtype that each entry has in the file.

    A missing `num_batches_tracked` is not an error, because batch norm in eval mode does not use it; nor is a name that
    shares its tensor with another one. Each rule that was needed to bring the file's names to the network's is logged in
    one line. `exact_entries` gives the values that float32 cannot hold.

    Args:
        skip: prefixes of names that are ignored where only the file has them.
        entry: the keys that lead to the state dict, joined by dots, where the file holds several.
        rename: beginning of a name in the file → beginning of the network's name.

    Raises:
        DataError: the file cannot be read, or its names or shapes are another network's.
        ConfigError: `rename` does not go with the names in the file.
    """
    own = network.state_dict()
    trained = {name for name, _ in network.named_parameters(remove_duplicate=False)}
    nested = candidates(read_weights_file(Path(path)), f"weights file {path}", entry)
    for before in rename or {}:
        if not any(name.startswith(before) for candidate in nested for name in candidate.state):
            raise ConfigError(
                f"architecture.rename: no name in weights file {path} begins with '{before}'; there is {some(list(nested[0].state))}"
            )
    attempts = []
    for candidate in nested:
        state = {name: value for name, value in candidate.state.items() if name in own or not name.startswith(tuple(skip) or ("\0",))}
        names = Renaming(state, own, _optional(network), metadata=candidate.metadata)
        names.apply(rename)
        names.state = {name: value for name, value in names.state.items() if name in own or not name.startswith(tuple(skip) or ("\0",))}
        attempts.append((candidate, names))
    fitting = [attempt for attempt in attempts if not _problems(attempt[1])]
    if not fitting:
        raise DataError(f"weights file {path} belongs to another architecture: {_explained(attempts[0][1])}")
    candidate, names = fitting[0]
    _tell(path, candidate, [other for other, _ in fitting[1:]], names)
    stored = {name: _plain(value, name, own[name], path) for name, value in names.state.items()}
    whole = [name for name in stored if name in trained and own[name].is_floating_point() and not stored[name].is_floating_point()]
    if whole:
        kind = str(stored[whole[0]].dtype).removeprefix("torch.")
        _say(
            f"nern: weights file {path}: '{whole[0]}' holds integers ({kind}), as quantised weights do, and the network computes with them "
            "as they are; where they stand for other numbers, save those"
        )
    broken = [name for name, value in stored.items() if not _is_finite(value)]
    if broken:
        raise DataError(f"weights file {path} has values that are not finite in {some(broken)}")
    network.load_state_dict(_with_versions(stored, names.metadata or getattr(own, "_metadata", None)), strict=False)
    keep_exact(network, stored)
    return {name: stored[name].dtype if name in stored else value.dtype for name, value in own.items()}


def exact_entries(network: nn.Module) -> dict[str, Tensor]:
    """The loaded entries whose values the network's own types cannot hold exactly, as the file holds them.

    Entries that have been changed since, in this network or in the network that it is a copy of, are left out.
    """
    kept: dict[str, Tensor] = network.__dict__.get("_nern_exact_entries", {})
    own = network.state_dict() if kept else {}
    return {name: value for name, value in kept.items() if name in own and same_bits(_rounded(value, own[name]), own[name].cpu())}


def set_exact_entries(network: nn.Module, entries: Mapping[str, Tensor]) -> None:
    """Set what `exact_entries` returns for the network and its copies."""
    network.__dict__["_nern_exact_entries"] = dict(entries)


def keep_exact(network: nn.Module, stored: Mapping[str, Tensor]) -> None:
    """Remember those of the loaded entries that the network's own types cannot hold exactly."""
    own = network.state_dict()
    set_exact_entries(network, {name: value for name, value in stored.items() if not same_bits(own[name].to(value.dtype), value)})


def digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of a state dict, in the order of names."""
    total = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        total.update(f"{name}:{value.dtype}:{list(value.shape)};".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


@torch.no_grad()
def with_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """A copy of `network` with some parameters replaced."""
    changed = duplicate(network)
    own = changed.state_dict()
    for name, value in weights.items():
        own[name].copy_(value)
    return changed


def fill(module: nn.Module, state: Mapping[str, Tensor], source: str) -> nn.Module:
    """Load a state dict into a module, in the module's own types; returns the module.

    Raises:
        DataError: names or shapes differ.
    """
    own = module.state_dict()
    missing, foreign = [name for name in own if name not in state], [name for name in state if name not in own]
    shapes = [name for name in own if name in state and own[name].shape != state[name].shape]
    problems = [f"it has {some(missing)}, which the file lacks"] if missing else []
    problems += [f"it lacks {some(foreign)}"] if foreign else []
    problems += [f"{name} is {list(state[name].shape)} in the file and {list(own[name].shape)} in it" for name in shapes[:1]]
    if problems:
        raise DataError(f"{source} is of another network than this {type(module).__name__}: {'; '.join(problems)}")
    module.load_state_dict(_with_versions(state, getattr(own, "_metadata", None)))
    return module


def trained_copies(network: nn.Module, patterns: Sequence[str], represented: Collection[str], constants: Collection[str] = ()) -> list[str]:
    """The copied parameters of a network that patterns name, in the order of its state dict.

    Args:
        patterns: `bn` for the parameters of batch norms, `classifier` for those of the last linear layer, or patterns of names.
        represented: parameters that are not copied.
        constants: parameters that are the same for every network.

    Raises:
        ConfigError: a pattern other than * matches no parameter that is copied.
    """
    modules = dict(network.named_modules())
    norms = [name for name, module in modules.items() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    linear = [name for name, module in modules.items() if isinstance(module, nn.Linear)]
    groups = {"bn": [f"{name}.*" for name in norms], "classifier": [f"{name}.*" for name in linear[-1:]]}
    # a parameter with several names is in `named_parameters` by its first
    copied = [name for name, value in network.named_parameters() if name not in represented and value.is_floating_point()]
    chosen: set[str] = set()
    for pattern in patterns:
        fitting = {name for name in copied if any(fnmatchcase(name, each) for each in groups.get(pattern, [pattern]))}
        if not fitting and pattern != "*":
            raise ConfigError(f"train: '{pattern}' matches none of the parameters that are copied; there are: {some(copied) or 'none'}")
        chosen |= fitting
    return [name for name in copied if name in chosen and name not in constants]


def write_state_dict(state: Mapping[str, Tensor], path: Path) -> None:
    """Write a state dict as .safetensors, .pt or .pth.

    Raises:
        ConfigError: the file's ending is another one.
        ArtifactError: the file cannot be written.
    """
    if path.suffix not in (".safetensors", ".pt", ".pth"):
        raise ConfigError(f"{path}: the file must end in .safetensors, .pt or .pth")
    try:
        if path.suffix == ".safetensors":
            write_tensors(path, state)
        else:
            write_object(path, _with_versions(state, getattr(state, "_metadata", None)))
    except OSError as error:
        raise ArtifactError(cannot_write(path, error, "free space or name another file")) from error


def _with_versions(state: Mapping[str, Tensor], metadata: Any) -> OrderedDict[str, Tensor]:
    """A state dict with the versions of its modules, which some networks (torchvision's mnasnet) need."""
    versioned = OrderedDict(state)
    setattr(versioned, "_metadata", metadata or OrderedDict())  # noqa: B010 (an attribute that torch adds to the class)
    return versioned


# -- loading -----------------------------------------------------------------------------------------------------------


def _optional(network: nn.Module) -> frozenset[str]:
    """Names that a file may lack: counters of batch norm, and further names of shared tensors."""
    firsts: dict[int, str] = {}
    shared = {name for name, value in network.state_dict(keep_vars=True).items() if firsts.setdefault(id(value), name) != name}
    return frozenset(shared | {name for name in network.state_dict() if name.endswith("num_batches_tracked")})


def _problems(names: Renaming) -> list[str]:
    """The reasons why a state dict does not belong to the network; empty where it does."""
    shapes = [
        f"{name} is {list(names.state[name].shape)} in the file and {list(value.shape)} in the network"
        for name, value in names.own.items()
        if name in names.state and names.state[name].shape != value.shape
    ]
    problems = []
    if names.missing:
        problems.append(f"the file lacks {some(names.missing)}")
    if names.foreign:
        problems.append(f"the network has no {some(names.foreign)}")
    if shapes:
        problems.append(some(shapes, separator="; "))
    return problems


def _explained(names: Renaming) -> str:
    """The problems as text, with the option that would help where names only differ in their prefix."""
    problems = "; ".join(_problems(names))
    computed = next((name for name in names.foreign if "parametrizations." in name), None)
    if computed is not None:
        way_out = "save the network after torch.nn.utils.parametrize.remove_parametrizations"
        return f"{problems}; '{computed}' belongs to a parametrised weight: {way_out}"
    difference = beginnings_that_differ(names) or _first_difference(names)
    if difference is None:
        return f"{problems}; build the network as the file's was built: classes, channels, depth, width"
    return f'{problems}; where names differ by their beginnings alone, set architecture.rename={{"{difference[0]}": "{difference[1]}"}}'


def _first_difference(names: Renaming) -> tuple[str, str] | None:
    """The beginnings in which the first name that only the file has differs from the first that only the network has, if they end alike."""
    if not names.missing or not names.foreign:
        return None
    theirs, ours = names.foreign[0].split("."), names.missing[0].split(".")
    alike = 0
    while alike < min(len(theirs), len(ours)) and theirs[-1 - alike] == ours[-1 - alike]:
        alike += 1
    if not alike:
        return None
    start, other = ("".join(f"{part}." for part in parts[: len(parts) - alike]) for parts in (theirs, ours))
    return start, other


def _tell(path: str | Path, taken: Candidate, others: Sequence[Candidate], names: Renaming) -> None:
    """Log in one line what had to be done to read a file."""
    said = list(names.rules)
    if others:
        there = ", ".join(candidate.entry for candidate in others)
        said.insert(0, f"the state dict '{taken.entry}' was taken; there is {there}, too, which architecture.entry would choose")
    if said:
        _say(f"nern: weights file {path}: {'; '.join(said)}")


@functools.lru_cache(maxsize=64)
def _say(line: str) -> None:
    """Log each line only once, however often a run reads its weights."""
    log.warning("%s", line)


def _plain(value: Tensor, name: str, own: Tensor, path: str | Path) -> Tensor:
    """Check that a value of a file is a dense tensor whose values the network's own type can hold, and return it.

    Raises:
        DataError: the tensor is quantised, or complex where the network's is real.
    """
    value = value.detach()
    if value.is_quantized:
        raise DataError(f"weights file {path}: '{name}' is a quantised tensor; save its values, value.dequantize()")
    if value.device.type == "meta":
        raise DataError(f"weights file {path}: '{name}' stands on the meta device and has no values; save the network with its weights")
    if value.layout != torch.strided:
        value = value.to_dense()
    if value.is_complex() and not own.is_complex():
        raise DataError(f"weights file {path}: '{name}' is complex ({value.dtype}) and the network's is {own.dtype}")
    return value


def _is_finite(value: Tensor) -> bool:
    if not value.is_floating_point() and not value.is_complex():
        return True
    return bool((value.float() if value.element_size() < 2 else value).isfinite().all())


def _rounded(value: Tensor, like: Tensor) -> Tensor:
    """A value after conversion to the network's own type."""
    return (value.real if value.is_complex() and not like.is_complex() else value).to(like.dtype)


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have one dtype, one shape and equal bytes."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    first, second = (value.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for value in (a, b))
    return torch.equal(first, second)
