"""Checks a smoother."""

from __future__ import annotations

import torch

from nern.interfaces import Smoother
from nern.kernels.orders import ORDER_KINDS, BitReader, pack_orders
from nern.representation.component_contracts import problem_with_smoother
from nern.support.seeding import generator
from nern.testing.assertions import expect, expect_none
from nern.testing.options import check_options


def check_smoother(smoother: Smoother) -> None:
    """Check that a layer's order is a permutation of its kernels, the same each time, and the same after packing into bits."""
    check_options("smoother", smoother)
    for shape in ((4, 6, 9), (3, 5, 1), (1, 1, 9)):
        for scale in (1.0, 0.0):
            kernels = scale * torch.randn(*shape, generator=generator(0, "kernels"))
            expect_none(problem_with_smoother(smoother, kernels))
            order = smoother.order(kernels)
            what = f"order() of kernels {list(shape)}"
            expect((order.filters, order.channels) == shape[:2], f"{what} is for {order.filters} × {order.channels} kernels")
            indices = order.indices()
            expect(
                ORDER_KINDS.get(order.kind) is type(order), f"{what} has a kind that no file can hold; use one of {', '.join(ORDER_KINDS)}"
            )
            reader = BitReader(pack_orders([order]))
            restored = type(order).from_bits(*shape[:2], reader)
            expect(torch.equal(restored.indices(), indices), f"{what} is another one after packing and unpacking")
