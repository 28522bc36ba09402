"""The base class of observers that only log named numbers, as experiment trackers do."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any

import attrs

from nern.errors import Interrupted
from nern.hookspecs import hookimpl
from nern.interfaces import Observer


@attrs.frozen
class ScalarObserver(Observer):
    """Logs every loss and every metric as `group/name`, with its step.

    The group is the phase for losses and the learning rate, the split for metrics, and split and checkpoint for the measurements at
    the end (`test-chosen/top1`). Subclasses send the numbers somewhere.
    """

    @abstractmethod
    def start(self, run_dir: Path, config: dict[str, Any], iteration: int) -> None:
        """A run starts or is resumed at `iteration`; called again when the original network was trained first."""

    @abstractmethod
    def scalars(self, values: dict[str, float], iteration: int) -> None:
        """Log the numbers of one step, by name."""

    @abstractmethod
    def finish(self, result: dict[str, Any] | None, error: BaseException | None) -> None:
        """The run ended; also called where `start` failed or was never called."""

    @hookimpl
    def nern_run_started(self, run_dir: Path, config: dict[str, Any], iteration: int) -> None:
        self.start(run_dir, config, iteration)

    @hookimpl
    def nern_step(self, phase: str, iteration: int, losses: dict[str, float], learning_rate: float) -> None:
        self.scalars({f"{phase}/{name}": value for name, value in {**losses, "learning_rate": learning_rate}.items()}, iteration)

    @hookimpl
    def nern_evaluated(self, phase: str, iteration: int, split: str, metrics: dict[str, float]) -> None:
        group = split if split == "heldout" else f"{split}-{phase}"
        self.scalars({f"{group}/{name}": value for name, value in metrics.items()}, iteration)

    @hookimpl
    def nern_run_finished(self, result: dict[str, Any] | None, error: BaseException | None) -> None:
        self.finish(result, error)


def failed(error: BaseException | None) -> bool:
    """Whether a run failed; a run that was asked to stop has not failed."""
    return error is not None and not isinstance(error, Interrupted)


def headline(result: dict[str, Any]) -> dict[str, float]:
    """The figures of a result for a table of runs: top-1 in per cent, bytes on disk, seconds."""
    figures = {name: result[name] for name in ("original_top1", "reconstructed_top1", "seconds")}
    figures["bytes"] = result["bytes"]["total"]
    return {name: value for name, value in figures.items() if value is not None}
