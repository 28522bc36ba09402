"""Collects the facts about a run from its folder or a single file, without images and without the network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import yaml

from nern.artifact.reading import load
from nern.config.structuring import unstructure
from nern.errors import ArtifactError, DataError
from nern.run.agreement import ClassCounts, Difference, accuracy_difference
from nern.run.folder import RunFolder
from nern.studies.curves import Curves, read_curves
from nern.studies.description import describe_artifact
from nern.studies.importance import LayerErrors, relative_errors
from nern.studies.kernel_choice import ChosenKernel, best_and_worst
from nern.studies.opening import OpenRepresentation, open_representation
from nern.studies.report.paper import PaperRow, paper_row
from nern.support.messages import first_line

#: The entries of result.json that the page shows.
NEEDED = {"original_top1", "bytes", "checkpoints", "environment", "iterations", "seconds", "seed", "smoothness"}


@attrs.frozen(eq=False)
class RunFacts:
    """One run, or one representation file, as the page shows it."""

    label: str
    config: str  # the configuration as YAML; for a single file, the components that it names
    bytes: Mapping[str, int]  # bytes by part, with `original` and `total`
    original: Mapping[str, Any]  # figures of the original network on the test set; empty where it was not measured
    reconstructed: Mapping[str, Any]
    difference: Difference | None  # counts by class; None without labels, or where an older version of nern made the run
    classes: Sequence[ClassCounts]
    about: Mapping[str, Any]  # facts about the network, the predictor and the run by name
    environment: Mapping[str, Any]
    curves: Curves | None
    errors: Mapping[str, LayerErrors] | None
    best: Sequence[ChosenKernel]
    worst: Sequence[ChosenKernel]
    without_errors: str  # the reason why errors are None
    paper: PaperRow | None
    better: Mapping[str, str] = attrs.field(factory=dict)  # figure → its better direction; empty where it is not recorded

    @property
    def headline(self) -> str:
        """The most important figure: the first that both networks have, or that one of them has."""
        both = [name for name in self.original if name in self.reconstructed]
        return next(iter([*both, *self.original, *self.reconstructed]), "top1")

    @property
    def figures(self) -> list[tuple[str, float | None, float | None]]:
        """Every figure on the test images: its name, and its value of the original and of the reconstructed network."""
        names = dict.fromkeys([*self.original, *self.reconstructed])
        return [(name, self.original.get(name), self.reconstructed.get(name)) for name in names]

    @property
    def change(self) -> float | None:
        """The headline figure of the reconstructed network less that of the original one; None where one lacks it."""
        values = [network.get(self.headline) for network in (self.reconstructed, self.original)]
        return None if None in values else values[0] - values[1]  # type: ignore[operator]

    @property
    def verdict(self) -> str | None:
        """Whether the reconstruction is `better` or `worse` by the headline figure; None where they are equal or that is not known."""
        direction = self.better.get(self.headline)
        if not self.change or direction is None:
            return None
        return "better" if (self.change > 0) == (direction == "higher") else "worse"


def read_facts(place: Path, label: str, weights: str | None = None, plugins: Sequence[str] = (), disabled: Sequence[str] = ()) -> RunFacts:
    """Read everything about a run folder or a representation file.

    Args:
        weights: the file of the original weights, where it has moved since the run.
        plugins: local plugins to use besides those that the run names.
        disabled: plugins to leave out.

    Raises:
        ArtifactError: the file is missing or damaged, or the run is not finished.
        ConfigError: the folder holds no run.
    """
    overrides = {"architecture.weights": weights} if weights else {}
    if place.is_dir():
        run = RunFolder(place)
        run.must_exist()
        return _of_run(run, label, *_with_original(place, overrides, plugins, disabled))
    return _of_file(open_representation(place, overrides, plugins=plugins, disabled=disabled, weights_alone=True), label)


def _of_run(run: RunFolder, label: str, opened: OpenRepresentation | None, reason: str) -> RunFacts:
    if not run.result.is_file() or not run.artifact.is_file():
        raise ArtifactError(f"run {run.path} is not finished: it has no {run.result.name}; continue with nern train {run.path} --resume")
    result, counts = _read_result(run)
    artifact = opened.artifact if opened else load(run.artifact)
    text = run.config.read_text(encoding="utf-8")
    engine = opened.engine if opened else None
    config = unstructure(engine.experiment, engine.registry) if engine else yaml.safe_load(text)
    about = {
        **describe_artifact(artifact),
        "steps": f"{result['iterations']:,}",
        "time": _duration(result["seconds"]),
        "seed": result["seed"],
        "smoothness (eq. 6), before and after ordering": " → ".join(f"{result['smoothness'][key]:,.0f}" for key in ("before", "after")),
        "chosen at step": f"{result['checkpoints']['chosen']['iteration']:,}",
    }
    of_older_versions = {} if result["original_top1"] is None else {"top1": result["original_top1"]}
    original = result.get("original") or of_older_versions
    chosen = result["checkpoints"]["chosen"].get("test", {})
    return RunFacts(
        label, text, result["bytes"], original, chosen, accuracy_difference(counts), counts, about, result["environment"],
        read_curves(run.path) if run.metrics.is_file() else None, *_errors(opened), reason, paper_row(config, artifact.registry),
        result.get("better") or {},
    )  # fmt: skip


def _read_result(run: RunFolder) -> tuple[dict[str, Any], list[ClassCounts]]:
    """Read a finished run's result and its counts by class, which runs of older versions lack."""
    try:
        result = json.loads(run.result.read_text(encoding="utf-8"))
        missing = NEEDED - result.keys()
        if missing:
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        return result, [ClassCounts(**row) for row in result.get("classes") or []]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{run.result} is damaged ({first_line(error)})"
        raise ArtifactError(f"{reason}; remove it and write it again with nern train {run.path} --resume") from error


