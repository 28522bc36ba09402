"""Losses that break their contract, in one way each: one line with the component, what was expected, and the place."""

from __future__ import annotations

import pytest

from tests.plugins.odd_components import (
    NO_CHECKPOINT,
    RAISED,
    Table,
    is_named,
    is_named_before_the_first_step,
    rows,
)

SCALAR = "__call__() must return a scalar tensor of floating-point numbers, returned "
GRADIENT = "__call__() must be differentiable in what was reconstructed, and no gradient reaches it"
CHANGES = "__call__() changes what it is given"


def loss(needs: str, body: str) -> str:
    return f"needs = '{needs}'\ndef __call__(self, original, reconstructed):\n    {body}"


def started(body: str) -> str:
    """A loss that is an object with a state."""
    return f"""
        def start(self, context):
            class F:
                def __call__(self, o, r): return mse(o.values, r.values).mean()
                def load_state_dict(self, state): pass
                {body}
            return F()"""


BROKEN: Table = {
    "loss": {
        "all squares": (loss("outputs", "return mse(original, reconstructed)"), SCALAR + "[2, 10] float32"),
        "one for each map": (loss("features", "return torch.stack([mse(*p).mean() for p in zip(original, reconstructed)])"), SCALAR + "["),
        "all squares of weights": (loss("weights", "return mse(original.values, reconstructed.values)"), SCALAR + "[8, 9] float32"),
        "one element": (loss("weights", "return mse(original.values, reconstructed.values).mean()[None]"), SCALAR + "[1] float32"),
        "float": (loss("outputs", "return mse(original, reconstructed).mean().item()"), SCALAR + "a float"),
        "float of weights": (loss("weights", "return mse(original.values, reconstructed.values).mean().item()"), SCALAR + "a float"),
        "nothing": (loss("outputs", "pass"), SCALAR + "nothing"),
        "tuple": (loss("outputs", "return mse(original, reconstructed).mean(), 1"), SCALAR + "a tuple"),
        "whole number": (loss("outputs", "return mse(original, reconstructed).mean().long()"), SCALAR + "[] int64"),
        "detached": (loss("outputs", "return mse(original, reconstructed).mean().detach()"), GRADIENT),
        "constant": (loss("weights", "return torch.tensor(1.0)"), GRADIENT),
        "of the original alone": (loss("outputs", "return original.square().mean().requires_grad_()"), GRADIENT),
        "detached weights": (loss("weights", "return mse(original.values, reconstructed.values.detach()).mean()"), GRADIENT),
        "exact bits": (loss("bits", "return reconstructed.exact * 1.0"), GRADIENT),
        "nan": (loss("outputs", "return mse(original, reconstructed).mean() * torch.nan"), "must return a finite number, returned nan"),
        "infinite": (loss("features", "return (reconstructed[0].mean().abs() + 1) / 0"), "must return a finite number, returned inf"),
        "logarithm of weights": (loss("weights", "return (reconstructed.values.mean() - 1e9).log()"), "finite number, returned nan"),
        "gradient of a root": (loss("outputs", "return mse(reconstructed, reconstructed).mean().sqrt()"), "must have a finite gradient"),
        "original in place": (loss("outputs", "original.mul_(0.5); return mse(original, reconstructed).mean()"), CHANGES),
        "reconstructed in place": (loss("outputs", "reconstructed.data.mul_(0.5); return mse(original, reconstructed).mean()"), CHANGES),
        "recorded in place": (loss("outputs", "reconstructed.exp_(); return mse(original, reconstructed).mean()"), CHANGES),
        "map in place": (loss("features", "original[0].zero_(); return reconstructed[0].mean()"), CHANGES),
        "map taken out": (loss("features", "original.pop(); return reconstructed[0].mean()"), CHANGES),
        "weights in place": (loss("weights", "original.values.zero_(); return mse(original.values, reconstructed.values).mean()"), CHANGES),
        "device": (loss("outputs", "return torch.zeros((), device='meta', requires_grad=True) * 1"), "must return a tensor on cpu, "),
        "one argument": ("def __call__(self, original): return original", "raised TypeError: C_one_argument.__call__() takes 2"),
        "starts nothing": ("def start(self, context): pass", "start() must give a function of (original, reconstructed), gave nothing"),
        "starts a number": ("def start(self, context): return 3", "start() must give a function of (original, reconstructed), gave an int"),
        "shapes": (loss("outputs", "return (reconstructed - torch.zeros(7)).mean()"), "raised RuntimeError: The size of tensor a (10)"),
        "raises on outputs": (loss("outputs", "boom()"), RAISED),
        "raises on bits": (loss("bits", "boom()"), RAISED),
        "targets of weights": (
            "needs_targets = True\ndef __call__(self, o, r, targets=None): return r.values.mean() + targets.sum()",
            "raised AttributeError: 'NoneType' object has no attribute 'sum'",
        ),
        "state raises": (started("def state_dict(self): boom()"), RAISED),
        "state holds a function": (started("def state_dict(self): return {'x': lambda: 1}"), NO_CHECKPOINT),
        "state holds an object": (started("def state_dict(self): return {'x': J()}"), NO_CHECKPOINT),
        "start raises": ("def start(self, context): boom()", RAISED),
        "raises on weights": (loss("weights", "boom()"), RAISED),
    },
}  # fmt: skip


@pytest.mark.parametrize(("kind", "what", "said"), rows(BROKEN))
def test_a_broken_contract_is_named_before_the_first_step(kind, what, said, odd) -> None:
    together = tuple(other for other in BROKEN[kind] if ("bits" in other) == ("bits" in what))
    is_named(odd.said(kind, together).get(what, ""), kind, what, said)


@pytest.mark.parametrize("what", ["nan", "float of weights"])
def test_a_single_loss_ends_a_run(what, odd) -> None:
    is_named_before_the_first_step(odd, "loss", what, BROKEN["loss"][what][1])
