"""Reads state dicts in the formats found in the wild, and says exactly why one does not fit."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nern.errors import ArtifactError, ConfigError, DataError
from nern.support.files import write_object, write_tensors

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
PREFIXES = ("module.", "_orig_mod.")


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a .safetensors or torch file, without wrappers and `module.` prefixes.

    Torch files are read with weights-only loading: nothing in them is executed.

    Raises:
        DataError: the file is missing, truncated, or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"weights file {path} does not exist" + _neighbours(path))
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            state: Any = load_file(str(path))
        except (SafetensorError, OSError) as error:
            raise DataError(f"weights file {path} is not a complete safetensors file ({error}); get it again") from error
    else:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged pickle fails in any way
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(f"weights file {path} is truncated or not a torch state dict ({reason})") from error
    return unwrap(state, path)


def unwrap(state: Any, place: object = "state dict") -> dict[str, Tensor]:
    """Take a plain state dict out of `{"state_dict": …}` wrappers and strip `module.` prefixes."""
    for _ in WRAPPERS:
        if isinstance(state, Mapping) and not any(isinstance(value, Tensor) for value in state.values()):
            inner = [state[key] for key in WRAPPERS if isinstance(state.get(key), Mapping)]
            state = inner[0] if inner else state
    if isinstance(state, nn.Module):
        state = state.state_dict()
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataError(f"{place} holds no state dict (a mapping from parameter names to tensors)")
    state = {str(name): value for name, value in state.items()}
    for prefix in PREFIXES * 2:  # in either order
        if all(name.startswith(prefix) for name in state):
            state = {name[len(prefix) :]: value for name, value in state.items()}
    found: dict[str, Tensor] = state
    return found


def load_weights(network: nn.Module, path: str | Path, skip: Sequence[str] = ()) -> dict[str, torch.dtype]:
    """Load a weights file into `network`, in float32; returns the dtype that each entry has in the file.

    A missing `num_batches_tracked` is not an error: batch norm in eval mode does not use it.

    Args:
        skip: beginnings of names that are passed over where only the file has them.

    Raises:
        DataError: the file cannot be read, or its names or shapes are another network's.
    """
    state = read_state_dict(path)
    own = network.state_dict()
    counters = {name for name in own if name.endswith("num_batches_tracked")}
    missing = [name for name in own if name not in state and name not in counters]
    foreign = [name for name in state if name not in own and not name.startswith(tuple(skip))]
    shapes = [
        f"{name} is {list(state[name].shape)} in the file and {list(own[name].shape)} in the network"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if missing or foreign or shapes:
        problems = []
        if missing:
            problems.append(f"the file lacks {_some(missing)}")
        if foreign:
            problems.append(f"the network has no {_some(foreign)}")
        if shapes:
            problems.append(_some(shapes, "; "))
        raise DataError(f"weights file {path} belongs to another architecture: {'; '.join(problems)}")
    broken = [name for name, value in state.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if broken:
        raise DataError(f"weights file {path} has values that are not finite in {_some(broken)}")
    network.load_state_dict(state, strict=False)
    return {name: state[name].dtype if name in state else value.dtype for name, value in own.items()}


def digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of a state dict, in the order of names."""
    total = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        total.update(f"{name}:{value.dtype}:{list(value.shape)};".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def _some(items: list[str], separator: str = ", ", most: int = 3) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return separator.join(items[:most]) + more


def _neighbours(path: Path) -> str:
    if not path.parent.is_dir():
        return f" (nor does the folder {path.parent})"
    near = difflib.get_close_matches(path.name, [other.name for other in path.parent.iterdir()], n=1)
    return f", did you mean {path.parent / near[0]}?" if near else ""


@torch.no_grad()
def with_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """A copy of `network` with some parameters replaced."""
    import copy

    changed = copy.deepcopy(network)
    own = changed.state_dict()
    for name, value in weights.items():
        own[name].copy_(value)
    return changed


def fill(module: nn.Module, state: Mapping[str, Tensor], source: str) -> nn.Module:
    """Give a module the entries of a state dict, in the module's own types; returns the module.

    Raises:
        DataError: names or shapes differ.
    """
    own = module.state_dict()
    missing, foreign = [name for name in own if name not in state], [name for name in state if name not in own]
    shapes = [name for name in own if name in state and own[name].shape != state[name].shape]
    problems = [f"it has {_some(missing)}, which the file lacks"] if missing else []
    problems += [f"it lacks {_some(foreign)}"] if foreign else []
    problems += [f"{name} is {list(state[name].shape)} in the file and {list(own[name].shape)} in it" for name in shapes[:1]]
    if problems:
        raise DataError(f"{source} is of another network than this {type(module).__name__}: {'; '.join(problems)}")
    module.load_state_dict(dict(state))
    return module


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
            write_object(path, dict(state))
    except OSError as error:
        raise ArtifactError(f"cannot write {path} ({error.strerror}); free space or name another file") from error
