"""An embedding whose parameters train along with the predictor and are stored with it."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nern import Embedding, KernelGrid, above, at_least, option

PRIMES = (1, 2_654_435_761, 805_459_861)  # Müller et al. 2022, eq. 4


class Grids(nn.Module):
    """For every level, vectors at the corners of a grid, found by hashing and interpolated (Müller et al. 2022)."""

    largest: Tensor
    corners: Tensor

    def __init__(self, largest: Tensor, resolutions: list[int], features: int, table: int, spread: float) -> None:
        super().__init__()
        self.dim = len(resolutions) * features
        self.resolutions = resolutions
        sizes = [min(table, (resolution + 1) ** 3) for resolution in resolutions]
        self.levels = nn.ParameterList(nn.Parameter(torch.empty(size, features).uniform_(-spread, spread)) for size in sizes)
        self.register_buffer("largest", largest.clamp_min(1).double(), persistent=False)
        corners = torch.cartesian_prod(*[torch.arange(2)] * 3)
        self.register_buffer("corners", corners, persistent=False)  # [8, 3]

    def forward(self, coordinates: Tensor) -> Tensor:
        """[n, 3] int64 → [n, levels · features]."""
        unit = coordinates / self.largest  # [n, 3] in [0, 1]
        return torch.cat([self._level(unit, *level) for level in zip(self.levels, self.resolutions, strict=True)], dim=1)

    def _level(self, unit: Tensor, table: Tensor, resolution: int) -> Tensor:
        place = unit * resolution
        low = place.floor().clamp_max(resolution - 1)
        part = (place - low).to(table.dtype)[:, None]  # [n, 1, 3]
        at = low.long()[:, None] + self.corners  # [n, 8, 3]
        weights = torch.where(self.corners.bool(), part, 1 - part).prod(2)  # [n, 8]
        return (F.embedding(self.index(at, len(table), resolution), table) * weights[:, :, None]).sum(1)

    @staticmethod
    def index(at: Tensor, size: int, resolution: int) -> Tensor:
        """Row of the table for grid points [..., 3]: their own where there are enough rows, a hash otherwise."""
        if size == (resolution + 1) ** 3:
            return (at[..., 0] * (resolution + 1) + at[..., 1]) * (resolution + 1) + at[..., 2]
        hashed = at[..., 0] * PRIMES[0]
        for axis in (1, 2):
            hashed = hashed ^ (at[..., axis] * PRIMES[axis])
        return hashed % size


@attrs.frozen
class HashGrid(Embedding):
    """Multi-resolution hash grid over layer, filter and channel (Müller et al. 2022); its tables are trained."""

    levels: int = option(8, help="number of grids", check=at_least(1))
    features: int = option(2, help="numbers per grid point", check=at_least(1))
    table: int = option(2048, help="most rows of a level's table", check=at_least(1))
    coarsest: int = option(4, help="cells along an axis on the first level", check=at_least(1))
    growth: float = option(1.5, help="factor from level to level", check=above(1))
    spread: float = option(0.1, help="trained numbers start in [-spread, spread]", check=above(0))

    def build(self, grid: KernelGrid) -> nn.Module:
        resolutions = [int(self.coarsest * self.growth**level) for level in range(self.levels)]
        return Grids(grid.coordinates().amax(0), resolutions, self.features, self.table, self.spread)
