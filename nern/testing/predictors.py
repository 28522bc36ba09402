"""Checks a predictor."""

from __future__ import annotations

import torch
from torch import nn

from nern.interfaces import Predictor
from nern.support.seeding import generator
from nern.testing import fixtures
from nern.testing.assertions import check_tensor, close, expect, same
from nern.testing.modules import build_seeded, check_gradients, check_moves, check_state, device_of
from nern.testing.options import check_options


def check_predictor(predictor: Predictor, inputs: int = 12, outputs: int = 9) -> None:
    """Vectors [n, inputs] become finite kernels [n, outputs], each row on its own; gradients reach parameters and vectors."""
    check_options("predictor", predictor)
    embedded = torch.randn(64, inputs, generator=generator(0, "embedded"))
    kernels = 0.1 * torch.randn(200, outputs, generator=generator(0, "kernels")) + 0.02

    def build() -> nn.Module:
        module = predictor.build(inputs, outputs)
        predictor.initialise(module, embedded, kernels)
        return module

    module, again = build_seeded(build), build_seeded(build)
    expect(same(module.state_dict(), again.state_dict()), "build() and initialise() give other weights under the same seed")
    expect(any(True for _ in module.parameters()), "the predictor has no parameters: nothing can be trained")
    vectors = embedded.clone().requires_grad_()
    predicted = module.train()(vectors)
    check_tensor(predicted, [64, outputs], "forward(embedded)")
    check_gradients(module, predicted, "predictor")
    expect(vectors.grad is not None and bool(vectors.grad.ne(0).any()), "no gradient reaches the embedded coordinates")
    module.eval()
    with torch.no_grad():
        whole = module(embedded)
        close(module(embedded[3:5]), whole[3:5], "in eval mode a row's kernel depends on the other rows")
        with torch.autocast("cpu", torch.bfloat16):
            rounded = module(embedded)
        expect(list(rounded.shape) == [64, outputs], "forward() gives another shape under bfloat16 autocast")
        if getattr(module, "accepts_lookup", False):
            lookup = fixtures.lookup(inputs)
            close(module(lookup), module(lookup.dense()), "forward() gives other kernels for a Lookup than for its dense vectors")
    check_state(module, lambda: predictor.build(inputs, outputs), lambda built: built.eval()(embedded), "predictor")
    check_moves(module, lambda built: built(embedded.to(device_of(built))), "predictor")
