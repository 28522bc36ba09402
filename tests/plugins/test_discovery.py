"""Installed and local plugins: found, refused, left out, and never in the way of a run that does not need them."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import nern
from nern.cli.main import run
from nern.errors import ArtifactError, ConfigError, PluginError
from nern.registry.discovery import create_registry

LOSS = """
import attrs
from typing import ClassVar
from nern import Loss, hookimpl

@attrs.frozen
class Absolute(Loss):
    \"\"\"Mean absolute difference of the weights.\"\"\"

    needs: ClassVar[str] = "weights"

    def __call__(self, original, reconstructed):
        return (original.values - reconstructed.values).abs().mean()

@hookimpl
def nern_losses():
    return {"absolute": Absolute}
"""

BROKEN = {  # how → (source, the reason that is shown)
    "import error": ("import a_module_that_is_not_there", "ModuleNotFoundError: No module named 'a_module_that_is_not_there'"),
    "syntax error": ("def f(:", "SyntaxError: invalid syntax"),
    "exits": ("raise SystemExit(3)", "SystemExit: 3"),
    "wrong signature": (
        "from nern import hookimpl\n@hookimpl\ndef nern_losses(engine): return {}",
        "hook nern_losses has no argument 'engine'; it offers no argument",
    ),
    "wrong observer signature": (
        "from nern import hookimpl\n@hookimpl\ndef nern_step(epoch): pass",
        "hook nern_step has no argument 'epoch'; it offers phase, iteration, total, losses, learning_rate",
    ),
    "misspelled hook": (
        "from nern import hookimpl\n@hookimpl\ndef nern_loses(): return {}",
        "there is no hook 'nern_loses', did you mean 'nern_losses'?",
    ),
    "unmarked hook": ("def nern_losses(): return {}", "it implements no hook; mark functions such as nern_losses with @nern.hookimpl"),
    "exception in a hook": (
        "from nern import hookimpl\n@hookimpl\ndef nern_losses(): return 1 / 0",
        "nern_losses raised ZeroDivisionError",
    ),
    "no mapping": (
        "from nern import hookimpl\n@hookimpl\ndef nern_losses(): return ['kd']",
        "nern_losses must return a mapping from name to",
    ),
    "no component": (
        "from nern import hookimpl\n@hookimpl\ndef nern_losses(): return {'x': int}",
        "nern_losses offers 'x', which is not an attrs class derived from nern.Loss",
    ),
    "unfinished component": (
        "import attrs\nfrom nern import Sampler, hookimpl\n@attrs.frozen\nclass S(Sampler):\n    'S.'\n"
        "@hookimpl\ndef nern_samplers(): return {'x': S}",
        "nern_samplers offers 'x', which does not implement start",
    ),
    "loss without needs": (
        "import attrs\nfrom nern import Loss, hookimpl\n@attrs.frozen\nclass L(Loss):\n    'L.'\n"
        "@hookimpl\ndef nern_losses(): return {'x': L}",
        "nern_losses offers 'x', whose attribute 'needs' must be",
    ),
    "reserved option": (
        LOSS.replace('needs: ClassVar[str] = "weights"', 'needs: ClassVar[str] = "weights"\n    weight: float = 1.0'),
        "whose option 'weight' collides with the configuration's own key",
    ),
    "colon in a name": (LOSS.replace('{"absolute"', '{"a:b"'), "nern_losses offers 'a:b', but a name must begin with a letter"),
    "observer with a misspelled method": (
        "import attrs\nfrom nern import Observer, hookimpl\n@attrs.frozen\nclass O(Observer):\n    'O.'\n"
        "    @hookimpl\n    def nern_stop(self): pass\n@hookimpl\ndef nern_observers(): return {'x': O}",
        "nern_observers offers 'x', but there is no hook 'nern_stop', did you mean 'nern_step'?",
    ),
    "wrapper": ("from nern import hookimpl\n@hookimpl(wrapper=True)\ndef nern_losses():\n    return (yield)", "nern_losses is a wrapper"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_broken_plugin_is_named_and_in_nobodys_way(how, install, capsys):
    source, reason = BROKEN[how]
    install("nern-broken", source, version="2.1", entry="broken")
    registry = create_registry()
    assert [(f.plugin, f.package, f.version) for f in registry.failures] == [("broken", "nern-broken", "2.1")]
    assert reason in registry.failures[0].reason
    assert "\n" not in registry.failures[0].reason
    assert registry.find("loss", "kd").package == "nern"
    assert not [entry for entry in registry.entries() if entry.package == "nern-broken"]
    with pytest.raises(PluginError) as error:
        registry.find("loss", "needed")
    assert f"plugins that failed to load: broken (nern-broken 2.1): {registry.failures[0].reason}" in str(error.value)
    assert run(["plugins"]) == 0
    assert f"failed: broken (nern-broken 2.1): {registry.failures[0].reason}" in capsys.readouterr().err
    assert run(["plugins", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["failures"][0]["reason"] == registry.failures[0].reason


def test_incompatible_version(install):
    install("nern-future", LOSS, requires="nern>=99")
    assert create_registry().failures[0].reason == f"it needs nern>=99, this is nern {nern.__version__}"


def test_requirement_of_an_extra_does_not_count(install):
    install("nern-extra", LOSS, requires="nern>=99; extra == 'future'")
    assert create_registry().find("loss", "absolute").package == "nern-extra"


def test_broken_plugin_does_not_stop_a_run_that_does_not_need_it(install, experiment):
    install("nern-broken", "import a_module_that_is_not_there")
    assert nern.Engine.from_yaml(experiment()).fit().iterations == 3


def test_run_that_needs_a_broken_plugin_says_why(install, experiment, capsys):
    install("nern-broken", "import a_module_that_is_not_there", version="2.1")
    assert run(["train", str(experiment(losses={"needed": {}}))]) == 2
    shown = capsys.readouterr().err
    assert "losses.needed: no loss is called 'needed'" in shown
    assert "nern-broken (nern-broken 2.1): ModuleNotFoundError: No module named 'a_module_that_is_not_there'" in shown
    assert "Traceback" not in shown


def test_taken_entry_point_names_both_owners(install):
    install("nern-first", LOSS, entry="same")
    install("nern-second", LOSS.replace("absolute", "other"), entry="same")
    registry = create_registry()
    (failure,) = registry.failures
    taken = registry.find("loss", "absolute" if failure.package == "nern-second" else "other")
    assert failure.reason == f"the plugin name 'same' is taken by {taken.package} 1.0"


def test_conflict_is_refused_and_a_package_picks_one(install, experiment, capsys):
    install("nern-first", LOSS)
    install("nern-second", LOSS, version="3.2")
    registry = create_registry()
    with pytest.raises(PluginError) as error:
        registry.find("loss", "absolute")
    for part in ("nern-first 1.0", "nern-second 3.2", "nern-first:absolute", "nern-second:absolute"):
        assert part in str(error.value)
    assert registry.find("loss", "nern_second:absolute").version == "3.2"
    assert run(["plugins"]) == 0
    assert "conflict: loss 'absolute' is offered by" in capsys.readouterr().err
    assert run(["train", str(experiment(losses={"absolute": {}}))]) == 2
    assert "nern-first:absolute" in capsys.readouterr().err
    path = experiment("picked", losses={"mine": {"name": "nern-second:absolute"}})
    engine = nern.Engine.from_yaml(path)
    engine.fit()
    assert "name: nern-second:absolute" in engine.run.config.read_text()
    assert type(nern.Engine.from_run(engine.run.path).experiment.losses["mine"].loss).__module__ == "nern_second"


def test_conflict_with_a_builtin(install):
    install("nern-other", LOSS.replace("absolute", "kd"))
    registry = create_registry()
    with pytest.raises(PluginError, match=r"write nern:kd or nern-other:kd"):
        registry.find("loss", "kd")
    assert registry.find("loss", "nern:kd").cls.__name__ == "KnowledgeDistillation"


PREDICTOR = """
import attrs
from torch import nn
from nern import Predictor, hookimpl, option

