"""Components that break their contract end a run before its first step, by their name and with what was expected."""

from __future__ import annotations

import pytest

import nern
from nern.errors import ConfigError

HEAD = "import attrs, torch, nern\nfrom torch import nn\nfrom nern.builtin.architectures.cifar_resnet import CifarResNet\n"
SAMPLER = """
@attrs.frozen
class C(nern.Sampler):
    "Odd."

    def start(self, norms, layers, seed):
        return lambda step: {}

@nern.hookimpl
def nern_samplers(): return {{"odd": C}}
"""
PREDICTOR = """
class M(nn.Linear):
    def forward(self, embedded):
        return {}

@attrs.frozen
class C(nern.Predictor):
    "Odd."

    def build(self, inputs, outputs):
        return M(inputs, outputs)

@nern.hookimpl
def nern_predictors(): return {{"odd": C}}
"""
EMBEDDING = """
class M(nn.Module):
    dim = 4

    def forward(self, coordinates):
        {}

@attrs.frozen
class C(nern.Embedding):
    "Odd."

    def build(self, grid):
        return M()

@nern.hookimpl
def nern_embeddings(): return {{"odd": C}}
"""
SMOOTHER = """
@attrs.frozen
class C(nern.Smoother):
    "Odd."

    def order(self, kernels):
        return {}

@nern.hookimpl
def nern_smoothers(): return {{"odd": C}}
"""
OPTIMIZER = """
@attrs.frozen
class C(nern.Optimizer):
    "Odd."
    lr: float = nern.option(0.1, help="rate")

    def start(self, parameters):
        values = [value for _, value in parameters]
        sgd = torch.optim.SGD
        return {}

@nern.hookimpl
def nern_optimizers(): return {{"odd": C}}
"""
UNUSED = """
class M(nn.Linear):
    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.spare = nn.Parameter(torch.zeros(3))
        {}

    def forward(self, embedded, rows=None):
        kernels = super().forward(embedded)
        return {}

@attrs.frozen
class C(nern.Predictor):
    "Odd."

    def build(self, inputs, outputs):
        return M(inputs, outputs)

@nern.hookimpl
def nern_predictors(): return {{"odd": C}}
"""
ARCHITECTURE = """
calls = []

@attrs.frozen
class Mapping(nern.LayerMapping):
    def join(self, kernels):
        return {}
    def coordinates(self):
        return {}

@attrs.frozen
class C(CifarResNet):
    "Odd."

    def layers(self, network):
        calls.append(1)
        found = [Mapping(l.parameter, l.shape, l.layer) for l in super().layers(network)]
        return {}

@nern.hookimpl
def nern_architectures(): return {{"odd": C}}
"""
JOIN, AT = "super().join(kernels)", "super().coordinates()"