def _of_file(opened: OpenRepresentation, label: str) -> RunFacts:
    artifact = opened.artifact
    parts = {kind: unstructure(getattr(artifact, kind), artifact.registry) for kind in ("architecture", "embedding", "predictor")}
    parts |= {"base": unstructure(artifact.base, artifact.registry)} if artifact.base is not None else {}
    config = yaml.safe_dump({**parts, "task": artifact.notes.get("task")}, sort_keys=False, allow_unicode=True)
    test = ((artifact.notes.get("checkpoints") or {}).get("chosen") or {}).get("test") or {}
    reason = "" if opened.original_weights is not None else "a file alone does not hold the original weights; name them with --weights FILE"
    return RunFacts(
        label, config, attrs.asdict(artifact.bytes()), {}, test, None, [], describe_artifact(artifact), {}, None,
        *_errors(opened), reason, None,
    )  # fmt: skip


def _with_original(
    place: Path, overrides: dict[str, Any], plugins: Sequence[str], disabled: Sequence[str]
) -> tuple[OpenRepresentation | None, str]:
    """Open the run; also returns why its original weights are missing (an empty text where they are not)."""
    try:
        opened = open_representation(place, overrides, plugins=plugins, disabled=disabled, weights_alone=True)
    except DataError as error:
        return None, first_line(error)
    missing = "the original weights are not where the run found them; name them with --weights FILE"
    return opened, "" if opened.original_weights is not None else missing


def _errors(
    opened: OpenRepresentation | None,
) -> tuple[Mapping[str, LayerErrors] | None, Sequence[ChosenKernel], Sequence[ChosenKernel]]:
    if opened is None or opened.original_weights is None:
        return None, [], []
    layers = opened.artifact.representation.grid.layers
    weights = opened.original_weights, opened.artifact.representation.reconstruct()
    errors = relative_errors(*weights, layers)
    return errors, *best_and_worst(*weights, errors, layers)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
