"""A hundred and more ways for a component to break its contract: each is one line with the component, what was expected, and the place.

All stand in one package, each under a name of its own; a break that is found before the first step leaves no folder behind.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import nern
from nern.cli.main import run
from nern.errors import ConfigError, NernError, TrainingError
from nern.registry.discovery import create_registry
from nern.registry.registry import Registry

HEAD = '''
import subprocess
import attrs, torch, nern
from torch import nn
from nern.builtin.architectures.cifar_resnet import CifarResNet
from nern.interfaces import Data, Task
from nern.toolkit.outputs import Numbers

def boom(*anything, **more):
    raise KeyError("boom")

def mse(original, reconstructed):
    return (reconstructed - original).square()

class M(nn.Linear):
    dim = 4

    def forward(self, vectors):
        return super().forward(vectors.float())

class B(nn.Module):
    def forward(self, rows):
        return torch.zeros(len(rows), 9)

class J(nern.LaunchedJobs):
    def submit(self, job): return 1
    def poll(self, handle): return nern.JobEnd(1, "broken down")
    def cancel(self, handle): pass
    def close(self): pass

class S:
    """Every kernel, with something to learn."""
    def __call__(self, step): return None
    def observe(self, step, rows, errors): pass
    def state_dict(self): return {}
    def load_state_dict(self, state): pass

class D(Data):
    """Some noise with labels."""
    classes, examples, gives_targets = 10, 20, True
    splits = frozenset({"train", "heldout", "test"})

    def inputs(self, batch, seed, device):
        def draw(step):
            source = nern.generator(seed, step)
            return torch.randn(batch, 1, 8, 8, generator=source), torch.randint(10, (batch,), generator=source)
        return draw

    def batches(self, split, batch, device):
        source = nern.generator(0, split)
        yield torch.randn(6, 1, 8, 8, generator=source), torch.randint(10, (6,), generator=source)
'''

#: extension point → its interface, and what a class that works has
RIGHT = {
    "architecture": ("CifarResNet", ""),
    "embedding": ("nern.Embedding", "def build(self, grid): return M(3, 4)"),
    "predictor": ("nern.Predictor", "def build(self, inputs, outputs): return M(inputs, outputs)"),
    "base": ("nern.Base", "def build(self, grid): return B()"),
    "sampler": ("nern.Sampler", "def start(self, norms, layers, seed): return self.draw\ndef draw(self, step): return None"),
    "loss": ("nern.Loss", "needs = 'weights'\ndef __call__(self, o, r): return mse(o.values, r.values).mean()"),
    "optimizer": (
        "nern.Optimizer",
        "lr: float = nern.option(0.1, help='x')\ndef start(self, parameters): return [torch.optim.SGD([v for _, v in parameters], lr=0.1)]",
    ),
    "task": ("Task", "def open(self, preprocessing, heldout, seed): return D()"),
    "metric": ("nern.Metric", "compares = 'original'\ndef batch(self, outputs, reference): return outputs.sum(1)"),
    "smoother": ("nern.Smoother", "def order(self, kernels): return nern.Unordered(*kernels.shape[:2])"),
    "observer": ("nern.Observer", "@nern.hookimpl\ndef nern_step(self, iteration): pass"),
    "launcher": ("nern.Launcher", "def start(self, folder): return J()"),
}
HOOKS = {"loss": "losses", "base": "bases"}


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


def module(kind: str, forward: str) -> str:
    """A component whose module gives an expression of the right vectors or kernels k."""
    arguments = {"embedding": ("grid", "3, 4"), "predictor": ("inputs, outputs", "inputs, outputs")}[kind]
    return f"""
        def build(self, {arguments[0]}):
            class N(M):
                def forward(self, c):
                    k = super().forward(c)
                    return {forward}
            return N({arguments[1]})"""


def base(forward: str) -> str:
    return f"def build(self, grid):\n    class N(B):\n        def forward(self, rows): return {forward}\n    return N()"


def jobs(body: str) -> str:
    return f"def start(self, folder):\n    class N(J):\n        {body}\n    return N()"


def sampler(body: str) -> str:
    return f"def start(self, norms, layers, seed):\n    class N(S):\n        {body}\n    return N()"


RAISED = "raised KeyError: 'boom'"
SCALAR = "__call__() must return a scalar tensor of floating-point numbers, returned "
GRADIENT = "__call__() must be differentiable in what was reconstructed, and no gradient reaches it"
CHANGES = "__call__() changes what it is given"
TAKES = "must give inputs that the network takes, gave "
LAYERS = "layers() must give a list of nern.LayerMapping, gave "
FILE = "the file would hold another network"
RESUMED = "a resumed run would differ"
DIM = "build() must give a module with an attribute 'dim' (int), gave "

#: extension point → what it does wrong → (its class body, what is said)
BROKEN: dict[str, dict[str, tuple[str, str]]] = {
    "loss": {
        "all squares": (loss("outputs", "return mse(original, reconstructed)"), SCALAR + "[2, 10] float32"),
        "one for each map": (loss("features", "return torch.stack([mse(*p).mean() for p in zip(original, reconstructed)])"), SCALAR + "["),
        "all squares of weights": (loss("weights", "return mse(original.values, reconstructed.values)"), SCALAR + "[130, 9] float32"),
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
        "state holds a function": (started("def state_dict(self): return {'x': lambda: 1}"), "no checkpoint can hold this"),
        "state holds an object": (started("def state_dict(self): return {'x': J()}"), "no checkpoint can hold this"),
    },
    "task": {
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
    },
    "architecture": {
        "preprocessing gives nothing": ("def preprocessing(self): pass", "preprocessing() must give a nern.Preprocessing, gave nothing"),
        "builds nothing": ("def build(self): pass", "build() must give a torch.nn.Module, gave nothing"),
        "no layers": ("def layers(self, network): pass", LAYERS + "nothing"),
        "empty layers": ("def layers(self, network): return []", "layers() must map at least one weight"),
        "names for layers": ("def layers(self, network): return ['conv1.weight']", LAYERS + "a str in it"),
        "no such parameter": ("def layers(self, network): return [nern.LayerMapping('no', (2, 1, 3, 3), 0)]",
            "layers() maps 'no', which is no"),
        "shape": ("def layers(self, network): return [nern.LayerMapping('conv1.weight', (2, 2, 3, 3), 0)]", "with shape [2, 2, 3, 3], and"),
        "twice": ("def layers(self, network): return [*super().layers(network)] * 2", "layers() maps 'conv1.weight' twice"),
        "no features": ("def features(self, network): pass", "features() must give a list of names, gave nothing"),
        "no such map": ("def features(self, network): return ['no']", "feature map 'no' is no module of the network and no sum in one"),
        "modules for maps": ("def features(self, network): return list(network.children())", "a list of names, gave a Conv2d in it"),
        "no example": ("def example_inputs(self, batch=2): pass", "example_inputs() must give tensors, gave nothing"),
        "example of others": ("def example_inputs(self, batch=2): return torch.zeros(batch, 5, 8, 8)", TAKES + "[2, 5, 8, 8] float32"),
        "load raises": ("def load(self, network): boom()", RAISED),
        "load gives nothing": ("def load(self, network): super().load(network)", "load() must give the dtype in the file of every entry"),
        "one argument": ("def layers(self): return []", "raised TypeError: C_one_argument.layers() takes 1"),
    },
    "embedding": {
        "builds nothing": ("def build(self, grid): pass", DIM + "nothing"),
        "no dim": ("def build(self, grid): return nn.Linear(3, 4)", DIM + "one with none"),
        "dim is text": ("def build(self, grid):\n    m = M(3, 4); m.dim = '4'; return m", DIM + "one with '4'"),
        "dim": ("def build(self, grid): return M(3, 5)", "forward(coordinates) must give [2, 4] float32, gave [2, 5] float32"),
        "function": ("def build(self, grid): return lambda c: c.float()", DIM + "a function"),
        "whole numbers": (module("embedding", "k.long()"), "forward(coordinates) must give [2, 4] float32, gave [2, 4] int64"),
        "tuple": (module("embedding", "(k, 1)"), "forward(coordinates) must give [2, 4] float32, gave a tuple"),
        "nan": (module("embedding", "k * torch.nan"), "forward(coordinates) must give finite numbers"),
        "random": (module("embedding", "k + torch.rand(4)"), FILE),
        "device": (module("embedding", "k.to('meta')"), "forward(coordinates) must give [2, 4] float32"),
        "no argument": ("def build(self): return M(3, 4)", "raised TypeError: C_no_argument.build() takes 1"),
        "initialise takes one": (RIGHT["embedding"][1] + "\ndef initialise(self, module): pass",
            "raised TypeError: C_initialise_takes_one.init"),
    },
    "predictor": {
        "builds nothing": ("def build(self, inputs, outputs): pass", "build() must give a module, gave nothing"),
        "width": (module("predictor", "k[:, :3]"), "forward(embedded) must give [2, 9] float32, gave [2, 3] float32"),
        "one kernel": (module("predictor", "k[0]"), "forward(embedded) must give [2, 9] float32, gave [9] float32"),
        "whole numbers": (module("predictor", "k.int()"), "forward(embedded) must give [2, 9] float32, gave [2, 9] int32"),
        "tuple": (module("predictor", "(k, k)"), "forward(embedded) must give [2, 9] float32, gave a tuple"),
        "numpy": (module("predictor", "k.detach().numpy()"), "forward(embedded) must give [2, 9] float32, gave a ndarray"),
        "infinite": (module("predictor", "k / 0"), "forward(embedded) must give finite numbers"),
        "random": (module("predictor", "k + torch.rand(1)"), FILE),
        "wants": ("def build(self, inputs, outputs):\n    m = M(inputs, outputs); m.wants = 'channels'; return m", "is 'channels'"),
        "one argument": ("def build(self, inputs): return M(inputs, 9)", "raised TypeError: C_one_argument.build() takes 2"),
        "initialise takes one": (RIGHT["predictor"][1] + "\ndef initialise(self, module): pass",
            "raised TypeError: C_initialise_takes_one.init"),
        "initialises nan": (
            RIGHT["predictor"][1] + "\ndef initialise(self, module, embedded, kernels): module.weight.data.fill_(torch.nan)",
            "forward(embedded) must give finite numbers"),
    },
    "base": {
        "build raises": ("def build(self, grid): boom()", RAISED),
        "list": ("def build(self, grid): return [1]", "build() must give a module or None, gave a list"),
        "forward raises": (base("boom()"), RAISED),
        "width": (base("torch.zeros(len(rows), 4)"), "forward(rows) must give [2, 9] float32, gave [2, 4] float32"),
        "whole numbers": (base("torch.zeros(len(rows), 9).int()"), "forward(rows) must give [2, 9] float32, gave [2, 9] int32"),
        "nan": (base("torch.zeros(len(rows), 9) / 0"), "forward(rows) must give finite numbers"),
        "order of rows": (base("torch.arange(len(rows)).float()[:, None].repeat(1, 9)"), "must give a row the same among any others"),
        "initialise raises": (RIGHT["base"][1] + "\ndef initialise(self, module, kernels): boom()", RAISED),
        "state that is lost": (
            RIGHT["base"][1] + "\ndef initialise(self, module, kernels): module.forward = lambda rows: torch.ones(len(rows), 9)",
            "what forward(rows) needs must come back with load_state_dict()",
        ),
    },
    "sampler": {
        "starts nothing": ("def start(self, norms, layers, seed): pass", "start() must give a function of the step, gave nothing"),
        "starts a list": ("def start(self, norms, layers, seed): return [1]", "start() must give a function of the step, gave a list"),
        "norms in place": ("def start(self, norms, layers, seed):\n    norms.zero_()\n    return self.draw", "start() changes the norms"),
        "observe without state": (
            "def start(self, norms, layers, seed):\n    class N:\n        __call__, observe = S.__call__, S.observe\n    return N()",
            RESUMED,
        ),
        "state raises": (sampler("def state_dict(self): boom()"), RAISED),
        "state holds a function": (sampler("def state_dict(self): return {'x': lambda: 1}"), "no checkpoint can hold this"),
        "one argument": ("def start(self, norms): return self.draw", "raised TypeError: C_one_argument.start() takes 2"),
    },
    "smoother": {
        "nothing": ("def order(self, kernels): pass", "order() must give a LayerOrder, gave nothing ('conv1.weight')"),
        "another layer's": ("def order(self, kernels): return nern.Unordered(1, 1)", "order() must give [2] int64, gave [1] int64"),
    },
    "optimizer": {
        "factor is text": ("def factor(self, step, total): return 'x'", "factor() must give a finite number, gave a str"),
        "factor is nan": ("def factor(self, step, total): return float('nan')", "factor() must give a finite number, gave nan"),
        "factor is nothing": ("def factor(self, step, total): pass", "factor() must give a finite number, gave nothing"),
        "none": ("def start(self, parameters): return []", "start() must return a list of torch optimisers, returned "),
        "no argument": ("def start(self): pass", "raised TypeError: C_no_argument.start() takes 1"),
    },
    "observer": {"check raises": ("def check(self): boom()", RAISED)},
}  # fmt: skip

#: The same for what is found while a run goes on; it can be resumed then.
LATE: dict[str, dict[str, tuple[str, str]]] = {
    "sampler": {
        "late float": ("def draw(self, step): return torch.tensor([0.5]) if step == 1 else None",
            "[m] int64 or None, drew [1] float32 (step 1)"),
        "late row": ("def draw(self, step): return torch.tensor([999]) if step == 1 else None", "from 0 to 129, drew 999 to 999 (step 1)"),
        "late nothing": ("def draw(self, step): return torch.arange(0) if step == 1 else None", "at least one kernel, drew none (step 1)"),
        "observe raises": (sampler("def observe(self, step, rows, errors): boom()"), RAISED),
        "observe takes one": (sampler("def observe(self, step): pass"), "observe() takes 2 positional arguments but 4 were given"),
    },
    "optimizer": {
        "late text": ("def factor(self, step, total): return 'x' if step == 1 else 1.0",
            "factor() must give a finite number, gave a str at step 1"),
        "step raises": ("def start(self, parameters):\n    class O(torch.optim.SGD):\n        def step(self, closure=None): boom()\n"
                        "    return [O([v for _, v in parameters], lr=0.1)]", RAISED),
        "state raises": ("def start(self, parameters):\n    class O(torch.optim.SGD):\n        def state_dict(self): boom()\n"
                         "    return [O([v for _, v in parameters], lr=0.1)]", RAISED),
    },
    "smoother": {
        "late number": ("def order(self, kernels): return nern.Unordered(*kernels.shape[:2]) if len(kernels) == 2 else 3",
            "gave an int ('layer"),
    },
    "task": {
        "late raise": (drawn("(x, y) if step < 1 else boom()"), RAISED),
        "late shape": (drawn("(x, y) if step < 1 else (x[..., None], y)"), "inputs(4, …)(1) " + TAKES + "[2, 1, 8, 8, 1] float32"),
        "keep raises": (RIGHT["task"][1] + "\ndef keep(self, folder): boom()", RAISED),
    },
    "architecture": {"keep raises": ("def keep(self, folder): boom()", RAISED)},
}  # fmt: skip


def class_name(what: str) -> str:
    return "C_" + what.replace(" ", "_").replace("'", "_")


def offered(kind: str, what: str) -> str:
    return what.replace(" ", "-").replace("'", "")


def package() -> str:
    """The package with every break."""
    lines = [HEAD]
    for kind, (interface, right) in RIGHT.items():
        breaks = {**BROKEN.get(kind, {}), **LATE.get(kind, {}), **LAUNCHERS.get(kind, {})}
        for what, (body, _) in breaks.items():
            own = textwrap.indent(f"{right}\n{textwrap.dedent(body)}", "    ")
            lines.append(f'@attrs.frozen\nclass {class_name(what)}({interface}):\n    "Odd."\n{own}\n')
        names = ", ".join(f'"{offered(kind, what)}": {class_name(what)}' for what in breaks)
        lines.append(f"@nern.hookimpl\ndef nern_{HOOKS.get(kind, kind + 's')}(offers={{{names}}}): return offers\n")
    return "\n".join(lines)


LAUNCHERS = {
    "launcher": {
        "start raises": ("def start(self, folder): boom()", RAISED),
        "starts nothing": ("def start(self, folder): pass", "start() must give nern.LaunchedJobs, gave nothing"),
        "no argument": ("def start(self): return J()", "raised TypeError: C_no_argument.start() takes 1"),
        "submit raises": (jobs("def submit(self, job): boom()"), RAISED),
        "poll raises": (jobs("def poll(self, handle): boom()"), RAISED),
        "poll gives a code": (jobs("def poll(self, handle): return 0"), "poll() must give a nern.JobEnd or None, gave an int"),
        "close raises": (jobs("def close(self): boom()"), RAISED),
        "submit and close raise": (jobs("def submit(self, job): boom()\n        def close(self): raise ValueError('late')"), RAISED),
    }
}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """All breaks, registered once."""
    file = tmp_path_factory.mktemp("site") / "nern_odd.py"
    file.write_text(package(), encoding="utf-8")
    found = create_registry([str(file)])
    assert not found.failures
    yield found
    sys.modules.pop("nern_odd", None)


def values_of(path: Path, kind: str, what: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(path.read_text())
    section = {"name": offered(kind, what)}
    values["phases"] = [{"iterations": 3, "batch": 4}]
    if kind == "loss":
        values["losses"] = {"odd": section}
        values["storage"] = "entropy" if "bits" in what else "float32"
    elif kind in ("metric", "observer"):
        values[f"{kind}s"] = {"odd": section}
    elif kind == "architecture":
        values["architecture"] |= section
    else:
        values[kind] = section
    if kind == "task":
        values["losses"] = {"reconstruction": {}, "kd": {}}
    return values


def rows(table: dict[str, dict[str, tuple[str, str]]]) -> list[Any]:
    return [pytest.param(kind, what, said, id=f"{kind}: {what}") for kind, breaks in table.items() for what, (_, said) in breaks.items()]


def said_of(error: pytest.ExceptionInfo[NernError], kind: str, what: str, said: str) -> str:
    message = str(error.value)
    assert message.startswith(f"component nern_odd:{offered(kind, what)} ({kind}): ")
    assert said in message
    assert "nern_odd.py, line " in message
    assert "\n" not in message
    assert "learning rate" not in message
    return message


@pytest.mark.parametrize(("kind", "what", "said"), rows(BROKEN))
def test_a_broken_contract_is_named_before_the_first_step(kind, what, said, registry, experiment) -> None:
    engine = nern.Engine(*load(experiment(), kind, what, registry))
    with pytest.raises(ConfigError) as caught:
        engine.fit()
    said_of(caught, kind, what, said)
    assert not engine.run.path.exists()


@pytest.mark.parametrize(("kind", "what", "said"), rows(LATE))
def test_a_contract_that_is_broken_later_is_named_and_the_run_goes_on_from_there(kind, what, said, registry, experiment) -> None:
    engine = nern.Engine(*load(experiment(), kind, what, registry))
    with pytest.raises(TrainingError) as caught:
        engine.fit()
    assert "mend it, then continue with --resume (" in said_of(caught, kind, what, said)
    assert engine.run.config.is_file()


@pytest.mark.parametrize(("kind", "what", "said"), rows(LAUNCHERS))
def test_a_broken_launcher_is_named(kind, what, said, registry, experiment, tmp_path) -> None:
    from nern.studies.scheduling import PlannedRun, work_through

    values = yaml.safe_load(experiment().read_text())
    planned = PlannedRun("one", nern.Engine.from_yaml(experiment()).experiment, registry, values)
    ended = []
    launcher = registry.find("launcher", offered(kind, what)).cls()
    with pytest.raises(NernError) as caught:
        work_through(iter([planned]), launcher, tmp_path / "sweep", ended.append)
    said_of(caught, kind, what, said)
    assert [outcome.failed for outcome in ended] == (["broken down"] if what == "close raises" else [])


def load(path: Path, kind: str, what: str, registry: Registry) -> Any:
    from nern.config.loading import load_experiment

    path.write_text(yaml.safe_dump(values_of(path, kind, what)))
    return load_experiment(path, registry=registry)


def test_there_are_more_than_a_hundred_breaks() -> None:
    assert sum(len(breaks) for table in (BROKEN, LATE, LAUNCHERS) for breaks in table.values()) > 150


@pytest.mark.parametrize("body", ["def preprocessing(self): raise KeyError('boom')", "def preprocessing(self): raise ValueError('boom')"])
def test_an_architecture_that_cannot_be_made_is_named_with_its_place(body, install, experiment, capsys) -> None:
    install("nern-odd", f"{HEAD}\n@attrs.frozen\nclass C(CifarResNet):\n    'Odd.'\n    {body}\n\n"
            "@nern.hookimpl\ndef nern_architectures(): return {'odd': C}\n")  # fmt: skip
    path = experiment()
    assert run(["train", str(path), "architecture.name=odd"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "architecture: " in line
    assert "boom" in line
    assert "(nern-odd:odd, " in line
    assert "nern_odd.py, line " in line
