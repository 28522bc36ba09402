"""Plugins that change what all code shares, or whose code does not run as it looks: they are refused or put right, and named."""

from __future__ import annotations

import json
import logging
import os
import warnings
from pathlib import Path

import pytest
import torch
import yaml

from nern.cli.main import run
from nern.errors import PluginError
from nern.registry.discovery import create_registry
from nern.support.settings import kept, settings
from tests.plugins.odd_components import RESNET, REST, RIGHT, Table, is_named_before_the_first_step, offered, rows

LOUD = "torch.set_default_dtype(torch.float64)"
LEAVES = "must leave torch's default dtype as it finds it"

#: Extension point → the method in which the default dtype of torch is changed, and its arguments.
METHODS = {
    "architecture": "features(self, network)",
    "embedding": "build(self, grid)",
    "predictor": "build(self, inputs, outputs)",
    "base": "build(self, grid)",
    "sampler": "start(self, norms, layers, seed)",
    "loss": "__call__(self, o, r)",
    "optimizer": "start(self, parameters)",
    "task": "open(self, preprocessing, heldout, seed)",
    "metric": "batch(self, outputs, reference)",
    "smoother": "order(self, kernels)",
}


def right(kind: str, method: str) -> str:
    """What the method gives in a class that works."""
    if kind == "architecture":
        return "super().features(network)"
    return RIGHT[kind][1].partition(f"def {method}: ")[2].splitlines()[0].removeprefix("return ")


BROKEN: Table = {
    kind: {f"{kind} meddles": (f"def {method}:\n    {LOUD}\n    return {right(kind, method)}", LEAVES)} for kind, method in METHODS.items()
}
BROKEN["architecture"]["architecture meddles"] = (
    f"def features(self, network):\n    {LOUD}\n    return CifarResNet.features(self, network)", LEAVES
)  # fmt: skip
BROKEN["observer"] = {
    "observer meddles": (f"@nern.hookimpl\ndef nern_step(self, iteration): {LOUD}", "changes torch's default dtype in nern_step"),
    "observer no gradients": (
        "@nern.hookimpl\ndef nern_run_started(self): torch.set_grad_enabled(False)", "changes whether torch computes gradients in nern_run"
    ),
}  # fmt: skip
LATE: Table = {
    "embedding": {"prints": ("def build(self, grid):\n    print('from build')\n    print('and no end', end='')\n    return M(3, 4)", "")},
    "observer": {"observer alone": ("__eq__ = boom\n__hash__ = object.__hash__", "")},
}
BROKEN["loss"] |= {
    "no gradients": ("def __call__(self, o, r):\n    torch.set_grad_enabled(False)\n    return mse(o.values, r.values).mean()",
        "whether torch computes gradients"),
    "another folder": ("def __call__(self, o, r):\n    import os, tempfile\n    os.chdir(tempfile.gettempdir())\n"
        "    return mse(o.values, r.values).mean()", "must leave the working directory as it finds it"),
    "another device": ("def __call__(self, o, r):\n    torch.set_default_device('meta')\n    return mse(o.values, r.values).mean()",
        "must leave torch's default device as it finds it"),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "what", "said"), [row for row in rows(BROKEN) if row.values[0] != "observer"])
def test_a_component_that_changes_what_all_code_shares_is_named(kind, what, said, odd) -> None:
    before = settings()
    is_named_before_the_first_step(odd, kind, what, said)
    assert settings() == before


@pytest.mark.parametrize(("kind", "what", "said"), rows({"observer": BROKEN["observer"]}))
def test_what_an_observer_changes_is_put_back_and_said_once(kind, what, said, odd, caplog) -> None:
    before, engine = settings(), odd.engine(kind, what)
    with caplog.at_level(logging.WARNING, "nern"):
        engine.fit()
    assert settings() == before
    (line,) = [record.getMessage() for record in caplog.records if "put back" in record.getMessage()]
    assert f"nern_odd:{offered(what)}" in line
    assert said in line


def test_an_observer_that_cannot_be_compared_is_named(odd) -> None:
    with pytest.raises(PluginError, match=r"'observer-alone' cannot watch the run: raised KeyError: 'boom' \(.*_odd\.py, line"):
        odd.engine("observer", "observer alone").fit()


