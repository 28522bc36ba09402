"""A base that is a coarse copy of the original kernels: the predictor only has to learn the rounding errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs
import torch
from torch import Tensor, nn

from nern import Base, ConfigError, KernelGrid, at_least, at_most, hookimpl, option
from nern.toolkit.bases import WeightPlaces, pack_integers, unpack_integers

# Candidate steps, as parts of the step that reaches the largest weight; the one with the least squared error is taken
PARTS = torch.linspace(0.2, 1.02, 42)


def least_steps(values: Tensor, most: int) -> Tensor:
    """The steps [n] bfloat16 by which integers from -`most` to `most` come nearest to groups of values [n, m]."""
    candidates = (values.abs().amax(1) / most).unsqueeze(0) * PARTS.unsqueeze(1)
    errors = torch.stack(
        [(values - counts(values, steps, most) * steps.unsqueeze(1)).square().sum(1) for steps in candidates.bfloat16().float()]
    )
    return candidates.gather(0, errors.argmin(0, keepdim=True)).squeeze(0).bfloat16()


def counts(values: Tensor, steps: Tensor, most: int) -> Tensor:
    """The integers for groups of values [n, m] float32 at steps [n]."""
    return (values / torch.where(steps > 0, steps, 1).unsqueeze(1)).round().clamp(-most, most)


class Quantised(nn.Module):
    """Integers of a few bits for all weights, with a step for each group of rows."""

    packed: Tensor
    steps: Tensor
    starts: Tensor
    integers: Tensor

    def __init__(self, grid: KernelGrid, bits: int, groups: list[int]) -> None:
        """`groups`: how many rows share each step, one number for each step."""
        super().__init__()
        self.bits, self.groups, self.places = bits, groups, WeightPlaces(grid)
        self.register_buffer("packed", torch.zeros((grid.weights * bits + 7) // 8, dtype=torch.uint8))
        self.register_buffer("steps", torch.zeros(len(groups), dtype=torch.bfloat16))
        sizes = torch.tensor(groups)
        self.register_buffer("starts", sizes.cumsum(0) - sizes, persistent=False)
        self.register_buffer("integers", torch.zeros(grid.weights, dtype=torch.int8), persistent=False)
        self.register_load_state_dict_post_hook(_unpack)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def keep(self, kernels: list[Tensor], each: list[int]) -> None:
        """Round the original kernels layer by layer and keep them; `each` is the number of steps of each layer."""
        most, integers, steps = 2 ** (self.bits - 1) - 1, [], []
        for part, count in zip(kernels, each, strict=True):
            values = part.float().cpu().reshape(count, -1)
            steps.append(least_steps(values, most))
            integers.append(counts(values, steps[-1].float(), most).to(torch.int8).reshape(-1))
        self.steps.copy_(torch.cat(steps))
        self.packed.copy_(pack_integers(torch.cat(integers), self.bits))
        self.unpack()

    def unpack(self) -> None:
        """Unpack the integers from the packed bits of the state dict."""
        self.integers.copy_(unpack_integers(self.packed.cpu(), len(self.integers), self.bits))

    def forward(self, rows: Tensor) -> Tensor:
        """[n] int64 → [n, k²] float32."""
        steps = self.steps[torch.bucketize(rows, self.starts, right=True) - 1].float()
        return self.places.gather(self.integers, rows).float() * steps.unsqueeze(1)


def _unpack(module: nn.Module, _: Any) -> None:
    assert isinstance(module, Quantised)
    module.unpack()


@attrs.frozen
class QuantisedBase(Base):
    """A copy of the original kernels in integers of a few bits; the predictor then represents the rounding errors.

    Integers of b bits go from −(2^(b−1) − 1) to 2^(b−1) − 1. The step of each filter or layer is bfloat16 and the one with the
    least squared error among several candidates. Filters are meant in the order of the coordinates, after the kernels were
    reordered.
    """

    bits: int = option(4, help="bits of a weight in the file", check=[at_least(2), at_most(8)])
    steps: Literal["filter", "layer"] = option("filter", help="weights that share one step, which takes two bytes")

    def build(self, grid: KernelGrid) -> nn.Module:
        if grid.small_kernels != "centre" and any(layer.kernel != grid.size for layer in grid.layers):
            raise ConfigError(f"base quantised: small_kernels must be centre, got {grid.small_kernels}")
        each = self._groups(grid)
        groups = [layer.count // count for layer, count in zip(grid.layers, each, strict=True) for _ in range(count)]
        return Quantised(grid, self.bits, groups)

    def initialise(self, module: nn.Module, kernels: list[Tensor]) -> None:
        """Fill the base with the rounded original kernels."""
        assert isinstance(module, Quantised)
        module.keep(kernels, self._groups(module.places.grid))

    def _groups(self, grid: KernelGrid) -> list[int]:
        """The number of steps of each layer."""
        return [layer.filters if self.steps == "filter" else 1 for layer in grid.layers]


@hookimpl
def nern_bases() -> Mapping[str, type[Base]]:
    return {"quantised": QuantisedBase}
