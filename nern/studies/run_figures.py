"""Draws figures of single runs: losses by step, errors by layer, and the kernels with the lowest and highest errors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nern.errors import DataError
from nern.studies.curves import Curves, Points, thinned
from nern.studies.drawing import colours, empty_figure, in_style, legend_beside, new_figure
from nern.studies.wording import with_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from nern.studies.importance import LayerErrors
    from nern.studies.kernel_choice import ChosenKernel


@in_style
def losses(runs: Mapping[str, Curves]) -> Figure:
    """Losses over the steps on a logarithmic scale, with the phases shaded; label → curves.

    One run shows every term of its loss, several runs show their totals. Phases have losses of their own: lines end where a phase ends.

    Raises:
        DataError: a run has written no losses yet.
    """
    lines: dict[str, Points] = {}
    ends: dict[str, list[int]] = {}
    for label, curves in runs.items():
        if not curves.losses:
            raise DataError(f"{label} has written no losses yet; it does so every log_every steps")
        terms = curves.losses if len(runs) == 1 else {"total": curves.losses.get("total", next(iter(curves.losses.values())))}
        named = {name if len(runs) == 1 else label: points for name, points in terms.items()}
        lines, ends = {**lines, **named}, {**ends, **{name: [phase.last for phase in curves.phases] for name in named}}
    figure, (axes,) = new_figure()
    for colour, (name, points) in zip(colours(len(lines)), lines.items(), strict=True):
        positive = [(step, value) for step, value in thinned(points) if value > 0]
        drawn = _columns(_apart(positive, ends[name]))
        axes.plot(*drawn, color=colour, label=name, linewidth=1.4, marker="." if len(positive) < 30 else None)
    shade_phases(axes, list(runs.values()))
    axes.set_yscale("log")
    axes.set(xlabel="step", ylabel="loss")
    legend_beside(axes)
    return figure


@in_style
def heldout(runs: Mapping[str, Curves], measure: str = "top1") -> Figure:
    """A figure on the held-out images over the steps of several runs; label → curves.

    Raises:
        DataError: a run was never measured on such images.
    """
    figure, (axes,) = new_figure()
    for above, (colour, (label, curves)) in enumerate(zip(colours(len(runs)), runs.items(), strict=True)):
        points = curves.heldout.get(measure)
        if not points:
            missing = "labelled held-out images" if measure == "top1" else "held-out images"
            raise DataError(f"{label} was never measured on {missing}; train with heldout above 0, and curve_points above 0 for a curve")
        width = 1.5 + 2 * (len(runs) - 1 - above)  # runs may share their first phase: where lines coincide, the lower one is wider
        axes.plot(*_columns(thinned(points)), color=colour, label=label, marker=".", linewidth=width)
    shade_phases(axes, list(runs.values()))
    axes.set(xlabel="step", ylabel=f"held-out {with_unit(measure)}")
    legend_beside(axes)
    return figure


def shade_phases(axes: Axes, runs: Sequence[Curves]) -> None:
    """Shade every other phase and write its name at its top, where the runs have the same ones; the axis holds the longest run."""
    longest = max(runs, key=lambda curves: max((phase.last for phase in curves.phases), default=0)).phases
    total = max((phase.last for phase in longest), default=0)
    begins = [[(phase.name, phase.first) for phase in curves.phases] for curves in runs]
    shared = all(own == [(phase.name, phase.first) for phase in longest][: len(own)] for own in begins)
    for index, phase in enumerate(longest if shared else ()):
        if index % 2:
            axes.axvspan(phase.first, phase.last, color="#8b949e", alpha=0.15, linewidth=0)
        if phase.last - phase.first > 0.12 * total:
            middle = (phase.first + phase.last) / 2
            axes.text(middle, 1.02, phase.name, transform=axes.get_xaxis_transform(), ha="center", va="bottom", fontsize=9)
    axes.set_xlim(0, total or None)


@in_style
def errors(by_layer: Mapping[str, LayerErrors]) -> Figure:
    """Relative errors ‖ŵ − w‖ / ‖w‖ by layer, and of every filter as a dot; by parameter name.

    The axis is logarithmic where a filter that is nearly zero, and therefore has a huge relative error, would press all others together.

    Raises:
        DataError: every layer of the original is zero.
    """
    shown = {name: error for name, error in by_layer.items() if not math.isnan(error.layer)}
    if not shown:
        raise DataError("there are no errors to show: the original weights of every layer are zero")
    figure, (axes,) = new_figure(height=1.0 + 0.21 * len(shown))
    rows = range(len(shown))
    filters_of = [error.filters[~error.filters.isnan()].tolist() for error in shown.values()]
    wide = max(map(max, filters_of)) > 5 * max(error.layer for error in shown.values())
    for row, filters, error in zip(rows, filters_of, shown.values(), strict=True):
        dots = axes.plot(filters, [row] * len(filters), "|", color=colours(1)[0], alpha=0.45, markersize=6, rasterized=len(filters) > 64)
        bar = axes.plot([error.layer], [row], "D", color=colours(2)[1], markersize=5)
    dots[0].set_label("a filter")
    bar[0].set_label("the whole layer")
    axes.set_yticks(list(rows), [name.removesuffix(".weight") for name in shown], fontsize=9)
    axes.set(xlabel="relative error ‖ŵ − w‖ / ‖w‖", ylim=(len(shown) - 0.4, -0.6))
    if wide:
        axes.set_xscale("log", nonpositive="clip")
        axes.xaxis.set_major_formatter("{x:g}")
    else:
        axes.set_xlim(left=0)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0.2, frameon=False)
    return figure


@in_style
def chosen_kernels(best: Sequence[ChosenKernel], worst: Sequence[ChosenKernel]) -> Figure:
    """The kernels with the lowest and with the highest relative error, original above reconstructed, each row with its own scale."""
    figure = empty_figure(7.4, 3.6)
    halves: Any = figure.subfigures(2, 1, hspace=0.04)
    for half, kernels, title in zip(halves, (best, worst), ("lowest error", "highest error"), strict=True):
        limit = max(float(picture.abs().max()) for kernel in kernels for picture in (kernel.original, kernel.reconstructed)) or 1.0
        grid = half.subplots(2, len(kernels), squeeze=False)
        for row, side in enumerate(("original", "reconstructed")):
            for axes, kernel in zip(grid[row], kernels, strict=True):
                axes.set_axis_off()
                picture = getattr(kernel, side)
                image = axes.imshow(picture.reshape(picture.shape[0], -1).numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit)
            grid[row][0].text(-0.25, 0.5, side, transform=grid[row][0].transAxes, ha="right", va="center", fontsize=9)
        for axes, kernel in zip(grid[0], kernels, strict=True):
            axes.set_title(f"{kernel.error:.2g}", fontsize=9)
        half.suptitle(title, fontsize=10)
        half.colorbar(image, ax=grid, label="weight")
    return figure


def _apart(points: Points, ends: Sequence[int]) -> Points:
    """The points, with a gap after every end of a phase."""
    gaps = [(end, math.nan) for end in ends if any(step <= end for step, _ in points) and any(step > end for step, _ in points)]
    return sorted([*points, *gaps], key=lambda point: (point[0], math.isnan(point[1])))


def _columns(points: Points) -> tuple[list[int], list[float]]:
    return [step for step, _ in points], [value for _, value in points]
