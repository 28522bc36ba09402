"""What can be done with a representation file besides training it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from nern import artifact, config
from nern.artifact import Artifact
from nern.devices import choose_device
from nern.engine import Engine
from nern.errors import ArtifactError, ConfigError
from nern.evaluation import predict, score
from nern.files import write_object, write_tensors
from nern.interfaces import Data
from nern.options import kind_of
from nern.registry import Registry
from nern.results import Evaluation


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
    logits, labels = predict(opened.artifact.reconstruct().float(), opened.data, "test", opened.device)
    if opened.original is None:
        return Evaluation(None, score(logits, labels))
    original, _ = predict(opened.original, opened.data, "test", opened.device)
    return Evaluation(score(original, labels, original), score(logits, labels, original))


@attrs.frozen
class Opened:
    """A representation and what it is measured on."""

    artifact: Artifact
    data: Data
    original: nn.Module | None  # None where its weights are not at hand
    device: torch.device
    engine: Engine | None = None  # of the run that it comes from


def open_representation(path: str | Path, overrides: Mapping[str, Any] | Sequence[str] = (), registry: Registry | None = None) -> Opened:
    """A run directory or a representation file, with overrides as `nern evaluate` takes them.

    Raises:
        ArtifactError: there is no such file, or the run is not finished.
    """
    if not Path(path).is_dir():
        return open_file(path, overrides, registry)
    engine = Engine.from_run(path, overrides)
    if not engine.run.artifact.exists():
        raise ArtifactError(f"run {path} is not finished: it has no {engine.run.artifact.name}; go on with nern train {path} --resume")
    has_original = engine.experiment.architecture.has_weights or engine.run.original.exists()
    original = engine.original() if has_original else None
    if original is not None:
        engine.artifact.check_original(original)
    return Opened(engine.artifact, engine.data, original, engine.device, engine)


def open_file(path: str | Path, overrides: Mapping[str, Any] | Sequence[str] = (), registry: Registry | None = None) -> Opened:
    """A representation file; see `evaluate_file` for overrides and errors."""
    if not isinstance(overrides, Mapping):
        overrides = dict(config.parse_override(text) for text in overrides)
    rebuilt = artifact.load(path, registry)
    for key in overrides:
        if key.split(".")[0] != "task" and key not in ("architecture.weights", "device"):
            raise ConfigError(f"{key}: a representation file is measured with task.*, architecture.weights and device only")
    sections = config.apply_overrides({"task": rebuilt.notes["task"], "architecture": {}, "device": "auto"}, overrides, {})
    weights = sections["architecture"].get("weights")
    if weights is not None and not isinstance(weights, str):
        raise ConfigError(f"architecture.weights: must be text, got {kind_of(weights)}")
    task = config.structure_component("task", sections["task"], rebuilt.registry, "task")
    device = choose_device(str(sections["device"]))
    architecture = attrs.evolve(rebuilt.architecture, weights=weights)
    data = task.open(architecture.preprocessing(), 0.0, 0)
    network = None
    if architecture.weights is not None:
        network = architecture.build().eval()
        architecture.load(network)
        rebuilt.check_original(network)
    return Opened(rebuilt, data, network, device)


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
