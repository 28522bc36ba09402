"""Tasks, their data and metrics that break their contract, in one way each."""

from __future__ import annotations

import textwrap

import pytest

from nern.errors import ConfigError
from tests.plugins.odd_components import (
    RAISED,
    RIGHT,
    TAKES,
    Table,
    is_named,
    is_named_before_the_first_step,
    is_named_in_a_run_that_can_go_on,
    rows,
)


def data(body: str) -> str:
    own = textwrap.indent(textwrap.dedent(body), " " * 8)
    return f"def open(self, preprocessing, heldout, seed):\n    class E(D):\n{own}\n    return E()"


def drawn(batch: str) -> str:
    """A task whose training batch is an expression of a right one."""
    return data(f"""
        def inputs(self, batch, seed, device):
            good = super().inputs(batch, seed, device)
            def draw(step):
                x, y = good(step)
                return {batch}
            return draw""")


def measured(batch: str) -> str:
    """A task whose held-out and test batches are an expression of right ones."""
    return data(f"""
        def batches(self, split, batch, device):
            for x, y in super().batches(split, batch, device):
                yield {batch}""")


def kind(body: str) -> str:
    """A task with outputs of its own kind."""
    return (
        RIGHT["task"][1]
        + f"""
def outputs(self):
    @attrs.frozen
    class K(Numbers):
        {body}
    return K()"""
    )


BROKEN: Table = {
    "task": {
        "classes raise": (data("@property\ndef classes(self): boom()"), RAISED),
        "splits raise": (data("@property\ndef splits(self): boom()"), RAISED),
        "opens nothing": ("def open(self, preprocessing, heldout, seed): pass", "open() must give a nern.Data, gave nothing"),
        "opens a list": ("def open(self, preprocessing, heldout, seed): return [1]", "open() must give a nern.Data, gave a list"),
        "one argument": ("def open(self, preprocessing): return D()", "raised TypeError: C_one_argument.open() takes 2"),
        "no splits": (data("splits = None"), "'splits' of its data must be a set of 'train', 'heldout' and 'test', is None"),
        "other splits": (data("splits = {'train', 'val'}"), "is ['train', 'val']"),
        "empty splits": (data("splits = frozenset()"), "is []"),
        "text for classes": (data("classes = '10'"), "'classes' of its data must be a whole number or None, is '10'"),
        "inputs raise": (data("def inputs(self, batch, seed, device): boom()"), RAISED),
        "inputs give nothing": (data("def inputs(self, batch, seed, device): pass"),
            "inputs() must give a function of the step, gave nothing"),
        "draw raises": (data("def inputs(self, batch, seed, device): return boom"), RAISED),
        "draw gives nothing": (drawn("None"), "must give (inputs, targets) where gives_targets is set, gave nothing"),
        "no pair": (drawn("x"), "must give (inputs, targets) where gives_targets is set, gave [4, 1, 8, 8] float32"),
        "three": (drawn("(x, y, y)"), "must give (inputs, targets) where gives_targets is set, gave a tuple of 3"),
        "no targets": (drawn("(x, None)"), "must give targets where gives_targets is set, gave None"),
        "channels": (drawn("(x.repeat(1, 3, 1, 1), y)"), TAKES + "[2, 3, 8, 8] float32"),
        "flat": (drawn("(x.flatten(1), y)"), TAKES + "[2, 64] float32"),
        "double": (drawn("(x.double(), y)"), TAKES + "[2, 1, 8, 8] float64"),
        "bytes": (drawn("(x.byte(), y)"), TAKES + "[2, 1, 8, 8] uint8"),
        "numpy": (drawn("(x.numpy(), y)"), "must give tensors, gave a ndarray"),
        "nan": (drawn("(x * torch.nan, y)"), "must give finite numbers"),
        "too few": (drawn("(x[:1], y[:1])"), "gives 4 inputs and 1 targets"),
        "too few inputs": (drawn("(x[:1], y)"), "must give 4 examples, gave 1"),
        "none": (drawn("(x[:0], y[:0])"), "gives 4 inputs and 0 targets"),
        "fewer targets": (drawn("(x, y[:1])"), "gives 4 inputs and 1 targets"),
        "random": (drawn("(torch.rand_like(x), y)"), "must give the same for the same step, and gives others: a resumed run would differ"),
        "device": (drawn("(x.to('meta'), y)"), "must give tensors on cpu, gave one on meta"),
        "batches raise": (data("def batches(self, split, batch, device): boom()"), RAISED),
        "batches give nothing": (data("def batches(self, split, batch, device): pass"),
            "must give pairs (inputs, targets or None), gave nothing"),
        "batches are empty": (data("def batches(self, split, batch, device): return []"),
            "must give pairs (inputs, targets or None), gave none"),
        "batches are no pairs": (measured("x"), "must give pairs (inputs, targets or None), gave [6, 1, 8, 8] float32"),
        "batches are flat": (measured("(x.flatten(1), y)"), TAKES + "[6, 64] float32"),
        "batches are double": (measured("(x.double(), y)"), TAKES + "[6, 1, 8, 8] float64"),
        "batches are nan": (measured("(x * torch.nan, y)"), "batches('heldout', …) must give finite numbers"),
        "labels are floats": (measured("(x, y.float())"), "labels must be [6] int64, are [6] float32"),
        "labels are a column": (measured("(x, y[:, None])"), "labels must be [6] int64, are [6, 1] int64"),
        "labels are a list": (measured("(x, y.tolist())"), "labels must be [6] int64, are a list of 6"),
        "labels below 0": (measured("(x, y - 10)"), "labels must be from 0 to 9, there is -"),
        "labels above the classes": (measured("(x, y + 10)"), "classes and the network 10; set architecture.classes or another task"),
        "fewer labels": (measured("(x, y[:2])"), "gives 6 inputs and 2 targets"),
        "check raises": (data("def check(self): boom()"), RAISED),
        "no kind": (RIGHT["task"][1] + "\ndef outputs(self): pass", "outputs() must give a kind of outputs, such as nern.toolkit.outputs."),
        "metrics of the kind raise": (kind("def metrics(self): boom()"), RAISED),
        "no metrics": (kind("def metrics(self): return {}"), "metrics() of its outputs() must give names of metrics"),
        "choice of the kind": (kind("choice = ('nothing',)"),
            "'choice' of its outputs() must name some of its metrics (mse, mse_original)"),
        "numbers for classes": (kind("pass"), "targets must have as many numbers as the network's outputs [6, 10], are [6]"),
        "distance raises": (
            kind("def distance(self, original, reconstructed): boom()\n        def check_targets(self, outputs, targets): pass\n"
                 "        def metrics(self): return {'mse_original': super().metrics()['mse_original']}"),
            RAISED,
        ),
        "open raises": ("def open(self, preprocessing, heldout, seed): boom()", RAISED),
        "check of the task raises": (RIGHT["task"][1] + "\ndef check(self, preprocessing): boom()", RAISED),
        "outputs raise": (RIGHT["task"][1] + "\ndef outputs(self): boom()", RAISED),
    },
    "metric": {
        "tensor": ("def total(self, batches): return torch.tensor(1.0)", "total() must give a float or None, gave [] float32"),
        "text": ("def total(self, batches): return 'good'", "total() must give a float or None, gave a str"),
        "list": ("def total(self, batches): return [1.0]", "total() must give a float or None, gave a list"),
        "truth": ("def total(self, batches): return True", "total() must give a float or None, gave a bool"),
        "batch gives a float": ("def batch(self, outputs, reference): return 1.0",
            "a tensor with one entry for each image where total() is"),
        "batch gives a scalar": ("def batch(self, outputs, reference): return outputs.mean()", "total() is the default, gave [] float32"),
        "batch gives text": ("def batch(self, outputs, reference): return 'x'", "total() is the default, gave a str"),
        "compares": ("compares = 'labels'", "'compares' must be 'targets' or 'original', is 'labels'"),
        "better": ("better = 'up'", "'better' must be 'higher' or 'lower', is 'up'"),
        "outputs in place": ("def batch(self, outputs, reference): return outputs.zero_().sum(1)",
            "batch() changes the outputs that it is"),
        "one argument": ("def batch(self, outputs): return outputs", "raised TypeError: C_one_argument.batch() takes 2"),
        "batch raises": ("def batch(self, outputs, reference): boom()", RAISED),
        "total raises": ("def total(self, batches): boom()", RAISED),
    },
}  # fmt: skip

