"""What a plugin does wrong, and what a run makes of it: it is named with its place, and breaks nothing else."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

import nern
from nern.cli.main import run
from nern.registry.discovery import create_registry
from tests.helpers import same

HEAD = "from __future__ import annotations\nimport attrs, enum, torch\nfrom typing import TYPE_CHECKING, Literal\nimport nern\n"
SAMPLER = """
{decorator}
class S(nern.Sampler):
    "Every kernel."
    {option}
    def start(self, norms, layers, seed):
        return lambda step: None

@nern.hookimpl
def nern_samplers(): return {{"mine": S}}
"""

#: what is wrong → (option of the class, what is said)
OPTIONS = {
    "no type": ("size = nern.option(1, help='x')", "whose option 'size' has no type; write size: float = nern.option(…)"),
    "a type for type checkers": (
        "if TYPE_CHECKING:\n        from decimal import Decimal\n    size: Decimal = nern.option(1, help='x')",
        "names a type that is not there at run time (name 'Decimal' is not defined); import it outside of TYPE_CHECKING",
    ),
    "a tensor": ("size: list = nern.option(torch.zeros(2), help='x')", "has a default that no configuration can hold (Tensor)"),
    "an enum": ("size: str = nern.option(enum.Enum('E', 'a').a, help='x')", "has a default that no configuration can hold (E)"),
    "a set": ("size: list = nern.option({1}, help='x')", "has a default that no configuration can hold (set)"),
    "a default of another type": ("size: int = nern.option('x', help='x')", "whose option 'size' is int, but its default is text ('x')"),
    "none where there is none": ("size: float = nern.option(None, help='x')", "whose option 'size' is float, but its default is nothing"),
    "no such choice": ("size: Literal['a'] = nern.option('b', help='x')", "whose option 'size' is \"a\", but its default is text ('b')"),
}


@pytest.mark.parametrize("what", OPTIONS)
def test_options_are_checked_when_a_plugin_is_registered(what: str, install, capsys) -> None:
    option, message = OPTIONS[what]
    install("nern-odd", HEAD + SAMPLER.format(decorator="@attrs.frozen", option=option), version="2.0")
    (failure,) = create_registry().failures
    assert (failure.package, failure.version) == ("nern-odd", "2.0")
    assert "nern_samplers offers 'mine', " in failure.reason
    assert message in failure.reason
    assert run(["plugins", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["failures"][0]["package"] == "nern-odd"


def test_a_class_without_its_decorator_is_refused(install) -> None:
    install("nern-bare", HEAD + SAMPLER.format(decorator="", option=""))
    (failure,) = create_registry().failures
    assert failure.reason.startswith("nern_samplers offers 'mine', whose class S is not decorated itself; write @attrs.frozen above it (")
    assert failure.reason.endswith("nern_bare.py, line 7)")


def test_old_options_are_as_good_as_ever(install) -> None:
    option = "a: int = nern.option(1, help='x')\n    b: float = nern.option(2, help='x')\n    c: str | None = nern.option(None, help='x')"
    option += "\n    d: tuple[float, ...] = nern.option((1, 2), help='x')\n    e: list[str] = nern.option(factory=list, help='x')"
    install("nern-good", HEAD + SAMPLER.format(decorator="@attrs.frozen", option=option))
    registry = create_registry()
    assert not registry.failures
    assert registry.find("sampler", "mine")


@pytest.mark.parametrize(
    ("code", "line", "said"),
    [
        ("import nern\n\nvalue = 1 / 0\n", 3, "ZeroDivisionError: division by zero"),
        ("import nern\n\ndef f():\n    import a_module_that_is_not_there\n\nf()\n", 4, "ModuleNotFoundError: No module named"),
        ("import nern\n\n@nern.hookimpl\ndef nern_losses():\n    return {}['kd']\n", 5, "nern_losses raised KeyError: 'kd'"),
    ],
)
def test_a_failure_says_file_and_line(code: str, line: int, said: str, install) -> None:
    install("nern-fails", code)
    (failure,) = create_registry().failures
    assert failure.reason.startswith(said)
    assert failure.reason.endswith(f"nern_fails.py, line {line})")


def test_a_plugin_that_is_named_twice_is_one_plugin(tmp_path: Path, caplog) -> None:
    (tmp_path / "mine.py").write_text(HEAD + SAMPLER.format(decorator="@attrs.frozen", option=""))
    with caplog.at_level(logging.WARNING, "nern"):
        registry = create_registry([str(tmp_path / "mine.py"), "mine.py", f"{tmp_path}/../{tmp_path.name}/mine.py"], folder=tmp_path)
    assert not registry.failures
    assert not caplog.records
    assert len([entry for entry in registry.entries("sampler") if entry.name == "mine"]) == 1


# -- names that nern offers itself --------------------------------------------------------------------------------------

RIVAL = """
import attrs, nern

