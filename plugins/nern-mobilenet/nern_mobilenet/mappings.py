"""Blocks of pointwise weights, which have no kernels of their own."""

from __future__ import annotations

import attrs
from torch import Tensor
from torch.nn import functional as F

from nern import LayerMapping


@attrs.frozen
class Pointwise(LayerMapping):
    """A pointwise weight [f, c, 1, 1] as f · ⌈c / b²⌉ kernels of b × b: each holds b² consecutive channels of one filter.

    The last kernel of a filter is filled up with zeros where b² does not divide c; `join` leaves them out.
    """

    block: int = attrs.field(kw_only=True)

    @property
    def channels(self) -> int:
        return -(-self.shape[1] // self.block**2)

    @property
    def kernel(self) -> tuple[int, int]:
        return self.block, self.block

    def split(self, weight: Tensor) -> Tensor:
        """Weight [f, c, 1, 1] → kernels [f · ⌈c / b²⌉, b, b]."""
        filters, channels = self.shape[:2]
        padded = F.pad(weight.reshape(filters, channels), (0, self.channels * self.block**2 - channels))
        return padded.reshape(self.count, self.block, self.block)

    def join(self, kernels: Tensor) -> Tensor:
        """Kernels [f · ⌈c / b²⌉, b, b] → weight [f, c, 1, 1]."""
        filters, channels = self.shape[:2]
        return kernels.reshape(filters, self.channels * self.block**2)[:, :channels].reshape(self.shape)
