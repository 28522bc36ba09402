"""Tables of a sweep: means with confidence intervals, as CSV and Markdown."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from nern.config.preset_families import spelled

#: The figures of a run that a sweep averages: name → path in result.json.
FIGURES = {
    "original_top1": ("original_top1",),
    "reconstructed_top1": ("reconstructed_top1",),
    "reconstructed_top5": ("checkpoints", "chosen", "test", "top5"),
    "predictor_bytes": ("bytes", "predictor"),
    "total_bytes": ("bytes", "total"),
    "seconds": ("seconds",),
}
LEVEL = 0.95


@attrs.frozen
class Mean:
    """A mean over runs with the half width of its 95 % confidence interval."""

    mean: float
    interval: float | None  # half width of the interval; None for a single run
    runs: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """The mean ± t(0.975, n - 1) · s / √n, by Student's t distribution."""
        from scipy.stats import t

        n, mean = len(values), math.fsum(values) / len(values)
        if n == 1:
            return cls(mean, None, 1)
        deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
        return cls(mean, float(t.ppf((1 + LEVEL) / 2, n - 1)) * deviation / math.sqrt(n), n)

    def __str__(self) -> str:
        return f"{self.mean:.2f}" + (f" ± {self.interval:.2f}" if self.interval is not None else "")


@attrs.frozen
class Setting:
    """One setting: its runs differ in their seed alone."""

    values: dict[str, Any]
    figures: dict[str, Mean]
    failed: list[str] = attrs.field(factory=list)  # reasons why runs have no figures


@attrs.frozen
class Table:
    """The figures of a sweep: one line for every setting."""

    axes: list[str]  # the axes in which settings differ, without the seed
    settings: list[Setting]
    runs: list[dict[str, Any]]  # values and figures of every run, or why it failed
    objective: str | None = None  # name of the figure that the sweep optimises

    @property
    def failures(self) -> list[str]:
        """A line for each run that failed."""
        return [f"{run['run']}: {run['failed']}" for run in self.runs if run.get("failed") is not None]

    def to_dict(self) -> dict[str, Any]:
        return attrs.asdict(self)

    def csv(self) -> str:
        """The table as CSV: one line for every setting, with means and half widths of the confidence intervals."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        names = [*FIGURES, *(["objective"] if self.objective else [])]
        writer.writerow([*self.axes, "runs", *(column for name in names for column in (name, f"{name}_interval")), "failed", "reason"])
        for setting in self.settings:
            means = [setting.figures.get(name) for name in names]
            cells = [value for mean in means for value in ((mean.mean, mean.interval) if mean else (None, None))]
            writer.writerow(
                [*setting.values.values(), _count(setting), *cells, len(setting.failed), "; ".join(dict.fromkeys(setting.failed))]
            )
        return text.getvalue()

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """The heads and one row for every setting, as text; mean ± half the width of the 95 % confidence interval.

        Where any run failed, a last column gives the reasons.
        """
        failures = any(setting.failed for setting in self.settings)
        heads = [*self.axes, "runs", *([self.objective] if self.objective else [])]
        heads += ["original top-1 %", "reconstructed top-1 %", "bytes on disk", "seconds", *(["failed"] if failures else [])]
        rows = []
        for setting in self.settings:
            figures = setting.figures
            cells = [*map(spelled, setting.values.values()), str(_count(setting))]
            cells += [f"{figures['objective'].mean:.4g}" if "objective" in figures else "—"] if self.objective else []
            cells += [str(figures.get(name, "—")) for name in ("original_top1", "reconstructed_top1")]
            cells += [f"{figures[name].mean:,.0f}" if name in figures else "—" for name in ("total_bytes", "seconds")]
            if failures:
                cells.append(f"{len(setting.failed)}: {'; '.join(dict.fromkeys(setting.failed))}" if setting.failed else "")
            rows.append(cells)
        return heads, rows

    def markdown(self) -> str:
        return markdown_table(*self.cells())


def csv_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same keys as CSV, with the keys as its head."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join([f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *escaped)]) + "\n"


def tabulate(axes: Sequence[str], runs: Sequence[Mapping[str, Any]], objective: str | None = None) -> Table:
    """Group runs that differ in their seed alone.

    Args:
        objective: name of the figure that each run's `objective` holds.
    """
    settings: dict[str, list[Mapping[str, Any]]] = {}
    others = [axis for axis in axes if axis != "seed"]
    for run in runs:
        settings.setdefault(repr([run["values"][axis] for axis in others]), []).append(run)
    names = [*FIGURES, *(["objective"] if objective else [])]
    grouped = []
    for members in settings.values():
        values = {axis: members[0]["values"][axis] for axis in others}
        measured = [run for run in members if run.get("failed") is None]
        figures = {name: [run[name] for run in measured if run[name] is not None] for name in names}
        failed = [run["failed"] for run in members if run.get("failed") is not None]
        grouped.append(Setting(values, {name: Mean.of(numbers) for name, numbers in figures.items() if numbers}, failed))
    return Table(others, grouped, [dict(run) for run in runs], objective)


def _count(setting: Setting) -> int:
    """The number of runs that the means of a setting are over."""
    return max((mean.runs for mean in setting.figures.values()), default=0)
