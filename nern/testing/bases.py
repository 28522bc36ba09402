"""Checks a base."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nern.interfaces import Base
from nern.kernels.coordinates import KernelGrid
from nern.support.seeding import generator, seeded
from nern.testing import fixtures
from nern.testing.assertions import check_tensor, close, expect, same
from nern.testing.modules import build_seeded, check_gradients, check_moves, check_state, device_of
from nern.testing.options import check_options


def check_base(base: Base, grid: KernelGrid | None = None) -> None:
    """Check that rows [n] int64 become finite kernels [n, k²], independently of each other, and that the state dict holds everything.

    The module is checked after `initialise`, as a run uses it, with original kernels that all differ.
    """
    check_options("base", base)
    grid = grid or fixtures.grid()
    with seeded(0, "nern.testing"):
        if base.build(grid) is None:
            return

    def fresh() -> nn.Module:
        built = base.build(grid)
        assert built is not None, "build() gives a module in one call and None in another"
        return built

    def build() -> nn.Module:
        module = fresh()
        originals = [torch.randn(layer.count, *layer.kernel, generator=generator(0, layer.layer)) for layer in grid.layers]
        before = [kernels.clone() for kernels in originals]
        base.initialise(module, originals)
        unchanged = all(torch.equal(a, b) for a, b in zip(before, originals, strict=True))
        expect(unchanged, "initialise() changes the original kernels that it is given")
        return module

    def run(module: nn.Module) -> Tensor:
        added: Tensor = module(torch.arange(grid.rows, device=device_of(module)))
        return added

    module, again = build_seeded(build), build_seeded(build)
    expect(same(module.state_dict(), again.state_dict()), "build() and initialise() give another base under the same seed")
    shapes = {name: value.shape for name, value in fresh().state_dict().items()}
    expect(
        shapes == {name: value.shape for name, value in module.state_dict().items()},
        "initialise() changes names or shapes of the state dict: a file is read into what build() gives",
    )
    added = run(module)
    check_tensor(added, [grid.rows, grid.outputs], "forward(rows)")
    rows = torch.tensor([grid.rows - 1, 2, 2, 0])
    close(module(rows), added[rows], "a row's kernel depends on the other rows")
    for start, layer in zip(grid.starts, grid.layers, strict=False):
        own = added[start : start + layer.count].detach()
        inside = grid.pad_up(grid.sample_down(own, layer.kernel)) if grid.small_kernels == "centre" else own
        expect(torch.equal(inside, own), "a smaller kernel's row is not zero around its middle")
    check_gradients(module, added, "base")
    check_state(module, fresh, run, "base")
    check_moves(module, run, "base")
