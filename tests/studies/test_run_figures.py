"""Figures of single runs, beside values that are written out here."""

from __future__ import annotations

import math

import pytest
import torch

from nern.kernels.coordinates import LayerMapping
from nern.studies.curves import Curves, PhaseSpan
from nern.studies.importance import LayerErrors, relative_errors
from nern.studies.kernel_choice import best_and_worst

pytest.importorskip("matplotlib", reason='figures need matplotlib: pip install "nern[plot]"')

from nern.studies import run_figures


def curves(phases, *points):
    return Curves({"total": list(points)}, {"top1": list(points)}, [PhaseSpan(*phase) for phase in phases])


@pytest.mark.parametrize("draw", [run_figures.losses, run_figures.heldout])
def test_the_axis_holds_the_longest_of_several_runs(draw):
    short = curves([("reconstruction", 0, 100)], (50, 3.0), (100, 2.0))
    long = curves([("reconstruction", 0, 100), ("distillation", 100, 1000)], (50, 3.0), (1000, 1.0))
    for runs in ({"short": short, "long": long}, {"long": long, "short": short}):
        (axes,) = draw(runs).axes
        assert axes.get_xlim() == (0, 1000)
        assert [text.get_text() for text in axes.texts] == ["distillation"]  # the other is too short for its name
        assert len(axes.patches) == 1


def test_losses_of_two_phases_are_not_joined():
    both = curves([("reconstruction", 0, 100), ("distillation", 100, 200)], (50, 3.0), (100, 2.0), (150, 9.0), (200, 8.0))
    (axes,) = run_figures.losses({"one": both}).axes
    steps, values = axes.lines[0].get_data()
    assert list(steps) == [50, 100, 100, 150, 200]
    assert [math.isnan(value) for value in values] == [False, False, True, False, False]
    first = curves([("reconstruction", 0, 100)], (50, 3.0), (100, 2.0))
    (axes,) = run_figures.losses({"one": first}).axes
    assert list(axes.lines[0].get_xdata()) == [50, 100]


def test_phases_of_other_runs_are_not_shaded_as_if_they_were_shared():
    one = curves([("reconstruction", 0, 500), ("distillation", 500, 1000)], (50, 3.0))
    other = curves([("reconstruction", 0, 900), ("distillation", 900, 1000)], (50, 3.0))
    (axes,) = run_figures.losses({"one": one, "other": other}).axes
    assert not axes.patches and not axes.texts


def test_a_filter_of_nearly_nothing_does_not_press_the_others_together():
    def errors(*filters):
        return LayerErrors(0.3, torch.tensor(filters), torch.tensor([filters]))

    (axes,) = run_figures.errors({"a.weight": errors(0.2, 0.4), "b.weight": errors(0.3, 0.0)}).axes
    assert axes.get_xscale() == "linear"
    (axes,) = run_figures.errors({"a.weight": errors(0.2, 0.4), "b.weight": errors(0.0, 40.0)}).axes
    assert axes.get_xscale() == "log"


def test_the_worst_kernels_are_not_those_that_are_nearly_zero():
    layer = LayerMapping("a.weight", (2, 2, 3, 3), 0)
    original = torch.ones(2, 2, 3, 3)
    original[0, 0] = 1e-4
    original[1, 1] = 0
    guess = original.clone()
    guess[0, 0] += 1e-2  # relative error 100
    guess[0, 1] *= 1.5
    guess[1, 0] *= 1.25
    weights = {"a.weight": original}, {"a.weight": guess}
    best, worst = best_and_worst(*weights, relative_errors(*weights, [layer]), [layer], count=5)
    assert [(kernel.filter, kernel.channel, round(kernel.error, 6)) for kernel in worst] == [(0, 1, 0.5), (1, 0, 0.25)]
    assert [(kernel.filter, kernel.channel) for kernel in best] == [(1, 0), (0, 1)]
