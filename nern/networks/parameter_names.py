"""Translates the names and tensors of a state dict from any source into those of a network, and tells which rules that took."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

from nern.errors import ConfigError

#: Parts of names that wrappers add: DataParallel, torch.compile, Lightning Fabric, FSDP and activation checkpointing.
WRAPPER_PARTS = ("module", "_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
#: Last parts of the names of numbers that other programs keep beside the weights: torch's averaged models, and the counts of thop.
_COUNTS = ("n_averaged", "total_ops", "total_params")
_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12])\.")
_PARAMETRIZED = re.compile(r"^(.*?)parametrizations\.(\w+)\.(original\d*|0\._[uv])$")


@attrs.define
class Renaming:
    """A state dict on its way to a network's names.

    Args:
        state: name in the file → tensor.
        own: name in the network → tensor, of which only shapes are looked at.
        optional: names of the network that a file may lack.
    """

    state: dict[str, Tensor]
    own: Mapping[str, Tensor]
    optional: frozenset[str]
    rules: list[str] = attrs.field(factory=list)  # one phrase for each rule that was applied, for the log
    metadata: dict[str, Any] | None = None  # versions of modules, by module name (`state_dict()._metadata`)

    @property
    def missing(self) -> list[str]:
        """Names that only the network has."""
        return [name for name in self.own if name not in self.state and name not in self.optional]

    @property
    def foreign(self) -> list[str]:
        """Names that only the file has."""
        return [name for name in self.state if name not in self.own]

    def apply(self, rename: Mapping[str, str] | None = None) -> None:
        """Apply the user's own renaming, and then every rule after which more names agree with the network's.

        Args:
            rename: beginning of a name in the file → beginning in the network.

        Raises:
            ConfigError: `rename` gives two entries one name.
        """
        if rename and not self._rename(lambda name: _with_beginning(name, rename)):
            raise ConfigError("architecture.rename: gives two entries of the weights file one name; keep the beginning of one of them")
        if rename and not self.missing and self.foreign:  # the file's other networks, of which the user has chosen one
            self.rules.append(f"{len(self.foreign)} other entries ({self.foreign[0]}, …) left out")
            self.state = {name: value for name, value in self.state.items() if name in self.own}
        for rule in (
            _without_counts,
            _without_wrappers,
            _form_of_weight_norm,
            _from_parts,
            _densenet,
            _without_prefix,
            _without_prefixes,
            _with_another_prefix,
        ):
            if not self.missing and not self.foreign:
                return
            rule(self)

    def _rename(self, change: Callable[[str], str]) -> bool:
        """Change every name, unless two names would become one."""
        names = {name: change(name) for name in self.state}
        if len(set(names.values())) < len(names):
            return False
        self.state = {names[name]: value for name, value in self.state.items()}
        if self.metadata is not None:  # the last part is the parameter's, the others are module names
            self.metadata = {
                change(f"{name}.x" if name else "x").removesuffix("x").rstrip("."): value for name, value in self.metadata.items()
            }
        return True


def without_wrappers(name: str) -> str:
    """A name without the parts that wrappers add, wherever they stand."""
    return ".".join(part for part in name.split(".") if part not in WRAPPER_PARTS)


def _without_counts(names: Renaming) -> None:
    """Leave out numbers that are no weights, such as `n_averaged` of an averaged model, where the network has none of that name."""
    counts = [name for name in names.foreign if name.rpartition(".")[2] in _COUNTS]
    if counts:
        names.state = {name: value for name, value in names.state.items() if name not in counts}
        kinds = " and ".join(repr(kind) for kind in _COUNTS if any(name.endswith(kind) for name in counts))
        names.rules.append(f"{kinds} left out, as no weights")


def _without_wrappers(names: Renaming) -> None:
    """Rename `module._orig_mod.features.module.0.weight` to `features.0.weight`; modules that the network itself calls `module` stay."""
    plain = {without_wrappers(name): name for name in names.own}
    if len(plain) < len(names.own):
        return
    before = set(names.state)
    if names._rename(lambda name: plain.get(without_wrappers(name), without_wrappers(name))):
        parts = sorted({part for name in before - set(names.state) for part in name.split(".") if part in WRAPPER_PARTS})
        if parts:
            names.rules.append(f"{' and '.join(repr(part + '.') for part in parts)} left out of names")


def _form_of_weight_norm(names: Renaming) -> None:
    """Rename `weight_g` and `weight_v` to the names of torch's newer weight norm, or back, where the network has the other form."""
    renamed: dict[str, str] = {}
    for target in _groups(names.state):
        start, dot, leaf = target.rpartition(".")
        newer = f"{start}{dot}parametrizations.{leaf}.original"
        for old, new in ((f"{target}_g", f"{newer}0"), (f"{target}_v", f"{newer}1")):
            renamed |= {name: other for name, other in ((old, new), (new, old)) if name in names.foreign and other in names.missing}
    if renamed:
        names._rename(lambda name: renamed.get(name, name))
        names.rules.append("'_g' and '_v' of weight norm exchanged with 'original0' and 'original1'")