@attrs.frozen
class Linear(Predictor):
    \"\"\"One linear layer.\"\"\"

    bias: bool = option(True, help="whether it has a bias")

    def build(self, inputs, outputs):
        return nn.Linear(inputs, outputs, self.bias)

@hookimpl
def nern_predictors():
    return {"NAME": Linear}
"""


def test_artifact_names_the_package(install, experiment, tmp_path):
    install("nern-linear", PREDICTOR.replace("NAME", "linear"))
    engine = nern.Engine.from_yaml(experiment(predictor={"name": "linear", "bias": False}))
    engine.fit()
    install("nern-rival", PREDICTOR.replace("NAME", "linear"))  # a conflict that came later
    rebuilt = nern.load(engine.run.artifact)
    assert type(rebuilt.predictor).__module__ == "nern_linear"
    assert rebuilt.predictor.bias is False
    with pytest.raises(ArtifactError, match="predictor 'linear' belongs to package 'nern-linear', which is not installed"):
        nern.load(engine.run.artifact, create_registry(disabled=["nern-linear"]))


def test_artifact_of_a_builtin_is_not_confused_by_a_later_plugin(install, experiment):
    engine = nern.Engine.from_yaml(experiment())
    engine.fit()
    install("nern-rival", PREDICTOR.replace("NAME", "mlp"))
    assert type(nern.load(engine.run.artifact).predictor).__module__.startswith("nern.builtin")


def test_disabled_by_the_environment(install, monkeypatch):
    install("nern-first", LOSS)
    install("nern-second", LOSS.replace("absolute", "other"), entry="second")
    for value, left in (("1", []), ("all", []), ("second", ["absolute"]), ("nern-first, x", ["other"]), ("", ["absolute", "other"])):
        monkeypatch.setenv("NERN_DISABLE_PLUGINS", value)
        registry = create_registry()
        assert sorted(set(registry.names("loss")) & {"absolute", "other"}) == left, value
    monkeypatch.setenv("NERN_DISABLE_PLUGINS", "second")
    with pytest.raises(PluginError, match=r"left out: second \(nern-second 1\.0\)"):
        create_registry().find("loss", "other")


def test_no_plugin_switch(install, experiment, capsys):
    install("nern-first", LOSS, entry="first")
    assert run(["plugins", "--no-plugin", "first"]) == 0
    shown = capsys.readouterr()
    assert "absolute" not in shown.out
    assert "left out: first (nern-first 1.0)" in shown.err
    assert run(["config", str(experiment(losses={"absolute": {}})), "--no-plugin", "nern-first"]) == 2
    assert "plugins that were left out: first (nern-first 1.0)" in capsys.readouterr().err
    assert run(["plugins", "--no-plugin", "frist"]) == 2
    assert capsys.readouterr().err == "nern: --no-plugin frist: there is no such plugin, did you mean 'first'?\n"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def test_local_file_and_module_beside_the_yaml(experiment, tmp_path, monkeypatch):
    write(tmp_path / "mine.py", LOSS)
    write(tmp_path / "beside" / "losses.py", LOSS.replace("absolute", "other"))
    monkeypatch.chdir("/")
    path = experiment(plugins=["./mine.py", "beside.losses"], losses={"absolute": {}, "other": {}})
    engine = nern.Engine.from_yaml(path)
    engine.fit()
    text = engine.run.config.read_text()
    assert "name: mine:absolute" in text
    assert "name: beside:other" in text


def test_two_local_files_of_one_name(experiment, tmp_path):
    write(tmp_path / "a" / "mine.py", LOSS)
    write(tmp_path / "b" / "mine.py", LOSS)
    path = experiment(plugins=["a/mine.py", "b/mine.py"], losses={"absolute": {}})
    with pytest.raises(ConfigError) as error:
        nern.Engine.from_yaml(path)
    assert f"{tmp_path / 'a' / 'mine.py'}:absolute" in str(error.value)
    picked = experiment(plugins=["a/mine.py", "b/mine.py"], losses={"x": {"name": f"{tmp_path / 'b' / 'mine.py'}:absolute"}})
    engine = nern.Engine.from_yaml(picked)
    assert str(tmp_path / "b") in engine.registry.name_of(engine.experiment.losses["x"].loss)


def test_local_plugin_that_is_missing(experiment, caplog):
    assert nern.Engine.from_yaml(experiment(plugins=["./gone.py"])).fit().iterations == 3
    assert "gone (gone local)" in caplog.text.replace("/", " ").replace(".py", "")
    assert "there is no file" in caplog.text
    with pytest.raises(ConfigError, match=r"there is no file .*gone\.py"):
        nern.Engine.from_yaml(experiment("needs", plugins=["./gone.py"], losses={"x": {}}))


def test_module_that_is_installed_and_named_is_one_plugin(install, experiment):
    install("nern-first", LOSS)
    engine = nern.Engine.from_yaml(experiment(plugins=["nern_first"], losses={"absolute": {}}))
    assert not engine.registry.failures


def test_file_of_a_local_plugin_is_read_with_the_plugin_switch(experiment, tmp_path, capsys):
    mine = write(tmp_path / "mine.py", PREDICTOR.replace("NAME", "linear"))
    engine = nern.Engine.from_yaml(experiment(plugins=["mine.py"], predictor="linear"))
    engine.fit()
    output = tmp_path / "weights.safetensors"
    assert run(["reconstruct", str(engine.run.artifact), "-o", str(output)]) == 2
    assert "predictor 'linear' belongs to package 'mine'" in capsys.readouterr().err
    for verb in (["reconstruct", "-o", str(output)], ["info"], ["evaluate"], ["export", "-o", str(output)]):
        command = [verb[0], str(engine.run.artifact), *verb[1:]]
        if verb[0] == "info":  # one of them as a user calls it
            ended = subprocess.run([sys.executable, "-m", "nern", *command], capture_output=True, text=True, check=False)
            code, said = ended.returncode, ended.stderr
        else:
            code, said = run(command), capsys.readouterr().err
        assert code == 2
        assert "a plugin in a file of your own is named with --plugin mine.py, in Python plugins=['mine.py']" in said
    assert run(["reconstruct", str(engine.run.artifact), "-o", str(output), "--plugin", str(mine)]) == 0
    assert output.exists()
    assert run(["plugins", "--plugin", str(mine)]) == 0
    assert "One linear layer." in capsys.readouterr().out


FILE_VERBS = [
    ["evaluate"], ["reconstruct", "-o", "w.safetensors"], ["export", "-o", "w.pt"], ["info"], ["prune", "--ratios", "0.5", "-o", "pruned"],
    ["importance", "-o", "importance"], ["compare"], ["report", "-o", "page.html"], ["plot errors", "-o", "errors.svg"],
    ["plot kernels", "-o", "kernels.svg"],
]  # fmt: skip


def test_every_verb_on_a_file_of_a_local_plugin_says_how_to_name_it_and_a_run_folder_knows(experiment, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mine.py", PREDICTOR.replace("NAME", "linear"))
    engine = nern.Engine.from_yaml(experiment(plugins=["mine.py"], predictor="linear"))
    engine.fit()
    alone = tmp_path / "alone.nern"
    alone.write_bytes(engine.run.artifact.read_bytes())
    capsys.readouterr()
    for verb, *options in FILE_VERBS:
        command = [*verb.split(), str(alone), *options]
        assert run(command) == 2, verb
        said = capsys.readouterr().err
        assert "named with --plugin mine.py" in said, (verb, said)
        assert len(said.splitlines()) == 1, (verb, said)
    for verb in ("info", "reconstruct"):
        options = next(rest for name, *rest in FILE_VERBS if name == verb)
        assert run([verb, str(alone), *options, "--plugin", "mine.py"]) == 0
        assert run([verb, str(engine.run.path), *options]) == 0, capsys.readouterr().err  # whose configuration names the plugin


@pytest.mark.parametrize("verb", ["train", "config", "sweep", "pretrain"])
def test_an_experiment_that_needs_a_local_plugin_says_how_to_name_it(verb, experiment, tmp_path, capsys):
    write(tmp_path / "mine.py", PREDICTOR.replace("NAME", "linear"))
    path = experiment(predictor="mine:linear")
    command = [verb, str(path), *(["seed=0,1"] if verb == "sweep" else []), *(["-o", str(tmp_path / "w.pt")] if verb == "pretrain" else [])]
    assert run(command) == 2
    assert "--plugin mine.py" in capsys.readouterr().err
