"""Checks a loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor

from nern.interfaces import Kernels, Loss, LossContext
from nern.representation.entropy import StoredBits
from nern.support.seeding import generator
from nern.testing import fixtures
from nern.testing.assertions import expect, expect_none
from nern.testing.options import check_options
from nern.training.component_contracts import problem_with_comparison


def check_loss(loss: Loss) -> None:
    """Check that the loss is a finite scalar, smallest where both sides agree, with a gradient for the reconstructed side only."""
    check_options("loss", loss)
    needs = ("weights", "logits", "outputs", "features", "bits")
    expect(loss.needs in needs, '\'needs\' must be "weights", "outputs", "features" or "bits"')
    context = fixtures.context()
    compare: Callable[..., Any] = loss.start(context)
    if loss.needs == "bits":
        _check_of_bits(compare)
        return
    original, other = _sides(loss.needs, context)
    further = (torch.arange(4) % 5,) if loss.needs_targets else ()
    if further:
        expect(loss.needs != "weights", 'a loss of weights runs no network, so that there are no targets; set needs to "outputs"')
    expect_none(problem_with_comparison(compare, (original, other), torch.device("cpu"), *further))
    value = compare(original, other, *further)
    expect(value.dtype == torch.float32, f"the loss must be float32, is {value.dtype}")
    value.backward()
    expect(
        any(tensor.grad is not None and bool(tensor.grad.ne(0).any()) for tensor in _tensors(other)),
        "no gradient reaches the reconstructed side",
    )
    expect(torch.equal(compare(original, other, *further), value), "the loss of the same arguments differs from call to call")
    agreeing = _with_grad(original)
    least = compare(original, agreeing, *further)
    expect(
        loss.needs_targets or float(least) <= float(value.detach()) + 1e-6,
        f"the loss is {float(least):.4g} where both sides agree, more than where they differ ({float(value.detach()):.4g})",
    )
    least.backward()
    finite = all(bool(tensor.grad.isfinite().all()) for tensor in _tensors(agreeing) if tensor.grad is not None)
    expect(finite, "the gradient is not finite where both sides agree")


def _check_of_bits(compare: Any) -> None:
    """Check that the loss is a finite scalar that rises with the bits and is differentiable in them."""
    values = []
    for total in (1000.0, 2000.0):
        bits = torch.tensor(total, requires_grad=True)
        sides = (StoredBits(bits, bits.detach(), 500),) * 2
        expect_none(problem_with_comparison(compare, sides, torch.device("cpu")))
        value = compare(*sides)
        value.backward()
        expect(bits.grad is not None and float(bits.grad) > 0, "the loss does not rise with the bits")
        values.append(float(value))
    expect(values[0] < values[1], f"the loss is {values[0]:.4g} for 1000 bits and {values[1]:.4g} for 2000")


def _sides(needs: str, context: LossContext) -> tuple[Any, Any]:
    """Arguments of a loss: the original side, and a reconstructed side that differs from it and requires gradients."""
    if needs == "weights":
        original: Any = context.kernels
        values = original.values + 0.1 * torch.randn(original.values.shape, generator=generator(0, "other"))
        return original, attrs.evolve(original, values=values.requires_grad_())
    inputs = fixtures.inputs()
    outputs = context.networks.original(inputs, features=True)
    if needs in ("logits", "outputs"):
        other = outputs.logits + torch.randn(outputs.logits.shape, generator=generator(0, "other"))
        return outputs.logits, other.requires_grad_()
    others = [maps + 0.3 * torch.randn(maps.shape, generator=generator(0, "other", i)) for i, maps in enumerate(outputs.features)]
    return outputs.features, [maps.requires_grad_() for maps in others]


def _with_grad(side: Any) -> Any:
    if isinstance(side, Kernels):
        return attrs.evolve(side, values=side.values.clone().requires_grad_())
    if isinstance(side, Tensor):
        return side.clone().requires_grad_()
    return [maps.clone().requires_grad_() for maps in side]


def _tensors(side: Any) -> list[Tensor]:
    if isinstance(side, Kernels):
        return [side.values]
    return [side] if isinstance(side, Tensor) else list(side)