def _from_parts(names: Renaming) -> None:
    """Compute the weights that torch's pruning, weight norm, spectral norm or a parametrization stores in parts."""
    done: dict[str, int] = {}
    for group in _groups(names.state).values():
        weight = _computed(group, names.state)
        if weight is None:
            continue
        what, value, used = weight
        target = next(iter(group.values()))[1]
        if target in names.state:
            continue
        names.state = {
            (target if name == used[0] else name): (value if name == used[0] else old)
            for name, old in names.state.items()
            if name == used[0] or name not in used
        }
        done[what] = done.get(what, 0) + 1
    names.rules += [f"{count} {'weight' if count == 1 else 'weights'} computed from {what}" for what, count in done.items()]


def _groups(state: Mapping[str, Tensor]) -> dict[str, dict[str, tuple[str, str]]]:
    """Parts of computed weights: target → part (`orig`, `mask`, `g`, `v`, `u`, `original0`, …) → (name in the file, target)."""
    groups: dict[str, dict[str, tuple[str, str]]] = {}
    for name in state:
        parametrized = _PARAMETRIZED.match(name)
        if parametrized:
            target, part = parametrized[1] + parametrized[2], parametrized[3]
        else:
            target, underscore, part = name.rpartition("_")
            if not underscore or part not in ("orig", "mask", "g", "v", "u"):
                continue
        groups.setdefault(target, {})[part] = (name, target)
    return groups


def _computed(group: Mapping[str, tuple[str, str]], state: Mapping[str, Tensor]) -> tuple[str, Tensor, list[str]] | None:
    """The method by which a weight is computed, its value and the names of its parts; None where the parts belong to no known method."""
    parts = {part: state[name].detach() for part, (name, _) in group.items()}
    names = [name for name, _ in group.values()]
    if {"orig", "mask"} == set(parts) and parts["orig"].shape == parts["mask"].shape:
        return "'_orig' and '_mask' (pruning)", parts["orig"] * parts["mask"].to(parts["orig"].dtype), names
    for length, direction, rest in (("g", "v", {"g", "v"}), ("original0", "original1", {"original0", "original1"})):
        if rest == set(parts) and parts[length].dim() in (0, parts[direction].dim()):  # one length for all: `weight_norm(dim=None)`
            axes = [axis for axis, size in enumerate(parts[length].shape) if size == 1] or None
            norm = torch.linalg.vector_norm(parts[direction].double(), dim=axes, keepdim=True)
            return "lengths and directions (weight norm)", (parts[direction] * parts[length] / norm).to(parts[direction].dtype), names
    for weight, u, v in (("orig", "u", "v"), ("original", "0._u", "0._v")):
        if (
            {weight, u, v} <= set(parts)
            and parts[u].numel() == len(parts[weight])
            and parts[v].numel() * len(parts[weight]) == parts[weight].numel()
        ):
            sigma = parts[u].double() @ parts[weight].double().flatten(1) @ parts[v].double()
            return "singular vectors (spectral norm)", (parts[weight] / sigma).to(parts[weight].dtype), names
    return None


def _densenet(names: Renaming) -> None:
    """Rename `denselayer1.norm.1.weight`, as in the first files of densenet, to `denselayer1.norm1.weight`."""
    if any(_DENSENET.match(name) for name in names.foreign) and names._rename(lambda name: _DENSENET.sub(r"\1\2.", name)):
        names.rules.append("'norm.1.' read as 'norm1.', as in the first files of densenets")