def test_settings_are_put_back(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = settings()
    with kept() as changed:
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        torch.set_grad_enabled(False)
        torch.use_deterministic_algorithms(True)
        torch.set_num_threads(3)
        warnings.simplefilter("error")
        os.chdir(tmp_path.parent)
    assert changed == list(before)
    assert settings() == before


SAMPLER = """
import attrs, nern, os, torch
{first}

@attrs.frozen
class S(nern.Sampler):
    "Every kernel."
    {option}

    def start(self, norms, layers, seed):
        return lambda step: None

@nern.hookimpl
{hook}
"""
OFFERS = 'def nern_samplers(): return {"mine": S}'


def plugin(folder: Path, first: str = "", option: str = "", hook: str = OFFERS) -> str:
    file = folder / "mine.py"
    file.write_text(SAMPLER.format(first=first, option=option, hook=hook), encoding="utf-8")
    return str(file)


@pytest.mark.parametrize("hook", [OFFERS, f'def nern_samplers():\n    {LOUD}\n    return {{"mine": S}}'])
def test_what_loading_a_plugin_changes_is_put_back_and_said(hook, tmp_path, caplog) -> None:
    before, file = settings(), plugin(tmp_path, LOUD if hook == OFFERS else "", hook=hook)
    with caplog.at_level(logging.WARNING, "nern"):
        registry = create_registry([file], entry_points=False)
    assert registry.find("sampler", "mine").package == "mine"
    assert settings() == before
    (record,) = caplog.records
    assert record.getMessage() == f"nern: plugin {file} changes torch's default dtype when it is loaded; that is put back"


def test_what_a_plugin_prints_while_it_is_loaded_is_no_result(tmp_path, capsys) -> None:
    file = plugin(tmp_path, "print('from the import')", hook=f"def nern_samplers():\n    print('from the hook')\n    {OFFERS[21:]}")
    assert run(["plugins", "--json", "--plugin", file]) == 0
    out, err = capsys.readouterr()
    assert "mine" in [component["name"] for component in json.loads(out)["components"]]
    assert err.split("\n")[:2] == ["from the import", "from the hook"]


def test_what_a_component_prints_stands_in_no_json(odd, capsys) -> None:
    path = odd.folder / "prints.yaml"
    values = {**REST, "architecture": {**RESNET, "name": "cifar-resnet", "weights": str(odd.folder / "resnet.safetensors")}}
    path.write_text(yaml.safe_dump({**values, "embedding": {"name": "prints"}}), encoding="utf-8")
    assert run(["config", str(path), "--json", "--plugin", str(odd.folder / "nern_odd.py")]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["embedding"] == {"name": "nern_odd:prints"}
    assert "from build" in err
    assert "and no end" in err


@pytest.mark.parametrize(
    ("hook", "said"),
    [
        ('def nern_samplers(): yield {"mine": S}', "nern_samplers is a generator (it has a yield), so that calling it does nothing"),
        ('async def nern_samplers(): return {"mine": S}', "nern_samplers is async, so that calling it does nothing"),
        ("def nern_step(iteration): yield", "nern_step is a generator"),
        (
            'class O(nern.Observer):\n    @nern.hookimpl\n    def nern_step(self): yield\n\n@nern.hookimpl\n'
            'def nern_observers(): return {"mine": attrs.frozen(O)}',
            "nern_step is a generator",
        ),
        ('def nern_samplers(): return {"my sampler": S}', "offers 'my sampler', but a name must begin with a letter"),
        ('def nern_samplers(): return {"a.b": S}', "offers 'a.b', but a name must begin with a letter"),
        ('def nern_samplers(): return {"null": S}', "be no word such as true or null"),
        ('def nern_samplers(): return {"3": S}', "offers '3', but a name must begin with a letter"),
    ],
)  # fmt: skip
def test_hooks_that_do_not_run_and_names_that_cannot_be_written_are_refused(hook, said, tmp_path) -> None:
    if hook.startswith("class O"):
        hook = f"def nern_smoothers(): return {{}}\n\n{hook}"
    (failure,) = create_registry([plugin(tmp_path, hook=hook)], entry_points=False).failures
    assert said in failure.reason
    assert "mine.py, line " in failure.reason


@pytest.mark.parametrize("name", ["MySampler", "größe", "my_sampler", "fmd2"])
def test_other_names_are_as_good_as_ever(name, tmp_path) -> None:
    registry = create_registry([plugin(tmp_path, hook=f'def nern_samplers(): return {{"{name}": S}}')], entry_points=False)
    assert registry.find("sampler", name).name == name


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("a: float = nern.option(float('nan'), help='x')", "whose option 'a' has a default that no configuration can hold (float)"),
        ("a: int = nern.option(1, help=torch.zeros(2))", "whose option 'a' has a help that is no text"),
        ("a: '1/0' = nern.option(1, help='x')", "has an annotation that is no type (ZeroDivisionError: division by zero)"),
    ],
)
def test_options_that_json_cannot_hold_are_refused(option, said, tmp_path) -> None:
    (failure,) = create_registry([plugin(tmp_path, option=option)], entry_points=False).failures
    assert said in failure.reason


@pytest.mark.parametrize(
    ("option", "default"),
    [
        ("a: int = attrs.field(kw_only=True)\n    @a.default\n    def other(self): return 3", "computed from the other options"),
        ("a: P = nern.option(factory=P, help='x')", {"x": 1}),
        ("a: tuple[()] = nern.option((), help='x')", []),
        ("__doc__ = 3\n    a: int = nern.option(1, help='x')", 1),
    ],
)
def test_every_plugin_that_is_registered_is_listed(option, default, tmp_path, capsys) -> None:
    file = plugin(tmp_path, "@attrs.frozen\nclass P:\n    x: int = 1", option.replace('"Every kernel."', ""))
    assert run(["plugins", "--json", "--plugin", file]) == 0
    (listed,) = [part for part in json.loads(capsys.readouterr().out)["components"] if part["name"] == "mine"]
    assert listed["options"][0]["default"] == default
    assert run(["plugins", "--plugin", file]) == 0


def test_an_error_without_a_message_is_named(tmp_path) -> None:
    silent = "class E(Exception):\n    def __str__(self): raise ValueError('late')\n\nraise E"
    (failure,) = create_registry([plugin(tmp_path, silent)], entry_points=False).failures
    assert failure.reason.startswith("E: ")
    assert "mine.py, line " in failure.reason
