"""Puts a representation together with what else its file holds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nern.artifact.absorbed import Absorbed
from nern.artifact.artifact import Artifact
from nern.config.experiment import Experiment
from nern.config.structuring import unstructure
from nern.errors import ConfigError
from nern.registry.registry import Registry
from nern.representation.representation import Representation
from nern.run.original import Original

FACTOR_BITS = 9  # that a factor of a step and one of a mean size take together, about


def pack(
    experiment: Experiment, original: Original, representation: Representation, registry: Registry, records: dict[str, Any]
) -> Artifact:
    """The representation as a file holds it.

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
    """Whether an option of a task says where something lies on this machine."""
    return name == "root" or (name == "classes" and isinstance(value, str))


def rounded(value: Any) -> Any:
    """Numbers to six significant digits, inside of dictionaries, too: figures should not cost more bytes than they say."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return float(f"{value:.6g}") if isinstance(value, float) else value


def room_for_codes(experiment: Experiment, original: Original, representation: Representation, registry: Registry) -> float | None:
    """About how many bits integers may take before anything is coded; None where no size was asked for.

    Raises:
        ConfigError: what is copied and the file's header take more than the size asked for.
    """
    if experiment.bytes is None:
        return None
    sizes = pack(experiment, original, representation, registry, like_at_the_end()).bytes()
    factors = sum(sum(value.shape) if value.dim() >= 2 else 1 for value in representation.parameters())
    copies = sum(value.numel() * value.element_size() for value in representation.copies.parameters()) if representation.copies else 0
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
    """Bits that the coded integers may take so that the file comes to the size asked for; None where none was.

    Args:
        exact: the bits that they take now.
    """
    if experiment.bytes is None:
        return None
    total = pack(experiment, original, representation, registry, like_at_the_end()).bytes().total
    return 8 * (experiment.bytes - total) + exact


def like_at_the_end(metrics: Iterable[str] = ("top1", "top5", "agreement", "kl")) -> dict[str, Any]:
    """Figures of the length that they will have: they stand in the file, too."""
    figures = dict.fromkeys(metrics, 91.2345)
    record = {"iteration": 1000, "heldout": figures, "test": figures}
    return {"final": record, "chosen": record}
