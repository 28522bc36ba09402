"""Describes a representation file or a run folder, without needing images or the network."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import attrs

from nern.artifact.artifact import Artifact
from nern.artifact.reading import load
from nern.config.structuring import unstructure
from nern.config.yaml_reading import read_yaml
from nern.registry.registry import Registry
from nern.run.folder import RunFolder
from nern.studies.curves import read_curves


@attrs.frozen
class Description:
    """Facts about a file or a run by name, and the bytes of the file by part (None where there is no file yet)."""

    place: str
    facts: dict[str, str]
    bytes: dict[str, int] | None

    def to_dict(self) -> dict[str, Any]:
        return attrs.asdict(self)


def describe_place(place: Path, registry: Registry) -> Description:
    """Describe a run folder, finished or not, or a representation file.

    Raises:
        ArtifactError: the file is missing, damaged or no representation.
        ConfigError: the folder holds no run.
    """
    if not place.is_dir():
        artifact = load(place, registry)
        return Description(str(place), {**describe_artifact(artifact), **_measured(artifact)}, attrs.asdict(artifact.bytes()))
    run = RunFolder(place)
    run.must_exist()
    config = read_yaml(run.config.read_text(encoding="utf-8"), str(run.config))
    facts = {"run": _state(run, config), "task": str(config.get("task", {}).get("name")), "seed": str(config.get("seed"))}
    if not run.artifact.is_file():
        parts = {kind: str(config.get(kind, {}).get("name")) for kind in ("architecture", "embedding", "predictor", "smoother")}
        return Description(str(place), {**facts, **parts}, None)
    artifact = load(run.artifact, registry)
    return Description(str(place), {**facts, **describe_artifact(artifact), **_measured(artifact)}, attrs.asdict(artifact.bytes()))


def describe_artifact(artifact: Artifact) -> dict[str, str]:
    """Describe the network, the predictor and how numbers are stored."""
    grid, registry = artifact.representation.grid, artifact.registry
    architecture = unstructure(artifact.architecture, registry)
    represented = sum(math.prod(layer.shape) for layer in grid.layers)  # tiles at the edges hold more than the weight
    parameters = sum(entry.numel for entry in artifact.entries)
    return {
        "network": component_text({key: value for key, value in architecture.items() if value is not None}),
        "represented": f"{len(grid.layers)} layers, {grid.rows:,} kernels, {represented:,} of {parameters:,} numbers",
        "embedding": component_text(unstructure(artifact.embedding, registry)),
        "predictor": component_text(unstructure(artifact.predictor, registry)),
        **({"base": component_text(unstructure(artifact.base, registry))} if artifact.base is not None else {}),
        "numbers stored as": artifact.representation.storage.name,
        "original's SHA-256": artifact.sha256,
    }


def component_text(values: dict[str, Any]) -> str:
    """A component's name and options as text: `mlp, hidden 64, layers 5`."""
    given = {key: value for key, value in values.items() if key != "name" and value not in ([], {})}
    shown = [f"{key} {json.dumps(value) if isinstance(value, (list, dict)) else value}" for key, value in given.items()]
    return ", ".join([str(values.get("name")), *shown])


def _measured(artifact: Artifact) -> dict[str, str]:
    """The figures on the test set that the file records."""
    chosen = (artifact.notes.get("checkpoints") or {}).get("chosen") or {}
    figures = ", ".join(f"{name} {value:.4g}" for name, value in (chosen.get("test") or {}).items())
    return {"on the test set": figures} if figures else {}


def _state(run: RunFolder, config: dict[str, Any]) -> str:
    total = sum(int(phase.get("iterations", 0)) for phase in config.get("phases", []))
    if run.result.is_file():
        return f"finished, {total:,} steps"
    phases = read_curves(run.path).phases if run.metrics.is_file() else []
    done = phases[-1].last if phases else 0
    return f"not finished: step {done:,} of {total:,}; continue with nern train {run.path} --resume"
