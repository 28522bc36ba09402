"""Architectures, embeddings, predictors, bases and smoothers that break their contract, in one way each."""

from __future__ import annotations

import pytest

from tests.plugins.odd_components import (
    RAISED,
    RIGHT,
    TAKES,
    Table,
    is_named_before_the_first_step,
    is_named_in_a_run_that_can_go_on,
    rows,
)

LAYERS = "layers() must give a list of nern.LayerMapping, gave "
FILE = "the file would hold another network"
DIM = "build() must give a module with an attribute 'dim' (int), gave "


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


def spare(kernels: str) -> str:
    """A predictor with a parameter beside its layer, which gives an expression of the kernels k."""
    return f"""
        def build(self, inputs, outputs):
            class N(M):
                def __init__(self, *sizes):
                    super().__init__(*sizes)
                    self.spare = nn.Parameter(torch.zeros(3))
                def forward(self, embedded):
                    k = super().forward(embedded)
                    return {kernels}
            return N(inputs, outputs)"""


def mapping(body: str, layers: str = "mapped") -> str:
    """An architecture whose layers have a method of their own, or are given by an expression of the `mapped` ones."""
    return f"""
        def layers(self, network, calls=[]):
            calls.append(1)
            class L(nern.LayerMapping):
                {body}
            mapped = [L(l.parameter, l.shape, l.layer) for l in super().layers(network)]
            return {layers}"""


def order(indices: str) -> str:
    """A smoother whose order is made from an expression of the right indices i."""
    return f"""
        def order(self, kernels):
            i = torch.arange(kernels.shape[0] * kernels.shape[1])
            return nern.KernelOrder(*kernels.shape[:2], {indices})"""


BROKEN: Table = {
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
        "build raises": ("def build(self): boom()", RAISED),
        "layers raise": ("def layers(self, network): boom()", RAISED),
        "features raise": ("def features(self, network): boom()", RAISED),
        "example raises": ("def example_inputs(self, batch=2): boom()", RAISED),
        "join": (mapping("def join(self, kernels): return super().join(kernels.flip(0))"), "must give back what split() was given"),
        "coordinates": (mapping("def coordinates(self): return super().coordinates() * 0"), "two kernels have the same"),
        "changing layers": (mapping("pass", "mapped[::-1] if len(calls) % 2 else mapped"), "when it is called again"),
    },
    "embedding": {
        "builds nothing": ("def build(self, grid): pass", DIM + "nothing"),
        "dim raises": ("def build(self, grid):\n    class X(nn.Linear):\n        dim = property(boom)\n    return X(3, 4)", RAISED),
        "tables": ("def build(self, grid):\n    m = M(3, 4); m.tables = lambda: [1]; return m",
            "tables() must give nern.representation.lookup.AxisTables, gave a list"),
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
        "build raises": ("def build(self, grid): boom()", RAISED),
        "initialise raises": (RIGHT["embedding"][1] + "\ndef initialise(self, module, kernels): boom()", RAISED),
        "forward raises": (module("embedding", "boom()"), RAISED),
        "narrow": (module("embedding", "k[:, :3]"), "forward(coordinates) must give [2, 4] float32, gave [2, 3] float32"),
        "coordinates in place": (module("embedding", "k + 0 * c.add_(1)[:, :1]"), "forward() changes the coordinates"),
        "infinite": (module("embedding", "torch.full_like(k, torch.inf)"), "forward(coordinates) must give finite numbers"),
    },
    "predictor": {
        "whole": ("def build(self, inputs, outputs):\n    m = M(inputs, outputs); m.whole = lambda embedding: torch.zeros(3); return m",
            "whole(embedding) must give [72] float32, gave [3] float32"),
        "wants raises": ("def build(self, inputs, outputs):\n    class X(M):\n        @property\n        def wants(self): boom()\n"
            "    return X(inputs, outputs)", RAISED),
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
        "build raises": ("def build(self, inputs, outputs): boom()", RAISED),
        "initialise raises": (RIGHT["predictor"][1] + "\ndef initialise(self, module, embedded, kernels): boom()", RAISED),
        "nan": (module("predictor", "k * torch.nan"), "forward(embedded) must give finite numbers"),
        "unused parameter": (spare("k"), "no kernel depends on parameter 'spare', which every file would hold"),
        "detached": (spare("k.detach()"), "no gradient reaches its parameters"),
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
    "smoother": {
        "nothing": ("def order(self, kernels): pass", "order() must give a LayerOrder, gave nothing ('conv1.weight')"),
        "of another layer": ("def order(self, kernels): return nern.Unordered(1, 1)", "order() must give [2] int64, gave [1] int64"),
        "order raises": ("def order(self, kernels): boom()", RAISED),
        "tensor": ("def order(self, kernels): return torch.arange(3)", "order() must give a LayerOrder, gave [3] int64"),
        "repeats": (order("i * 0"), "order() must give every kernel from 0 to"),
        "floats": (order("i.float()"), "float32 ('conv1.weight')"),
        "kernels in place": (order("i + 0 * int(kernels.zero_().sum())"), "order() changes the kernels that it is given ('conv1.weight')"),
    },
}  # fmt: skip

#: What is found only while a run goes on.
LATE: Table = {
    "smoother": {
        "late number": ("def order(self, kernels): return nern.Unordered(*kernels.shape[:2]) if len(kernels) == 2 else 3",
            "gave an int ('conv2.weight')"),
    },
    "architecture": {
        "keep raises": ("def keep(self, folder): boom()", RAISED),
    },
}  # fmt: skip


@pytest.mark.parametrize(("kind", "what", "said"), rows(BROKEN))
def test_a_broken_contract_is_named_before_the_first_step(kind, what, said, odd) -> None:
    is_named_before_the_first_step(odd, kind, what, said)


@pytest.mark.parametrize(("kind", "what", "said"), rows(LATE))
def test_a_contract_that_is_broken_later_is_named_and_the_run_goes_on_from_there(kind, what, said, odd) -> None:
    is_named_in_a_run_that_can_go_on(odd, kind, what, said)