def _without_prefix(names: Renaming) -> None:
    """Take the entries below one prefix, such as Lightning's `model.`, where these are all names of the network."""
    wanted = [name for name in names.own if name not in names.optional]
    if not wanted or not names.missing:
        return
    beginnings = [name.removesuffix(wanted[0]) for name in names.state if name.endswith(f".{wanted[0]}")]
    fitting = [start for start in beginnings if all(start + name in names.state for name in wanted)]
    if not fitting:
        return
    start = min(fitting, key=lambda beginning: (("ema" in beginning) + ("teacher" in beginning), fitting.index(beginning)))
    others = [name for name in names.state if not name.startswith(start)]
    names.state = {name.removeprefix(start): value for name, value in names.state.items() if name.startswith(start)}
    if names.metadata is not None:
        names.metadata = {
            f"{name}.".removeprefix(start).rstrip("."): value for name, value in names.metadata.items() if f"{name}.".startswith(start)
        }
    rule = f"{start!r} left out of names"
    if len(fitting) > 1:
        rule += f" (another network of this form is behind {' and '.join(map(repr, (s for s in fitting if s != start)))})"
    names.rules.append(rule + (f", and {len(others)} other entries ({others[0]}, …)" if others else ""))


def _without_prefixes(names: Renaming) -> None:
    """Take the entries below several prefixes, such as `backbone.` and `head.`, where each name of the network ends exactly one entry."""
    renamed: dict[str, str] = {}
    for name in (name for name in names.own if name not in names.state):
        entries = [entry for entry in names.foreign if entry.endswith(f".{name}") and names.state[entry].shape == names.own[name].shape]
        if len(entries) == 1:
            renamed[entries[0]] = name
        elif entries or name not in names.optional:
            return
    if not renamed or not names.missing:
        return
    others = [name for name in names.foreign if name not in renamed]
    modules = {entry.rpartition(".")[0]: name.rpartition(".")[0] for entry, name in renamed.items()}
    names.state = {renamed.get(name, name): value for name, value in names.state.items() if name not in others}
    if names.metadata is not None:
        names.metadata = {modules.get(name, name): value for name, value in names.metadata.items()}
    starts = " and ".join(repr(start) for start in dict.fromkeys(entry.removesuffix(name) for entry, name in renamed.items()))
    names.rules.append(f"{starts} left out of names" + (f", and {len(others)} other entries ({others[0]}, …)" if others else ""))


def _with_another_prefix(names: Renaming) -> None:
    """Rename one prefix, such as `fc.` to `linear.`, where this is the only difference between the names."""
    difference = beginnings_that_differ(names)
    if difference is None:
        return
    theirs, ours = difference
    names._rename(lambda name: ours + name.removeprefix(theirs) if name.startswith(theirs) and name not in names.own else name)
    names.rules.append(
        f"{theirs!r} read as {ours!r}" if theirs and ours else f"{theirs or ours!r} {'left out of' if theirs else 'added to'} names"
    )


def beginnings_that_differ(names: Renaming) -> tuple[str, str] | None:
    """The prefixes in file and network that are the only difference between the names, with equal shapes; None where there are none."""
    missing, foreign = names.missing, [name for name in names.foreign if not name.endswith("num_batches_tracked")]
    if not missing or len(missing) != len(foreign):
        return None
    ours, theirs = _shared_beginning(missing), _shared_beginning(foreign)
    for _ in range(ours.count(".") + theirs.count(".") + 1):
        ends = {name.removeprefix(ours): names.own[name].shape for name in missing}
        if ends == {name.removeprefix(theirs): names.state[name].shape for name in foreign}:
            return theirs, ours
        if ours.count(".") >= theirs.count("."):
            ours = "".join(f"{part}." for part in ours.split(".")[:-2])
        else:
            theirs = "".join(f"{part}." for part in theirs.split(".")[:-2])
    return None


def _shared_beginning(names: list[str]) -> str:
    """The longest common prefix of all names that ends in a dot."""
    shared = names[0].split(".")[:-1]
    for name in names:
        parts = name.split(".")
        while shared != parts[: len(shared)] or len(shared) >= len(parts):
            shared = shared[:-1]
    return "".join(f"{part}." for part in shared)


def _with_beginning(name: str, rename: Mapping[str, str]) -> str:
    """A name in which the longest matching prefix of the given ones is replaced."""
    for before in sorted(rename, key=len, reverse=True):
        if name.startswith(before):
            return rename[before] + name.removeprefix(before)
    return name
