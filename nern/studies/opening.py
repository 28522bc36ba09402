"""Opens a finished run or a representation file, to measure it and to study it."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn

from nern.artifact.artifact import Artifact
from nern.artifact.reading import load
from nern.config.overrides import apply_overrides, parse_override
from nern.config.structuring import structure_component
from nern.engine import Engine
from nern.errors import ArtifactError, ConfigError
from nern.interfaces import Data, Task
from nern.networks.batch_norm import absorb_batch_norms, absorbable
from nern.options import kind_of, option_fields, option_name
from nern.outputs.kinds import ClassLogits
from nern.registry.discovery import create_registry
from nern.registry.registry import Registry
from nern.run.devices import choose_device
from nern.run.evaluation import Comparison, chosen_measures, measures_of
from nern.run.results import Evaluation


def evaluate_file(path: str | Path, overrides: Mapping[str, Any] | Sequence[str] = (), registry: Registry | None = None) -> Evaluation:
    """Measure a representation file on the test set of the task it was made with, or of another one.

    Args:
        overrides: `task.root` says where the images are; `architecture.weights` names the original weights, to be
            measured beside it; `task.name` and `device` choose another task and device.
        registry: where the components come from; by default built-ins and installed plugins.

    Raises:
        ConfigError: an override is not one of these sections'.
        DataError: the weights are not those that the representation was made from.
    """
    opened = open_file(path, overrides, registry)
    comparison = opened.comparison()
    reconstructed = comparison.score(opened.artifact.reconstruct().float())
    return Evaluation(comparison.original, reconstructed)


@attrs.frozen
class OpenRepresentation:
    """A representation and what it is measured on."""

    artifact: Artifact
    open_data: Callable[[], Data]  # finds the images; called when something is measured on them
    original: nn.Module | None  # None where its weights are not at hand
    device: torch.device
    engine: Engine | None = None  # of the run that it comes from
    task: Task | None = None  # that the data are opened from; None for a classifier's

    def comparison(self) -> Comparison:
        """Measures networks on the test set, beside the original one."""
        experiment = self.engine.experiment if self.engine else None
        kind = self.task.outputs() if self.task else ClassLogits()
        measures = measures_of(experiment) if experiment else chosen_measures(kind)
        return Comparison(self.original, self.data, "test", self.device, kind, measures)

    @property
    def data(self) -> Data:
        """The images.

        Raises:
            DataError: they are not where the task looks for them.
        """
        return self.open_data()


def open_representation(
    path: str | Path,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    *,
    plugins: Sequence[str] = (),
    disabled: Sequence[str] = (),
) -> OpenRepresentation:
    """A run directory or a representation file, with overrides as `nern evaluate` takes them.

    Args:
        plugins: local plugins to use besides those that a run's configuration names.
        disabled: plugins to leave out.

    Raises:
        ArtifactError: there is no such file, or the run is not finished.
    """
    if not Path(path).is_dir():
        return open_file(path, overrides, create_registry(plugins, disabled=disabled))
    engine = Engine.from_run(path, overrides, plugins=plugins, disabled=disabled)
    if not engine.run.artifact.exists():
        raise ArtifactError(f"run {path} is not finished: it has no {engine.run.artifact.name}; continue with nern train {path} --resume")
    original = engine.original() if engine.source.available else None
    if original is not None:
        engine.artifact.check_original(original)
        _absorb(engine.artifact, original)
    return OpenRepresentation(engine.artifact, lambda: engine.data, original, engine.device, engine, engine.experiment.task)


def open_file(path: str | Path, overrides: Mapping[str, Any] | Sequence[str] = (), registry: Registry | None = None) -> OpenRepresentation:
    """A representation file; see `evaluate_file` for overrides and errors."""
    if not isinstance(overrides, Mapping):
        overrides = dict(parse_override(text) for text in overrides)
    rebuilt = load(path, registry or create_registry())
    for key in overrides:
        if key.split(".")[0] != "task" and key not in ("architecture.weights", "device"):
            raise ConfigError(f"{key}: a representation file is measured with task.*, architecture.weights and device only")
    sections = apply_overrides({"task": _task_of(rebuilt), "architecture": {}, "device": "auto"}, overrides, {})
    weights = sections["architecture"].get("weights")
    if weights is not None and not isinstance(weights, str):
        raise ConfigError(f"architecture.weights: must be text, got {kind_of(weights)}")
    task = structure_component("task", sections["task"], rebuilt.registry, "task")
    device = choose_device(str(sections["device"]))
    architecture = attrs.evolve(rebuilt.architecture, weights=weights)
    network = None
    if architecture.weights is not None:
        network = architecture.built().eval()
        architecture.load(network)
        rebuilt.check_original(network)
        _absorb(rebuilt, network)
    open_data = cache(lambda: task.open(architecture.preprocessing(), 0.0, 0))
    return OpenRepresentation(rebuilt, open_data, network, device, None, task)


def _absorb(artifact: Artifact, original: nn.Module) -> None:
    """Absorb the batch norms of an original network as its representation does, so that their kernels can be compared."""
    if artifact.absorbed is not None:
        represented = [layer.parameter for layer in artifact.representation.grid.layers]
        absorb_batch_norms(original, absorbable(original, represented))


def _task_of(artifact: Artifact) -> dict[str, Any]:
    """The task that a file was made with, without any option that could be a path or fetch something: those are the user's."""
    noted = artifact.notes.get("task")
    if not isinstance(noted, dict) or not isinstance(noted.get("name"), str):
        return {}
    cls = artifact.registry.find("task", noted["name"]).cls
    hints = typing.get_type_hints(cls)
    plain = {option_name(field) for field in option_fields(cls) if not _holds_text(hints[field.name])} - {"root", "download"}
    return {"name": noted["name"], **{key: value for key, value in noted.items() if key in plain}}


def _holds_text(hint: Any) -> bool:
    """Whether an option takes any text, which may name a file; a choice among given words is none of them."""
    if typing.get_origin(hint) is typing.Literal:
        return False
    return hint is str or any(_holds_text(part) for part in typing.get_args(hint))