#: What is wrong with the outputs of a run's own task, or with what metrics say about themselves, which ends the check.
ALONE = (
    "no kind", "metrics of the kind raise", "no metrics", "choice of the kind", "numbers for classes", "distance raises", "outputs raise",
    "check raises", "compares", "better",
)  # fmt: skip

#: What is found only while a run goes on.
LATE: Table = {
    "task": {
        "late raise": (drawn("(x, y) if step < 1 else boom()"), RAISED),
        "late shape": (drawn("(x, y) if step < 1 else (x[..., None], y)"), "inputs(4, …)(1) " + TAKES + "[2, 1, 8, 8, 1] float32"),
        "keep raises": (RIGHT["task"][1] + "\ndef keep(self, folder): boom()", RAISED),
    },
}  # fmt: skip


@pytest.mark.parametrize(("kind", "what", "said"), rows(BROKEN))
def test_a_broken_contract_is_named_before_the_first_step(kind, what, said, odd) -> None:
    if what in ALONE:
        is_named_before_the_first_step(odd, kind, what, said)
    else:
        is_named(odd.said(kind, tuple(other for other in BROKEN[kind] if other not in ALONE)).get(what, ""), kind, what, said)


@pytest.mark.parametrize(("kind", "what", "said"), rows(LATE))
def test_a_contract_that_is_broken_later_is_named_and_the_run_goes_on_from_there(kind, what, said, odd) -> None:
    is_named_in_a_run_that_can_go_on(odd, kind, what, said)


def test_the_tasks_of_several_phases_are_named_together(odd) -> None:
    with pytest.raises(ConfigError) as caught:
        odd.engine("task", "flat", "nan", "draw raises").fit()
    first, second, third = str(caught.value).splitlines()
    assert "nern_odd:flat (task)" in first
    assert "nern_odd:nan (task)" in second
    assert "nern_odd:draw-raises (task)" in third
