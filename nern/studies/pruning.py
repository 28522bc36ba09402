"""Meta-compression: prunes the predictor, which is a network itself (Ashkenazi et al. 2023, sec. 5 and Figure 5)."""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
import torch
from torch import Tensor

from nern.artifact.artifact import Artifact, Bytes
from nern.errors import ArtifactError, ConfigError
from nern.representation.representation import Representation
from nern.run.evaluation import Score
from nern.studies.compensation import prune_with_compensation
from nern.studies.opening import OpenRepresentation
from nern.studies.tables import csv_table, markdown_table
from nern.support.files import write_text
from nern.support.messages import cannot_write

Scope = Literal["global", "layer"]
Method = Literal["magnitude", "compensated"]
RATIOS = tuple(round(0.1 * tenth, 1) for tenth in range(10))


@attrs.frozen
class Point:
    """Figures of the network that a pruned predictor reconstructs."""

    ratio: float  # part of the predictor's matrix entries that was set to zero
    zeros: int  # number of entries that were set to zero
    score: Score
    bytes: Bytes
    file: str
    finetuned: int  # steps of fine-tuning


@attrs.frozen
class Curve:
    """Accuracy and bytes on disk against the pruning ratio; Figure 5, left."""

    original: Score | None  # top-1 of the original network; None where its weights are missing
    scope: Scope
    points: list[Point]
    method: Method = "magnitude"

    def to_dict(self) -> dict[str, Any]:
        points = [{**attrs.asdict(point), "score": point.score.to_dict()} for point in self.points]
        return {
            "original": self.original.to_dict() if self.original else None,
            "method": self.method,
            "scope": self.scope,
            "points": points,
        }

    def rows(self) -> list[dict[str, Any]]:
        """One flat row for every ratio."""
        return [
            {
                "ratio": point.ratio, "zeros": point.zeros, "finetuned": point.finetuned, **self._figures(point.score),
                "predictor_bytes": point.bytes.predictor, "total_bytes": point.bytes.total,
            }
            for point in self.points
        ]  # fmt: skip

    def _figures(self, score: Score) -> dict[str, float | None]:
        """The figures to show: those of Figure 5 for a classifier, all figures for other networks."""
        figures = score.figures
        return {name: figures.get(name) for name in ("top1", "agreement")} if "top1" in figures else figures

    def csv(self) -> str:
        return csv_table(self.rows())

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """The heads and rows of the table, as text."""
        name = self.points[0].score.headline[0]
        rows = []
        for row in self.rows():
            value = "—" if row[name] is None else f"{row[name]:.2f}" if name == "top1" else f"{row[name]:.4g}"
            rows.append([f"{100 * row['ratio']:g} %", value, f"{row['predictor_bytes']:,}", f"{row['total_bytes']:,}"])
        return ["pruned", f"reconstructed {'top-1 %' if name == 'top1' else name}", "predictor bytes", "bytes on disk"], rows

    def markdown(self) -> str:
        return markdown_table(*self.cells())


