"""Observers from outside: one that breaks is switched off alone, and an old-style one keeps working."""

from __future__ import annotations

import logging
import signal
from pathlib import Path

import attrs
import pytest

import nern
from nern.errors import Interrupted, PluginError

MODULE = """
from pathlib import Path
from nern import hookimpl

seen = []

@hookimpl
def nern_run_started(run_dir, total):
    seen.append(("started", total))

@hookimpl
def nern_step(iteration):  # the hook offers more
    seen.append(("step", iteration))
    BREAK

@hookimpl
def nern_run_finished(error):
    seen.append(("finished", error))
"""


def calls(module: str) -> list:
    import sys

    return sys.modules[module].seen


def test_old_style_plugin_takes_fewer_arguments(install, experiment):
    install("nern-old", MODULE.replace("BREAK", ""))
    nern.Engine.from_yaml(experiment()).fit()
    assert calls("nern_old") == [("started", 3), ("step", 1), ("step", 2), ("step", 3), ("finished", None)]


def test_failing_observer_is_switched_off_with_one_warning(install, experiment, caplog):
    install("nern-bad", MODULE.replace("BREAK", "raise OSError('no space')"), version="0.3")
    install("nern-good", MODULE.replace("BREAK", ""))
    engine = nern.Engine.from_yaml(experiment())
    with caplog.at_level(logging.WARNING, "nern"):
        result = engine.fit()
    assert result.iterations == 3
    (message,) = [record.getMessage() for record in caplog.records if record.name == "nern"]
    assert message.startswith("nern: nern-bad is switched off for the rest of the run: nern_step raised OSError: no space (")
    assert "nern_bad.py, line " in message
    assert calls("nern_bad") == [("started", 3), ("step", 1)]
    assert ("finished", None) in calls("nern_good")
    assert [(f.package, f.version) for f in engine.registry.failures] == [("nern-bad", "0.3")]


def test_failing_observer_is_called_again_in_the_next_run(install, experiment, tmp_path):
    install("nern-bad", MODULE.replace("BREAK", "raise ValueError"))
    engine = nern.Engine.from_yaml(experiment("one"))
    engine.fit()
    nern.Engine(attrs.evolve(engine.experiment, output=str(tmp_path / "two")), engine.registry).fit()
    assert [name for name, _ in calls("nern_bad")] == ["started", "step"] * 2


def test_observer_may_stop_the_run(install, experiment):
    install("nern-stop", MODULE.replace("BREAK", "import nern; raise nern.Interrupted('enough')"))
    with pytest.raises(Interrupted, match="enough"):
        nern.Engine.from_yaml(experiment()).fit()
    assert isinstance(calls("nern_stop")[-1][1], Interrupted)


OBSERVER = """
import attrs
from nern import Observer, hookimpl, option

@attrs.frozen
class Writer(Observer):
    \"\"\"Writes a line for every report.\"\"\"

    path: str = option(help="file to write")

    @hookimpl
    def nern_step(self, iteration, losses):
        with open(self.path, "a") as file:
            file.write(f"{iteration} {sorted(losses)}\\n")

@hookimpl
def nern_observers():
    return {"writer": Writer}
"""


def test_observer_from_the_configuration(install, experiment, tmp_path):
    install("nern-writer", OBSERVER)
    nern.Engine.from_yaml(experiment(observers={"progress": None, "writer": {"path": str(tmp_path / "lines")}})).fit()
    assert (tmp_path / "lines").read_text() == "".join(f"{step} ['reconstruction', 'total']\n" for step in (1, 2, 3))


def test_configured_observer_that_fails_is_named_by_its_label(install, experiment, tmp_path, caplog):
    install("nern-writer", OBSERVER)
    observers = {"progress": None, "lines": {"name": "writer", "path": str(tmp_path / "no" / "folder")}}
    assert nern.Engine.from_yaml(experiment(observers=observers)).fit().iterations == 3
    assert "observer lines (nern-writer:writer) is switched off for the rest of the run: nern_step raised FileNotFoundError" in caplog.text


def test_same_observer_twice_is_refused(install, experiment, tmp_path):
    install("nern-writer", OBSERVER)
    writer = {"name": "writer", "path": str(tmp_path / "lines")}
    engine = nern.Engine.from_yaml(experiment(observers={"progress": None, "a": writer, "b": writer}))
    with pytest.raises(PluginError, match="observer 'b' cannot watch the run"):
        engine.fit()
    assert not engine.registry.manager.has_plugin("observer a")


def test_ctrl_c_in_an_observer_is_the_users(install, experiment):
    install("nern-slow", MODULE.replace("BREAK", "import os, signal; os.kill(os.getpid(), signal.SIGINT)"))
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted):
        nern.Engine.from_yaml(experiment()).fit()
    assert signal.getsignal(signal.SIGINT) is before


def test_folder_argument_is_a_path(install, experiment):
    install("nern-paths", MODULE.replace('("started", total)', '("started", run_dir)').replace("BREAK", ""))
    engine = nern.Engine.from_yaml(experiment())
    engine.fit()
    assert calls("nern_paths")[0] == ("started", Path(engine.run.path))
