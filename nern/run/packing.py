"""Packs a representation with everything else that its file holds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from nern.artifact.absorbed import Absorbed
from nern.artifact.artifact import Artifact
from nern.artifact.copied import join_copied
from nern.config.experiment import Experiment
from nern.config.structuring import unstructure
from nern.errors import ConfigError
from nern.registry.registry import Registry
from nern.representation.representation import Representation
from nern.run.original import Original

FACTOR_BITS = 9  # bits that a factor of a step and one of a mean take together, approximately


def pack(
    experiment: Experiment, original: Original, representation: Representation, registry: Registry, records: dict[str, Any]
) -> Artifact:
    """Make the artifact, which is what a file holds, from a trained representation.

    Args:
        records: the figures of the run's checkpoints.
    """
    if records["final"] == records["chosen"]:
        records = {"chosen": records["chosen"]}
    task = {name: value for name, value in unstructure(experiment.task, registry).items() if not _is_path(name, value)}
    return Artifact(
        representation, experiment.architecture, experiment.embedding, experiment.predictor, original.with_stored_copies().cpu(),
        original.dtypes, registry, original.sha256, {"task": task, "checkpoints": rounded(records)},
        absorbed=Absorbed.of(original.network, original.absorbed), copied=experiment.copied,
        base=experiment.base if representation.base is not None else None,
    )  # fmt: skip


def _is_path(name: str, value: Any) -> bool:
    """Whether an option of a task is a path on this machine."""
    return name == "root" or (name == "classes" and isinstance(value, str))


def rounded(value: Any) -> Any:
    """Round numbers, also inside dictionaries, to six significant digits: further digits of figures would only cost bytes."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return float(f"{value:.6g}") if isinstance(value, float) else value


def room_for_codes(experiment: Experiment, original: Original, representation: Representation, registry: Registry) -> float | None:
    """An estimate, made before coding starts, of the bits that integers may take; None where no size was asked for.

    Raises:
        ConfigError: copied entries and the file's header alone take more than the wanted size.
    """
    if experiment.bytes is None:
        return None
    artifact = pack(experiment, original, representation, registry, like_at_the_end())
    sizes, trained = artifact.bytes(), representation.copies.names if representation.copies else []
    entries = artifact.copied_entries()
    uncoded = join_copied({name: entries[name] for name in trained}, experiment.copied)  # which are coded afterwards
    factors = sum(sum(value.shape) if value.dim() >= 2 else 1 for value in representation.parameters())
    copies = sum(value.numel() * value.element_size() for value in uncoded.values())
    added = sum(value.numel() * value.element_size() for value in representation.base.buffers()) if representation.base else 0
    fixed = sizes.header + sizes.ordering + sizes.zeros + sizes.copied - copies + added + FACTOR_BITS * factors / 8
    if fixed >= experiment.bytes:
        raise ConfigError(
            f"bytes: {experiment.bytes:,} is too small: {fixed:,.0f} are taken before the first kernel; copy less or ask for more"
        )
    return 8 * (experiment.bytes - fixed)


def coded_budget(
    experiment: Experiment, original: Original, representation: Representation, registry: Registry, exact: float
) -> float | None:
    """The bits that the coded integers may take for the file to have the wanted size; None where no size was asked for.

    Args:
        exact: the bits that the integers take now.
    """
    if experiment.bytes is None:
        return None
    total = pack(experiment, original, representation, registry, like_at_the_end()).bytes().total
    return 8 * (experiment.bytes - total) + exact


def like_at_the_end(metrics: Iterable[str] = ("top1", "top5", "agreement", "kl"), chosen: bool = False) -> dict[str, Any]:
    """Placeholder figures, as long as the final ones can be: the file holds them, so its size depends on them.

    Args:
        chosen: whether a checkpoint other than the last one may be chosen, whose figures the file then holds, too.
    """
    figures = dict.fromkeys(metrics, 1.23457e-05)
    final, other = ({"iteration": step, "heldout": figures, "test": figures} for step in (100_000, 99_999))
    return {"final": final, "chosen": other if chosen else final}


@torch.no_grad()
def without_zeros(predictor: nn.Module) -> None:
    """Make the zeros of an untrained predictor small numbers, as training does."""
    for parameter in predictor.parameters():
        parameter[parameter == 0] = 1e-4
