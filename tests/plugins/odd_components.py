"""A package of components that break their contracts, one in each, and a small run that meets one of them.

A test file holds tables: extension point → what the component does wrong → (what is put into the body of a class that works, what a
message says).
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
import yaml
from torch import nn

import nern
from nern.builtin.architectures.cifar_resnet import CifarResNet
from nern.config.loading import load_experiment
from nern.errors import ConfigError, NernError, TrainingError
from nern.registry.discovery import create_registry
from nern.registry.registry import Registry
from nern.support.files import write_tensors

Table = dict[str, dict[str, tuple[str, str]]]

HEAD = '''
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
RAISED = "raised KeyError: 'boom'"
RESUMED = "a resumed run would differ"
TAKES = "must give inputs that the network takes, gave "
NO_CHECKPOINT = "no checkpoint can hold this"

RESNET = {"depth": 8, "width": 2, "size": 8, "channels": 1, "mean": [0.3], "std": [0.4]}
REST = {
    "task": {"name": "uniform-noise"},
    "predictor": {"name": "mlp", "hidden": 8},
    "losses": {"reconstruction": {}},
    "sampler": "all",
    "smoother": "none",
    "optimizer": {"name": "adamw"},
    "observers": {"progress": None},
    "phases": [{"iterations": 3, "batch": 4}],
    "log_every": 1,
    "precision": "float32",
}


class Tiny(nn.Sequential):
    """Two convolutions of 2 and 6 kernels, and ten logits: the smallest network that has feature maps."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 3, 3)
        self.pool, self.flat, self.linear = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 10)


def code_of(table: Table) -> str:
    """The package with every break of a table."""
    lines = [HEAD]
    for kind, breaks in table.items():
        interface, right = RIGHT[kind]
        for what, (body, _) in breaks.items():
            own = textwrap.indent(f"{right}\n{textwrap.dedent(body)}", "    ")
            lines.append(f'@attrs.frozen\nclass {_class_name(what)}({interface}):\n    "Odd."\n{own}\n')
        names = ", ".join(f'"{offered(what)}": {_class_name(what)}' for what in breaks)
        lines.append(f"@nern.hookimpl\ndef nern_{HOOKS.get(kind, kind + 's')}(offers={{{names}}}): return offers\n")
    return "\n".join(lines)


def _class_name(what: str) -> str:
    return "C_" + what.replace(" ", "_")


def offered(what: str) -> str:
    """The name under which a component is offered."""
    return what.replace(" ", "-")


def rows(table: Table) -> list[Any]:
    """The rows of a table as pytest's parameters."""
    return [pytest.param(kind, what, said, id=f"{kind}: {what}") for kind, breaks in table.items() for what, (_, said) in breaks.items()]


@attrs.frozen
class OddPackage:
    """A registered package with every break of a test file."""

    registry: Registry
    folder: Path  # with the weights of the networks, where runs go, too
    _said: dict[tuple[str, ...], dict[str, str]] = attrs.field(factory=dict, init=False)

    def engine(self, kind: str, *breaks: str) -> nern.Engine:
        """A run that meets components of one extension point, each in a phase of three steps; only the first where a run has but one."""
        sections = [{"name": offered(what)} for what in breaks]
        resnet = {**RESNET, "weights": str(self.folder / "resnet.safetensors"), **sections[0]}
        tiny = {"name": "module", "build": "tests.plugins.odd_components:Tiny", "layers": "convolutions", "size": [1, 8, 8]}
        folder = self.folder / f"{kind}-{offered(breaks[0])}"
        folder.mkdir(exist_ok=True)
        values: dict[str, Any] = {**REST, "output": str(folder / "run")}
        values["architecture"] = resnet if kind == "architecture" else {**tiny, "weights": str(self.folder / "tiny.safetensors")}
        phases = [{"name": f"phase-{index}", "iterations": 3, "batch": 4} for index in range(len(breaks))]
        if kind == "loss":
            phases = [{**phase, "losses": {"odd": section}} for phase, section in zip(phases, sections, strict=True)]
            values["storage"] = "entropy" if "bits" in breaks[0] else "float32"
        elif kind in ("sampler", "optimizer"):
            phases = [{**phase, kind: section} for phase, section in zip(phases, sections, strict=True)]
        elif kind in ("metric", "observer"):
            phases, values[f"{kind}s"] = phases[:1], {section["name"]: section for section in sections}
        elif kind == "task":
            values |= {"task": sections[0], "losses": {"reconstruction": {}, "kd": {}}}
            phases = phases[:1] + [{**phase, "inputs": section} for phase, section in zip(phases[1:], sections[1:], strict=True)]
        elif kind not in ("architecture", "launcher"):
            values[kind] = sections[0]
        path = folder / "odd.yaml"
        path.write_text(yaml.safe_dump({**values, "phases": phases}), encoding="utf-8")
        return nern.Engine(*load_experiment(path, registry=self.registry))

    def said(self, kind: str, breaks: tuple[str, ...]) -> dict[str, str]:
        """What runs that meet many breaks say of each, break → line.

        A run names all that it finds at one stage, and looks no further: what it does not name is met again by another run.
        """
        if breaks not in self._said:
            lines: dict[str, str] = {}
            left = list(breaks)
            while left:
                engine = self.engine(kind, *left)
                try:
                    engine.fit()
                except ConfigError as error:
                    assert not engine.run.path.exists()
                    reported = str(error).splitlines()
                except NernError:
                    break  # the run began: nothing names what is left
                else:
                    break
                named = {what: line for what in left for line in reported if f"nern_odd:{offered(what)} ({kind}): " in line}
                assert len(named) == len(reported), "\n".join(reported)
                lines, left = lines | named, [what for what in left if what not in named]
            self._said[breaks] = lines
        return self._said[breaks]


def registered(table: Table, folder: Path) -> Iterator[OddPackage]:
    """Register the components of a table once, and write the weights of the networks that runs represent."""
    file = folder / "nern_odd.py"
    file.write_text(code_of(table), encoding="utf-8")
    registry = create_registry([str(file)])
    assert not registry.failures
    with torch.random.fork_rng():
        torch.manual_seed(0)
        write_tensors(folder / "tiny.safetensors", Tiny().state_dict())
        write_tensors(folder / "resnet.safetensors", CifarResNet(**RESNET).build().state_dict())
    yield OddPackage(registry, folder)
    sys.modules.pop("nern_odd", None)


def is_named(message: str, kind: str, what: str, said: str) -> None:
    """Check that a message is one line with the component, what is said, file and line; it is empty where nothing was named."""
    assert message.startswith(f"component nern_odd:{offered(what)} ({kind}): ")
    assert said in message
    assert "nern_odd.py, line " in message
    assert "\n" not in message
    assert "learning rate" not in message


def is_named_before_the_first_step(odd: OddPackage, kind: str, what: str, said: str) -> None:
    """Check that a run ends by naming a component before anything is written."""
    engine = odd.engine(kind, what)
    with pytest.raises(ConfigError) as caught:
        engine.fit()
    is_named(str(caught.value), kind, what, said)
    assert type(caught.value) is ConfigError
    assert not engine.run.path.exists()


def is_named_in_a_run_that_can_go_on(odd: OddPackage, kind: str, what: str, said: str) -> None:
    """Check that a run ends by naming a component, and says how it goes on."""
    engine = odd.engine(kind, what)
    with pytest.raises(TrainingError) as caught:
        engine.fit()
    is_named(str(caught.value), kind, what, said)
    assert "mend it, then continue with --resume (" in str(caught.value)
    assert engine.run.config.is_file()
