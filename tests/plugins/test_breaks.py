"""Components that raise, at any moment of a run: one line names the component, what it said, and the plugin's file and line."""

from __future__ import annotations

import pytest

import nern
from nern.errors import ConfigError, NernError, TrainingError

HEAD = """
import attrs, torch, nern
from torch import nn
from nern.builtin.architectures.cifar_resnet import CifarResNet
from nern.builtin.tasks.noise import NoiseData, UniformNoise

def boom(*anything, **more):
    raise ValueError("boom")

class M(nn.Linear):
    dim = 4

    def forward(self, vectors):
        return super().forward(vectors.float())
"""

#: extension point → its interface, and the rest of a class with which a run works
RIGHT = {
    "architecture": ("CifarResNet", ""),
    "embedding": ("nern.Embedding", "def build(self, grid):\n        return M(3, 4)"),
    "predictor": ("nern.Predictor", "def build(self, inputs, outputs):\n        return M(inputs, outputs)"),
    "sampler": (
        "nern.Sampler",
        "def start(self, norms, layers, seed):\n        return self.draw\n    def draw(self, step):\n        return None",
    ),
    "loss": (
        "nern.Loss",
        "needs = 'weights'\n    def __call__(self, original, reconstructed):\n"
        "        return (original.values - reconstructed.values).square().mean()",
    ),
    "optimizer": (
        "nern.Optimizer",
        "lr: float = nern.option(0.1, help='x')\n    def start(self, parameters):\n"
        "        return [torch.optim.SGD([value for _, value in parameters], lr=self.lr)]",
    ),
    "task": ("UniformNoise", ""),
    "metric": ("nern.Metric", "compares = 'original'\n    def batch(self, outputs, reference):\n        return outputs.sum(1)"),
    "smoother": ("nern.Smoother", "def order(self, kernels):\n        return nern.Unordered(*kernels.shape[:2])"),
}
HOOKS = {"metric": "metrics", "loss": "losses"}

#: (extension point, what is put into the class, whether it is found before the run's folder is made)
RAISES = [
    ("architecture", "def build(self): boom()", True),
    ("architecture", "def layers(self, network): boom()", True),
    ("architecture", "def features(self, network): boom()", True),
    ("architecture", "def example_inputs(self, batch=2): boom()", True),
    ("embedding", "def build(self, grid): boom()", True),
    ("embedding", "def initialise(self, module, kernels): boom()", True),
    ("embedding", "def build(self, grid):\n        module = M(3, 4); module.forward = boom; return module", True),
    ("predictor", "def build(self, inputs, outputs): boom()", True),
    ("predictor", "def initialise(self, module, embedded, kernels): boom()", True),
    ("sampler", "def start(self, norms, layers, seed): boom()", True),
    ("sampler", "def draw(self, step): return boom() if step == 2 else None", False),
    ("smoother", "def order(self, kernels): boom()", True),
    ("loss", "def start(self, context): boom()", True),
    ("loss", "def __call__(self, original, reconstructed): boom()", True),
    ("optimizer", "def start(self, parameters): boom()", True),
    ("optimizer", "def factor(self, step, total): return boom() if step == 1 else 1.0", False),
    ("task", "def check(self, preprocessing): boom()", True),
    ("task", "def outputs(self): boom()", True),
    ("task", "def open(self, preprocessing, heldout, seed): boom()", True),
    ("metric", "def batch(self, outputs, reference): boom()", True),
    ("metric", "def total(self, batches): boom()", True),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "raising", "early"), RAISES, ids=[f"{kind} {code.split('(')[0].split()[1]}" for kind, code, _ in RAISES])
def test_what_a_component_raises_is_one_line_with_its_name_and_place(kind, raising, early, install, experiment) -> None:
    interface, right = RIGHT[kind]
    hook = HOOKS.get(kind, f"{kind}s")
    code = f'{HEAD}\n@attrs.frozen\nclass C({interface}):\n    "Odd."\n    {right}\n    {raising}\n\n'
    install("nern-odd", f'{code}@nern.hookimpl\ndef nern_{hook}(): return {{"odd": C}}\n')
    path = experiment()
    section: object = {"name": "odd"}
    if kind in HOOKS:
        section = {"odd": {}}
    if kind == "architecture":
        given = nern.Engine.from_yaml(path).experiment.architecture
        section = {"name": "odd", "depth": 8, "width": 2, "size": 8, "channels": 1, "mean": [0.3], "std": [0.4], "weights": given.weights}
    engine = nern.Engine.from_yaml(path, {hook if kind in HOOKS else kind: section})
    with pytest.raises(NernError) as caught:
        engine.fit()
    message = str(caught.value)
    assert message.startswith(f"component nern-odd:odd ({kind}): raised ValueError: boom (")
    assert "nern_odd.py, line " in message
    assert "\n" not in message
    assert "learning rate" not in message
    assert type(caught.value) is (ConfigError if early else TrainingError)
    assert engine.run.path.exists() is not early
    assert early or "mend it, then continue with --resume" in message