WRONG = [
    ("sampler", SAMPLER.format("torch.tensor([0.0])"), "a step must draw [m] int64 or None, drew [1] float32"),
    ("sampler", SAMPLER.format("[0, 1]"), "a step must draw [m] int64 or None, drew a list"),
    ("sampler", SAMPLER.format("torch.arange(0)"), "a step must draw at least one kernel, drew none"),
    ("sampler", SAMPLER.format("torch.tensor([0, len(norms)])"), "a step must draw rows from 0 to"),
    ("sampler", SAMPLER.format("torch.randperm(len(norms))"), "the same step must draw the same rows again"),
    ("predictor", PREDICTOR.format("super().forward(embedded) * torch.nan"), "forward(embedded) must give finite numbers"),
    ("embedding", EMBEDDING.format("return torch.zeros(len(coordinates), 3)"), "must give [2, 4] float32, gave [2, 3] float32"),
    ("embedding", EMBEDDING.format("coordinates += 1; return torch.ones(len(coordinates), 4)"), "forward() changes the coordinates"),
    ("embedding", EMBEDDING.format("return torch.full((len(coordinates), 4), torch.inf)"), "must give finite numbers"),
    ("smoother", SMOOTHER.format("torch.arange(3)"), "order() must give a LayerOrder, gave [3] int64"),
    ("smoother", SMOOTHER.format("nern.KernelOrder(*kernels.shape[:2], torch.zeros(kernels.shape[0] * kernels.shape[1]).long())"),
     "order() must give every kernel from 0 to"),
    ("smoother", SMOOTHER.format("nern.KernelOrder(*kernels.shape[:2], torch.arange(kernels.shape[0] * kernels.shape[1]).float())"),
     "float32 ('conv1.weight')"),
    ("smoother", SMOOTHER.format("(kernels.zero_(), nern.KernelOrder(*kernels.shape[:2], torch.arange(kernels[..., 0].numel())))[1]"),
     "order() changes the kernels that it is given ('conv1.weight')"),
    ("optimizer", OPTIMIZER.format("sgd(values, lr=1)"), "start() must return a list of torch optimisers, returned a SGD"),
    ("optimizer", OPTIMIZER.format("[sgd(values[1:], lr=1)]"), "every parameter to exactly one optimiser, once: 'predictor."),
    ("optimizer", OPTIMIZER.format("[sgd(values, lr=1), sgd(values[:1], lr=1)]"), "is stepped 2 times"),
    ("optimizer", OPTIMIZER.format("[sgd([nn.Parameter(v.detach()) for v in values], lr=1)]"), "and steps another one"),
    ("optimizer", OPTIMIZER.format("1 / 0"), "raised ZeroDivisionError: division by zero (" ),
    ("predictor", UNUSED.format("", "kernels"), "no kernel depends on parameter 'spare', which every file would hold"),
    ("predictor", UNUSED.format("", "kernels.detach()"), "no gradient reaches its parameters"),
    ("architecture", ARCHITECTURE.format("super().join(kernels.flip(0))", AT, "found"), "must give back what split() was given"),
    ("architecture", ARCHITECTURE.format(JOIN, "super().coordinates() * 0", "found"), "two kernels have the same"),
    ("architecture", ARCHITECTURE.format(JOIN, AT, "found[::-1] if len(calls) % 2 else found"), "when it is called again"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "code", "message"), WRONG, ids=range(len(WRONG)))
def test_a_component_that_breaks_its_contract_is_named(kind, code, message, install, experiment) -> None:
    install("nern-odd", HEAD + code)
    path = experiment()
    section = {"name": "nern-odd:odd"}
    if kind == "architecture":
        given = nern.Engine.from_yaml(path).experiment.architecture
        section |= {"depth": 8, "width": 2, "size": 8, "channels": 1, "mean": [0.3], "std": [0.4], "weights": given.weights}
    engine = nern.Engine.from_yaml(path, {kind: section})
    with pytest.raises(ConfigError) as caught:
        engine.fit()
    assert not engine.run.path.exists()
    assert message in str(caught.value)
    assert f"component nern-odd:odd ({kind}): " in str(caught.value)
    assert "nern_odd.py, line " in str(caught.value)
    assert "learning rate" not in str(caught.value)


@pytest.mark.parametrize(
    ("made", "given"),
    [("self.spare.requires_grad_(False)", "kernels"), ("", "kernels + self.spare.sum() if bool((rows == 5).any()) else kernels")],
    ids=["not trained", "used by one kernel alone"],
)
def test_parameters_that_may_be_there(made, given, install, experiment) -> None:
    install("nern-odd", HEAD + UNUSED.format(made, given))
    assert nern.Engine.from_yaml(experiment(), {"predictor": {"name": "odd"}}).fit().iterations == 3


def test_a_run_without_anything_to_train_ends_before_its_first_step(experiment) -> None:
    codes = {"embedding": {"name": "codes", "numbers": 0, "frequencies": 1}, "predictor": {"name": "codes", "hidden": 0}}
    engine = nern.Engine.from_yaml(experiment(), codes)
    with pytest.raises(ConfigError, match="nothing can be trained"):
        engine.fit()
    assert not engine.run.path.exists()