def prune(
    opened: OpenRepresentation,
    folder: Path,
    ratios: Sequence[float] = RATIOS,
    *,
    scope: Scope | None = None,
    method: Method = "magnitude",
    finetune: int = 0,
    stages: int = 1,
    report: Callable[[str], None] = lambda line: None,
) -> Curve:
    """Prune the predictor to every ratio, from the same start each time, and measure what is left on the test set.

    With the method `magnitude` the smallest entries of the predictor's matrices become zero (unstructured magnitude pruning); with
    `compensated` those whose removal the other entries can compensate best (`nern.studies.compensation`). Each pruned
    representation is written, its zeros stored as a bitmask, so that the bytes are those of a real file.

    Args:
        folder: gets `pruned-0.30.nern` and so on, and `pruning.json`, `.csv` and `.md`.
        scope: whether the entries to remove are chosen over the whole predictor (the default for magnitudes) or in each matrix.
        method: how entries are chosen, and whether the others change.
        finetune: steps of the run's last phase that follow, with the zeros kept.
        stages: in how many stages entries are removed. With more than one, the later stages fall into the first half of the
            fine-tuning, so that the predictor recovers from each before the next one.
        report: called with one line for every ratio.

    Raises:
        ConfigError: a ratio is impossible, there is nothing to prune, or fine-tuning has no run to take its recipe from.
        ArtifactError: the folder cannot be written.
    """
    if not ratios or not all(0 <= ratio < 1 for ratio in ratios):
        raise ConfigError(f"--ratios: must be numbers from 0 to below 1, got {', '.join(f'{ratio:g}' for ratio in ratios) or 'none'}")
    if finetune and opened.engine is None:
        raise ConfigError("--finetune: needs a run directory, which says how the representation was trained; a file does not")
    if stages > max(1, finetune // 2):
        least = f"set --finetune to {2 * stages} or more"
        raise ConfigError(f"--stages {stages}: the stages share the first half of {finetune} steps of fine-tuning; {least}")
    if method == "compensated" and scope == "global":
        raise ConfigError("--scope global: with --method compensated every matrix loses the same part; leave --scope out")
    scope = scope or ("layer" if method == "compensated" else "global")
    comparison = opened.comparison()
    points = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for ratio in ratios:
            artifact, zeros = pruned(opened, ratio, scope, finetune, method, stages)
            path = folder / f"pruned-{ratio:.2f}.nern"
            sizes = artifact.save(path)
            measured = comparison.score(artifact.reconstruct().float())
            points.append(Point(ratio, zeros, measured, sizes, path.name, finetune if ratio else 0))
            name, value = measured.headline
            shown = "—" if value is None else f"{value:.2f}" if name == "top1" else f"{value:.4g}"
            figure = f"top-1 {shown} %" if name == "top1" else f"{name} {shown}"
            report(f"{100 * ratio:g} % pruned: {figure}, {sizes.total:,} bytes")
        curve = Curve(comparison.original, scope, points, method)
        for suffix, text in (("json", json.dumps(curve.to_dict(), indent=2) + "\n"), ("csv", curve.csv()), ("md", curve.markdown())):
            write_text(folder / f"pruning.{suffix}", text)
    except OSError as error:
        raise ArtifactError(cannot_write(folder, error, "free space or name another folder with -o")) from error
    return curve


def pruned(
    opened: OpenRepresentation, ratio: float, scope: Scope, finetune: int = 0, method: Method = "magnitude", stages: int = 1
) -> tuple[Artifact, int]:
    """A copy whose predictor is pruned, and the number of its entries that were set to zero."""
    artifact = attrs.evolve(opened.artifact, representation=copy.deepcopy(opened.artifact.representation))
    matrices = _matrices(artifact.representation)
    masks: dict[str, Tensor] = {}
    due = {(stage * (finetune // 2)) // stages: ratio * part for stage, part in enumerate(rising(stages))}  # step → part to remove

    def remove(part: float) -> None:
        compensated = prune_with_compensation(artifact.representation, part) if method == "compensated" and part else {}
        others = {name: value.detach() for name, value in matrices.items() if name not in compensated}
        masks.update({**compensated, **magnitude_masks(others, part, scope)})
        clear()

    def clear() -> None:
        with torch.no_grad():
            for name, mask in masks.items():
                matrices[name].masked_fill_(~mask, 0)

    steps = itertools.count(1)

    def after_step() -> None:
        step = next(steps)
        if step in due:
            remove(due[step])
        else:
            clear()

    remove(due[0])
    if finetune and ratio:
        assert opened.engine is not None
        opened.engine.tune(artifact.representation, finetune, after_step)
    if ratio and (finetune or method == "compensated"):
        artifact.representation.round()
    return artifact, sum(int((~mask).sum()) for mask in masks.values())


def rising(stages: int) -> list[float]:
    """The part of all removals that is done after each stage: much in the first ones, little in the last (Zhu & Gupta 2017, eq. 1)."""
    return [1 - (1 - (stage + 1) / stages) ** 3 for stage in range(stages)]


def magnitude_masks(weights: Mapping[str, Tensor], ratio: float, scope: Scope = "global") -> dict[str, Tensor]:
    """Masks of the entries that stay: all but the ⌊ratio · n⌋ of smallest magnitude. Of equal entries, the first ones are removed."""
    if scope == "layer":
        return {name: magnitude_masks({name: value}, ratio)[name] for name, value in weights.items()}
    if not weights:
        return {}
    flat = torch.cat([value.abs().reshape(-1) for value in weights.values()])
    kept = torch.ones(len(flat), dtype=torch.bool, device=flat.device)
    kept[flat.argsort(stable=True)[: math.floor(ratio * len(flat) + 1e-9)]] = False
    parts = torch.split(kept, [value.numel() for value in weights.values()])
    return {name: part.reshape(value.shape) for part, (name, value) in zip(parts, weights.items(), strict=True)}


def _matrices(representation: Representation) -> dict[str, Tensor]:
    """The predictor's parameters with two dimensions or more."""
    matrices: dict[str, Tensor] = {name: value for name, value in representation.predictor.named_parameters() if value.dim() >= 2}
    if not matrices:
        raise ConfigError("the predictor has no matrices: there is nothing to prune")
    return matrices
