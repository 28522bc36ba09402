"""The extension points, by name. This module imports nothing of nern, so that commands which only need the names start at once."""

from __future__ import annotations

from typing import Any

#: Extension point → the hook by which plugins offer components for it. The only list of extension points: the interface of
#: each is the class of that name in `nern.interfaces`, and everything else is derived from this list.
HOOKS = {
    "architecture": "nern_architectures",
    "embedding": "nern_embeddings",
    "predictor": "nern_predictors",
    "base": "nern_bases",
    "sampler": "nern_samplers",
    "smoother": "nern_smoothers",
    "loss": "nern_losses",
    "task": "nern_tasks",
    "metric": "nern_metrics",
    "optimizer": "nern_optimizers",
    "observer": "nern_observers",
    "launcher": "nern_launchers",
}

#: Sections of a configuration, and of a phase, that map a component's name to its options.
BY_NAME = ("losses", "observers", "metrics")


class OwnName(str):
    """A component's name that nern itself wrote, in a default, a preset, a recipe or the configuration of a finished run.

    It always means nern's own component, even if plugins offer the same name; a name that a user writes may be ambiguous.
    """

    __slots__ = ()


def with_own_names(values: Any) -> Any:
    """A copy of a configuration, or of a phase, in which names of components without a package are marked as nern's own."""
    if not isinstance(values, dict):
        return values
    renamed: dict[Any, Any] = {}
    for key, value in values.items():
        if key in BY_NAME and isinstance(value, dict):
            renamed[key] = {_own(label): _named(options) for label, options in value.items()}
        elif key == "phases" and isinstance(value, list):
            renamed[key] = [with_own_names(phase) for phase in value]
        elif key in HOOKS or key == "inputs":
            renamed[key] = _own(value) if isinstance(value, str) else _named(value)
        else:
            renamed[key] = value
    return renamed


def _named(options: Any) -> Any:
    if isinstance(options, dict) and isinstance(options.get("name"), str):
        return {**options, "name": _own(options["name"])}
    return options


def _own(name: Any) -> Any:
    return OwnName(name) if isinstance(name, str) and ":" not in name else name
