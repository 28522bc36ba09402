"""Samplers, optimisers and observers that break their contract, in one way each."""

from __future__ import annotations

import pytest

from tests.plugins.odd_components import (
    NO_CHECKPOINT,
    RAISED,
    RESUMED,
    Table,
    is_named,
    is_named_before_the_first_step,
    is_named_in_a_run_that_can_go_on,
    rows,
)


def sampler(body: str) -> str:
    return f"def start(self, norms, layers, seed):\n    class N(S):\n        {body}\n    return N()"


def optimizer(started: str) -> str:
    """An optimiser that starts an expression of the named parameters' values v."""
    return f"def start(self, parameters):\n    v, sgd = [value for _, value in parameters], torch.optim.SGD\n    return {started}"


BROKEN: Table = {
    "sampler": {
        "starts nothing": ("def start(self, norms, layers, seed): pass", "start() must give a function of the step, gave nothing"),
        "starts a list": ("def start(self, norms, layers, seed): return [1]", "start() must give a function of the step, gave a list"),
        "norms in place": ("def start(self, norms, layers, seed):\n    norms.zero_()\n    return self.draw", "start() changes the norms"),
        "observe without state": (
            "def start(self, norms, layers, seed):\n    class N:\n        __call__, observe = S.__call__, S.observe\n    return N()",
            RESUMED,
        ),
        "state raises": (sampler("def state_dict(self): boom()"), RAISED),
        "state holds a function": (sampler("def state_dict(self): return {'x': lambda: 1}"), NO_CHECKPOINT),
        "one argument": ("def start(self, norms): return self.draw", "raised TypeError: C_one_argument.start() takes 2"),
        "start raises": ("def start(self, norms, layers, seed): boom()", RAISED),
        "floats": ("def draw(self, step): return torch.tensor([0.0])", "a step must draw [m] int64 or None, drew [1] float32"),
        "a list": ("def draw(self, step): return [0, 1]", "a step must draw [m] int64 or None, drew a list"),
        "none": ("def draw(self, step): return torch.arange(0)", "a step must draw at least one kernel, drew none"),
        "beyond": ("def start(self, norms, layers, seed): return lambda step: torch.tensor([0, len(norms)])",
            "a step must draw rows from 0 to"),
        "random": ("def start(self, norms, layers, seed): return lambda step: torch.randperm(len(norms))",
            "the same step must draw the same rows again"),
    },
    "optimizer": {
        "factor is text": ("def factor(self, step, total): return 'x'", "factor() must give a finite number, gave a str"),
        "factor is nan": ("def factor(self, step, total): return float('nan')", "factor() must give a finite number, gave nan"),
        "factor is nothing": ("def factor(self, step, total): pass", "factor() must give a finite number, gave nothing"),
        "none": ("def start(self, parameters): return []", "start() must return a list of torch optimisers, returned "),
        "no argument": ("def start(self): pass", "raised TypeError: C_no_argument.start() takes 1"),
        "start raises": ("def start(self, parameters): boom()", RAISED),
        "single": (optimizer("sgd(v, lr=1)"), "start() must return a list of torch optimisers, returned a SGD"),
        "some": (optimizer("[sgd(v[1:], lr=1)]"), "every parameter to exactly one optimiser, once: 'predictor."),
        "twice": (optimizer("[sgd(v, lr=1), sgd(v[:1], lr=1)]"), "is stepped 2 times"),
        "others": (optimizer("[sgd([nn.Parameter(one.detach()) for one in v], lr=1)]"), "and steps another one"),
    },
    "observer": {
        "check raises": ("def check(self): boom()", RAISED),
    },
}  # fmt: skip

#: What is found only while a run goes on.
LATE: Table = {
    "sampler": {
        "late float": ("def draw(self, step): return torch.tensor([0.5]) if step == 1 else None",
            "[m] int64 or None, drew [1] float32 (step 1)"),
        "late row": ("def draw(self, step): return torch.tensor([999]) if step == 1 else None", "from 0 to 7, drew 999 to 999 (step 1)"),
        "late nothing": ("def draw(self, step): return torch.arange(0) if step == 1 else None", "at least one kernel, drew none (step 1)"),
        "observe raises": (sampler("def observe(self, step, rows, errors): boom()"), RAISED),
        "observe takes one": (sampler("def observe(self, step): pass"), "observe() takes 2 positional arguments but 4 were given"),
        "late raise": ("def draw(self, step): return boom() if step == 2 else None", RAISED),
    },
    "optimizer": {
        "late text": ("def factor(self, step, total): return 'x' if step == 1 else 1.0",
            "factor() must give a finite number, gave a str at step 1"),
        "step raises": ("def start(self, parameters):\n    class O(torch.optim.SGD):\n        def step(self, closure=None): boom()\n"
                        "    return [O([v for _, v in parameters], lr=0.1)]", RAISED),
        "state raises": ("def start(self, parameters):\n    class O(torch.optim.SGD):\n        def state_dict(self): boom()\n"
                         "    return [O([v for _, v in parameters], lr=0.1)]", RAISED),
        "late factor": ("def factor(self, step, total): return boom() if step == 1 else 1.0", RAISED),
    },
}  # fmt: skip


@pytest.mark.parametrize(("kind", "what", "said"), rows(BROKEN))
def test_a_broken_contract_is_named_before_the_first_step(kind, what, said, odd) -> None:
    is_named(odd.said(kind, tuple(BROKEN[kind])).get(what, ""), kind, what, said)


def test_a_single_sampler_ends_a_run(odd) -> None:
    is_named_before_the_first_step(odd, "sampler", "norms in place", BROKEN["sampler"]["norms in place"][1])


@pytest.mark.parametrize(("kind", "what", "said"), rows(LATE))
def test_a_contract_that_is_broken_later_is_named_and_the_run_goes_on_from_there(kind, what, said, odd) -> None:
    is_named_in_a_run_that_can_go_on(odd, kind, what, said)
