"""The contract, and what a palette has in it."""

from __future__ import annotations

import pytest
import torch
from nern_palette import Palette
from nern_palette.base import nearest, palette_of

from nern import ConfigError, Engine, KernelGrid, LayerMapping, create_registry, load
from nern.testing import check_base

GRID = KernelGrid((LayerMapping("a", (4, 2, 3, 3), 0), LayerMapping("b", (3, 2, 1, 1), 1)))


def test_contract():
    check_base(Palette())
    check_base(Palette(kernels=3, rounds=2), GRID)


def test_kernels_of_a_few_kinds_are_given_exactly():
    kinds = torch.tensor([-1.0, 0.25, 2.0]).view(3, 1, 1) * torch.ones(3, 3, 3)
    kernels = [kinds[torch.tensor([0, 1, 2, 0, 1, 2, 2, 2])], torch.ones(6, 1, 1)]
    base = Palette(kernels=4)
    module = base.build(GRID)
    base.initialise(module, kernels)
    added = module(torch.arange(14))
    assert torch.equal(added[:8], kernels[0].flatten(1))
    assert torch.equal(added[8:].view(6, 3, 3)[:, 1, 1], torch.ones(6))
    assert float(added[8:].abs().sum()) == 6  # nothing around the middle of a smaller kernel


def test_rounds_of_k_means_bring_the_palette_nearer():
    kernels = torch.randn(300, 9, generator=torch.Generator().manual_seed(0))

    def error(rounds: int) -> float:
        palette = palette_of(kernels, 8, rounds)
        distances = (kernels[:, None] - palette).square().sum(2)
        assert torch.equal(nearest(kernels, palette), distances.argmin(1))
        return float(distances.amin(1).mean())

    errors = [error(rounds) for rounds in (0, 1, 5, 20)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.8 * errors[0]


def test_bytes_are_those_of_the_readme():
    module = Palette(kernels=2).build(GRID)
    sizes = {name: value.numel() * value.element_size() for name, value in module.state_dict().items()}
    assert sizes == {"kernels": 4 * 9 * 2, "index": 8 + 6}


def test_other_ways_of_reading_small_kernels_are_refused():
    with pytest.raises(ConfigError, match="small_kernels must be centre, got max"):
        Palette().build(KernelGrid(GRID.layers, "max"))


def test_a_run_starts_nearer_and_its_file_comes_back(tmp_path):
    values = {
        "base": {"name": "palette", "kernels": 32}, "architecture.width": 4, "pretrain.epochs": 1, "predictor.hidden": 8,
        "phases": [{"iterations": 2, "batch": 8}], "output": str(tmp_path / "run"),
    }  # fmt: skip
    registry = create_registry()
    assert registry.find("base", "nern-palette:palette").cls is Palette
    engine = Engine.from_yaml("digits", values, registry)
    result = engine.fit()
    assert result.bytes.base > 0
    state, read = engine.reconstruct().state_dict(), load(result.artifact).state_dict()
    assert all(torch.equal(value, read[name]) for name, value in state.items())
