"""What a run and a measurement give."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from nern.artifact.artifact import Bytes
from nern.run.evaluation import Score

if TYPE_CHECKING:
    from nern import Report


@attrs.frozen
class Evaluation:
    """The reconstructed network beside the original one, on the test set."""

    original: Score | None  # None where the original weights are not at hand
    reconstructed: Score

    @property
    def original_top1(self) -> float | None:
        """Per cent."""
        return self.original.top1 if self.original else None

    @property
    def reconstructed_top1(self) -> float | None:
        """Per cent."""
        return self.reconstructed.top1

    def to_dict(self) -> dict[str, Any]:
        scores = {"original": self.original, "reconstructed": self.reconstructed}
        return {
            "original_top1": self.original_top1,
            "reconstructed_top1": self.reconstructed_top1,
            **{name: found.to_dict() if found else None for name, found in scores.items()},
        }


@attrs.frozen
class Result:
    """What a finished run gives; written as result.json."""

    original_top1: float | None  # per cent on the test set
    reconstructed_top1: float | None  # of the chosen checkpoint, which is the one in the artifact
    seconds: float  # wall time of fit, over all resumptions
    iterations: int
    bytes: Bytes
    run_dir: str
    artifact: str
    checkpoints: dict[str, Any]  # "chosen" and "final": iteration, held-out and test metrics
    smoothness: dict[str, float]  # eq. 6 before and after ordering
    seed: int
    environment: dict[str, Any]
    original: dict[str, float] | None = None  # every figure of the original network on the test set
    choice: dict[str, str] = attrs.field(factory=dict)  # figures that chose the checkpoint, the most important first → better direction
    classes: list[dict[str, Any]] | None = None  # counts of test images by class (`nern.run.agreement.ClassCounts`)

    def to_dict(self) -> dict[str, Any]:
        return attrs.asdict(self)

    def report(self, path: str | Path | None = None) -> Report:
        """A page about this run: accuracy, bytes, curves, errors by layer, kernels. A notebook shows it.

        Args:
            path: an HTML file to write, too.

        Raises:
            PluginError: jinja2 or matplotlib is not installed; the message says how to install them.
        """
        import nern  # studies lie above runs: the page is found by its public name

        page = nern.report(self.run_dir)
        if path is not None:
            page.save(path)
        return page
