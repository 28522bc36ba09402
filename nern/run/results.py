"""The results of a run and of a measurement."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from nern.artifact.artifact import Bytes
from nern.errors import ArtifactError
from nern.run.evaluation import Score
from nern.support.files import write_atomically
from nern.support.messages import cannot_write
from nern.support.showing import Shown

if TYPE_CHECKING:
    from nern import Report


@attrs.frozen
class Evaluation:
    """The reconstructed network beside the original one, on one split of the images."""

    original: Score | None
    """Figures of the original network; None where its weights are missing."""
    reconstructed: Score
    """Figures of the reconstructed network."""

    @property
    def original_top1(self) -> float | None:
        """Top-1 accuracy of the original network in per cent; None where its weights or the labels are missing."""
        return self.original.top1 if self.original else None

    @property
    def reconstructed_top1(self) -> float | None:
        """Top-1 accuracy of the reconstructed network in per cent; None where there are no labels."""
        return self.reconstructed.top1

    @property
    def headline(self) -> tuple[str, float, float] | None:
        """The first figure of both networks: its name, and its value of the original and of the reconstructed network."""
        before, after = self.original.metrics() if self.original else {}, self.reconstructed.metrics()
        return next(((name, before[name], value) for name, value in after.items() if name in before), None)

    def to_dict(self) -> dict[str, Any]:
        scores = {"original": self.original, "reconstructed": self.reconstructed}
        return {
            "original_top1": self.original_top1,
            "reconstructed_top1": self.reconstructed_top1,
            **{name: score.to_dict() if score else None for name, score in scores.items()},
        }


@attrs.frozen
class Result(Shown):
    """The result of a finished run, which is also written as result.json."""

    original_top1: float | None
    """Top-1 accuracy of the original network on the test set, in per cent; None where there are no labels."""
    reconstructed_top1: float | None
    """Top-1 accuracy of the chosen checkpoint, which is the one in the artifact."""
    seconds: float
    """Wall time of `fit`, including all resumed parts of the run."""
    iterations: int
    """Number of steps of all phases."""
    bytes: Bytes
    """Sizes of the file and of its parts."""
    run_dir: str
    """The run's folder."""
    artifact: str
    """The run's representation file."""
    checkpoints: dict[str, Any]
    """"chosen" and "final": iteration, held-out and test metrics."""
    smoothness: dict[str, float]
    """Smoothness of the original kernels (eq. 6), before and after ordering."""
    seed: int
    """The seed, from which everything random is derived."""
    environment: dict[str, Any]
    """Versions, device and processor."""
    original: dict[str, float] | None = None
    """Every figure of the original network on the test set."""
    choice: dict[str, str] = attrs.field(factory=dict)
    """The figures by which the checkpoint was chosen, the most important first, each with its better direction."""
    better: dict[str, str] = attrs.field(factory=dict)
    """Every figure that was measured → its better direction, `higher` or `lower`."""
    classes: list[dict[str, Any]] | None = None
    """Counts of test images by class (`nern.run.agreement.ClassCounts`)."""

    def to_dict(self) -> dict[str, Any]:
        return attrs.asdict(self)

    def report(self, path: str | Path | None = None) -> Report:
        """A page about this run: accuracy, bytes, curves, errors by layer, kernels. A notebook shows it.

        Args:
            path: an HTML file to which the page is also written.

        Raises:
            PluginError: jinja2 or matplotlib is not installed; the message says how to install them.
        """
        import nern  # `run` may not import `studies`: the page is found by its public name

        page = nern.report(self.run_dir)
        if path is not None:
            page.save(path)
        return page

    def save(self, path: str | Path) -> Bytes:
        """Write the one file to keep, from which `nern.load` gives the network back.

        Raises:
            ArtifactError: the run's own file is gone, or `path` cannot be written.
        """
        source, path = Path(self.artifact), Path(path)
        if not source.is_file():
            raise ArtifactError(f"there is no {source} any more, from which the file would be written")
        try:
            write_atomically(path, lambda file: file.write(source.read_bytes()))
        except OSError as error:
            raise ArtifactError(cannot_write(path, error, "free space or name another file")) from error
        return self.bytes

    @property
    def headline(self) -> tuple[str, float | None, float | None] | None:
        """Name of the first figure, and its value of the original and of the reconstructed network on the test set."""
        tested = (self.checkpoints.get("chosen") or {}).get("test") or {}
        shared = [name for name in self.original or {} if name in tested]
        return (shared[0], (self.original or {})[shared[0]], tested[shared[0]]) if shared else None

    @property
    def drop(self) -> float | None:
        """By how much the reconstructed network's headline figure is worse than the original's; None without test images.

        The figure's metric says which direction is the worse one (`Metric.better`).
        """
        headline = self.headline
        if headline is None or headline[1] is None or headline[2] is None:
            return None
        lost = headline[1] - headline[2]
        return -lost if self.better.get(headline[0]) == "lower" else lost

    def push_to_hub(self, repo: str, *, private: bool = False, token: str | None = None) -> str:
        """Upload the file with a model card to the Hugging Face Hub; `nern.load("hf://user/name")` reads it.

        Args:
            repo: `user/name`; it is made where it does not exist.

        Raises:
            ArtifactError: the file is gone, or the Hub refuses it.
            PluginError: huggingface_hub is not installed.
        """
        import nern  # `run` may not import `own`: sharing is found by its public name

        return nern.push_to_hub(self, repo, private=private, token=token)

    def __repr__(self) -> str:
        return f"Result of {self.iterations:,} steps in {self.seconds:.0f} s\n{self.summary()}"

    def summary(self) -> str:
        """Accuracy, bytes and where the file is, in two lines."""
        headline, sizes = self.headline, self.bytes
        figure = "" if headline is None else f"{headline[0]}: original {headline[1]:.4g}, reconstructed {headline[2]:.4g}\n"
        return f"{figure}bytes: {sizes.change}; {self.artifact}"
