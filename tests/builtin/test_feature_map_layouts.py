"""Feature maps are compared entry by entry, however they lie in memory."""

from __future__ import annotations

import pytest
import torch

from nern.builtin.losses.fmd import FeatureMapDistillation


@pytest.mark.parametrize("form", ["squared", "norm", "batch", "similarity"])
def test_maps_of_two_memory_layouts_are_compared_entry_by_entry(form: str) -> None:
    source = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 5, 4, 3, 3, generator=source)
    loss = FeatureMapDistillation(form=form)
    layouts = [x.contiguous(memory_format=f) for x in (a, b) for f in (torch.contiguous_format, torch.channels_last)]
    values = [float(loss([x], [y])) for x in layouts[:2] for y in layouts[2:]]
    assert values == pytest.approx([values[0]] * 4, rel=1e-5)
    assert float(loss([layouts[0]], [layouts[1]])) == pytest.approx(0, abs=1e-5)