@attrs.frozen
class Rival(nern.Predictor):
    "Another predictor."
    hidden: int = nern.option(4, help="x")

    def build(self, inputs, outputs):
        import torch
        return torch.nn.Linear(inputs, outputs)

@nern.hookimpl
def nern_predictors(): return {"mlp": Rival}
"""


def test_a_rival_of_a_built_in_breaks_nothing_that_does_not_name_it(install, experiment, capsys) -> None:
    path = experiment()
    assert run(["train", str(path)]) == 0
    folder = nern.Engine.from_yaml(path).run.path
    before = nern.Engine.from_run(folder).reconstruct().state_dict()
    install("nern-rival", RIVAL)
    capsys.readouterr()
    for reference in ("digits", "resnet20-cifar10", "table5/resnet20-140"):  # presets
        nern.Engine.from_yaml(reference)
    assert run(["config", "digits"]) == 0
    assert "name: nern:mlp" in capsys.readouterr().out  # written out, since the bare name is not enough now
    assert run(["config", "digits", "recipe=fast"]) == 0  # a recipe
    assert run(["config", "digits", "predictor.hidden=7"]) == 0
    assert same(nern.Engine.from_run(folder).reconstruct().state_dict(), before)  # a stored run
    capsys.readouterr()
    assert run(["config", "digits", "predictor=mlp"]) == 2  # what a user writes may be ambiguous
    assert "predictor 'mlp' is offered by nern" in capsys.readouterr().err
    assert run(["config", "digits", "predictor=nern-rival:mlp"]) == 0


# -- observers ----------------------------------------------------------------------------------------------------------

MEDDLER = """
import nern

@nern.hookimpl
def nern_evaluated(metrics):
    metrics.pop("kl", None)
    for name in metrics:
        metrics[name] = -1.0

@nern.hookimpl
def nern_step(losses):
    losses.clear()

@nern.hookimpl
def nern_run_started(config):
    config["phases"].clear()

@nern.hookimpl
def nern_run_finished(result):
    if result:
        result["checkpoints"].clear()
"""


def test_an_observer_cannot_change_a_result(install, experiment) -> None:
    plain = nern.Engine.from_yaml(experiment("plain")).fit()
    install("nern-meddler", MEDDLER)
    engine = nern.Engine.from_yaml(experiment("meddled"))
    meddled = engine.fit()
    assert meddled.checkpoints == plain.checkpoints
    stored = json.loads(engine.run.result.read_text())
    assert stored["checkpoints"] == plain.checkpoints
    lines = [json.loads(line) for line in engine.run.metrics.read_text().splitlines()]
    assert all(line["losses"] for line in lines if "losses" in line)


@pytest.mark.parametrize("raises", ["ValueError('late')", "nern.ConfigError('late')", "nern.Interrupted('late')"])
def test_an_observer_that_fails_at_the_end_never_hides_the_error(raises: str, install, experiment, caplog) -> None:
    install("nern-late", f"import nern\n\n@nern.hookimpl\ndef nern_run_finished():\n    raise {raises}\n")
    engine = nern.Engine.from_yaml(experiment(), {"optimizer": {"name": "sgd", "lr": 1e30}})
    with pytest.raises(nern.TrainingError, match="is nan at step 2"):
        engine.fit()
    assert "nern-late is switched off for the rest of the run: nern_run_finished raised" in caplog.text
