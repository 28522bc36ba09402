"""Opens a finished run or a representation file for measurements and studies."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from nern.artifact.artifact import Artifact
from nern.artifact.reading import load
from nern.config.overrides import apply_overrides, parse_override
from nern.config.structuring import structure_component
from nern.engine import Engine
from nern.errors import ArtifactError, ConfigError, DataError
from nern.interfaces import Data, Task
from nern.networks.batch_norm import absorb_batch_norms, absorbable
from nern.networks.state_dicts import digest, unwrap
from nern.networks.weights_files import read_weights_file
from nern.options import kind_of, option_fields, option_name
from nern.outputs.kinds import ClassLogits
from nern.registry.discovery import create_registry
from nern.registry.registry import Registry
from nern.run.devices import choose_device
from nern.run.evaluation import Comparison, chosen_measures, measures_of
from nern.run.results import Evaluation
from nern.run.task_data import open_task


def evaluate_file(path: str | Path, overrides: Mapping[str, Any] | Sequence[str] = (), registry: Registry | None = None) -> Evaluation:
    """Measure a representation file on the test set of the task it was made with, or of another one.

    Args:
        overrides: `task.root` says where the images are; `architecture.weights` names the original weights, to be
            measured beside it; `task.name` and `device` choose another task and device.
        registry: where the components come from; by default built-ins and installed plugins.

    Raises:
        ConfigError: an override names another section.
        DataError: the weights are not those that the representation was made from.
    """
    opened = open_file(path, overrides, registry)
    comparison = opened.comparison()
    reconstructed = comparison.score(opened.artifact.reconstruct().float())
    return Evaluation(comparison.original, reconstructed)


@attrs.frozen
class OpenRepresentation:
    """A representation together with the data and the original network that it is measured with."""

    artifact: Artifact
    open_data: Callable[[], Data]  # function that opens the images when they are first needed
    original: nn.Module | None  # the original network; None where its weights are missing
    device: torch.device
    engine: Engine | None = None  # experiment of the run that it comes from; None for a file
    task: Task | None = None  # the task that the data are opened from; None means a classifier's
    weights: Mapping[str, Tensor] | None = None  # of an original network that nothing here builds, by parameter name

    @property
    def original_weights(self) -> Mapping[str, Tensor] | None:
        """The original parameters by name, with the values that the representation was trained for; None where they are not found."""
        return dict(self.original.named_parameters()) if self.original is not None else self.weights

    def comparison(self) -> Comparison:
        """The comparison of networks with the original one on the test set."""
        experiment = self.engine.experiment if self.engine else None
        kind = self.task.outputs() if self.task else ClassLogits()
        measures = measures_of(experiment) if experiment else chosen_measures(kind)
        return Comparison(self.original, self.data, "test", self.device, kind, measures)

    @property
    def data(self) -> Data:
        """The images.

        Raises:
            DataError: the task does not find them.
        """
        return self.open_data()


def open_representation(
    path: str | Path,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    *,
    plugins: Sequence[str] = (),
    disabled: Sequence[str] = (),
    weights_alone: bool = False,
) -> OpenRepresentation:
    """Open a run directory or a representation file, with overrides as `nern evaluate` takes them.

    Args:
        plugins: local plugins to use besides those that a run's configuration names.
        disabled: plugins to leave out.
        weights_alone: whether the original weights are enough where nothing here builds the network, as when it was
            passed in memory.

    Raises:
        ArtifactError: there is no such file, or the run is not finished.
        ConfigError: nothing here builds the network, and its weights alone are not enough.
        DataError: the original weights cannot be read, or are others.
    """
    if not Path(path).is_dir():
        return open_file(path, overrides, create_registry(plugins, disabled=disabled), weights_alone)
    engine = Engine.from_run(path, overrides, plugins=plugins, disabled=disabled)
    if not engine.run.artifact.exists():
        raise ArtifactError(f"run {path} is not finished: it has no {engine.run.artifact.name}; continue with nern train {path} --resume")
    original, weights = None, None
    if engine.source.available:
        try:
            original = engine.original()
        except ConfigError as unbuilt:
            if not weights_alone:
                raise
            file = engine.run.original if engine.run.original.exists() else engine.experiment.architecture.weights
            weights = _weights_alone(engine.artifact, file, unbuilt)
    if original is not None:
        engine.artifact.check_original(original)
        _absorb(engine.artifact, original)
    return OpenRepresentation(engine.artifact, lambda: engine.data, original, engine.device, engine, engine.experiment.task, weights)


def open_file(
    path: str | Path,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    registry: Registry | None = None,
    weights_alone: bool = False,
) -> OpenRepresentation:
    """A representation file; see `evaluate_file` for overrides and errors, `open_representation` for `weights_alone`."""
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
    network, weights_only = None, None
    if architecture.weights is not None:
        try:
            network = architecture.built().eval()
        except ConfigError as unbuilt:
            if not weights_alone:
                raise
            weights_only = _weights_alone(rebuilt, architecture.weights, unbuilt)
    if network is not None:
        architecture.load(network)
        rebuilt.check_original(network)
        _absorb(rebuilt, network)
    open_data = cache(lambda: open_task(task, architecture, 0.0, 0))
    return OpenRepresentation(rebuilt, open_data, network, device, None, task, weights_only)


def _weights_alone(artifact: Artifact, file: str | Path | None, unbuilt: ConfigError) -> dict[str, Tensor]:
    """The original state dict in a file, float32, for a network that nothing here builds.

    Raises:
        DataError: the file cannot be read, or its weights are not those that the representation was made from.
    """
    if file is None:
        raise DataError(str(unbuilt)) from unbuilt
    content = read_weights_file(Path(file))
    for state in (content, unwrap(content, f"weights file {file}")):
        if all(isinstance(value, Tensor) for value in state.values()):
            in_float32 = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
            if digest(in_float32) == artifact.sha256:
                if artifact.absorbed is not None:
                    raise DataError(f"batch norms are folded into the convolutions, for which the network is needed: {unbuilt}")
                return in_float32
    raise DataError(f"{file} does not hold the weights that the representation was made from, or under other names: {unbuilt}")


def _absorb(artifact: Artifact, original: nn.Module) -> None:
    """Absorb the batch norms of an original network as its representation did, so that the kernels of both can be compared."""
    if artifact.absorbed is not None:
        represented = [layer.parameter for layer in artifact.representation.grid.layers]
        absorb_batch_norms(original, absorbable(original, represented))


def _task_of(artifact: Artifact) -> dict[str, Any]:
    """The task that a file was made with, without options that could be paths or download something: only the user may set these."""
    noted = artifact.notes.get("task")
    if not isinstance(noted, dict) or not isinstance(noted.get("name"), str):
        return {}
    cls = artifact.registry.find("task", noted["name"]).cls
    hints = typing.get_type_hints(cls)
    plain = {option_name(field) for field in option_fields(cls) if not _holds_text(hints[field.name])} - {"root", "download"}
    return {"name": noted["name"], **{key: value for key, value in noted.items() if key in plain}}


def _holds_text(hint: Any) -> bool:
    """Whether an option takes arbitrary text, which could be a path; options with fixed choices do not count."""
    if typing.get_origin(hint) is typing.Literal:
        return False
    return hint is str or any(_holds_text(part) for part in typing.get_args(hint))
