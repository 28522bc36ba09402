"""The verbs that show what there is: presets, experiments, plugins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from nern import Engine
from nern.cli.main import _reported
from nern.config.loading import load_experiment
from nern.config.sources import presets
from nern.registry.discovery import create_registry
from nern.registry.registry import KINDS
from nern.studies.report.measured import measured
from tests.cli.mistakes import Capture
from tests.helpers import command_line


def test_presets_lists_a_line_for_each_experiment_or_family_and_fits_a_screen(capsys: Capture) -> None:
    assert command_line("presets") == 0
    out, err = capsys.readouterr()
    names = [line.split()[0] for line in out.splitlines()]
    assert names == list(dict.fromkeys(f"{name.partition('/')[0]}/" if "/" in name else name for name in presets()))
    assert all(len(line.split()) > 2 for line in out.splitlines())
    assert len(names) <= 40
    assert "nern presets NAME" in err


def test_presets_of_a_family_are_listed_one_a_line(capsys: Capture) -> None:
    assert command_line("presets", "table1") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [n for n in presets() if n.startswith("table1/")]


def test_presets_show_what_was_measured(capsys: Capture) -> None:
    known = measured()
    assert command_line("presets", "table1") == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert all((f"{known[name]};" in line) if name in known else (" min;" not in line) for name, line in lines.items())
    assert command_line("presets") == 0
    (family,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("table1/")]
    assert f"{len(lines)} experiments, {len(known.keys() & lines.keys()) or 'none'} of them measured" in family
    assert command_line("presets", "table1", "--json") == 0
    listed = {preset["name"]: preset["measured"] for preset in json.loads(capsys.readouterr().out)["presets"]}
    assert {name for name, value in listed.items() if value} == known.keys() & lines.keys()


def test_a_run_of_a_row_ends_with_what_the_paper_and_the_page_have() -> None:
    def told(preset: str, **overrides: str) -> list[str]:
        return _reported(Engine.from_yaml(preset, {key.replace("__", "."): value for key, value in overrides.items()}))

    known = measured()["table1/resnet20-cross-filter-160-fast"]
    paper, page = told("table1/resnet20-cross-filter-160-fast", task__root="images", architecture__weights="w.th")
    assert "91.04 ± 0.07 of 91.69" in paper
    assert str(known) in page and page.endswith("(nern train table1/resnet20-cross-filter-160-fast)")
    assert told("digits") == []


def test_a_preset_is_printed_ready_to_edit(capsys: Capture, tmp_path: Path) -> None:
    assert command_line("presets", "digits") == 0
    text = capsys.readouterr().out
    assert text == presets()["digits"]
    assert "# " in text.splitlines()[0]
    (tmp_path / "digits.yaml").write_text(text)
    registry = create_registry(entry_points=False)
    assert load_experiment(tmp_path / "digits.yaml", registry=registry)[0] == load_experiment("digits", registry=registry)[0]


def test_config_prints_what_train_would_run_and_writes_nothing(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert command_line("config", "predictor.hidden=140", "resnet20-cifar10", "seed=5") == 2  # the experiment comes first
    capsys.readouterr()
    assert command_line("config", "resnet20-cifar10", "predictor.hidden=140", "seed=5") == 2
    first, err = capsys.readouterr()
    assert [line.split(":")[1] for line in err.splitlines()] == [" task.root", " architecture.weights is missing"]
    assert command_line("config", "resnet20-cifar10", "seed=5", "predictor.hidden=140") == 2
    assert capsys.readouterr().out == first
    values = yaml.safe_load(first)
    assert (values["predictor"]["hidden"], values["seed"], values["output"]) == (140, 5, "runs/resnet20-cifar10")
    assert {
        "architecture",
        "embedding",
        "predictor",
        "sampler",
        "smoother",
        "losses",
        "task",
        "optimizer",
        "phases",
        "seed",
        "device",
        "output",
    } <= values.keys()
    assert {"name", "weights", "depth", "shortcut", "classes"} <= values["architecture"].keys()
    assert {"name", "root"} <= values["task"].keys()
    assert list(tmp_path.iterdir()) == []


def test_plugins_lists_every_component_with_its_options(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NERN_DISABLE_PLUGINS", "1")
    assert command_line("plugins", "--json") == 0
    listed = json.loads(capsys.readouterr().out)["components"]
    registry = create_registry(entry_points=False)
    assert {(c["kind"], c["name"]) for c in listed} == {(e.kind, e.name) for e in registry.entries()}
    assert {c["kind"] for c in listed} == set(KINDS)
    for component in listed:
        assert component["package"] == "nern"
        assert component["version"]
        assert component["summary"]
    (mlp,) = [c for c in listed if (c["kind"], c["name"]) == ("predictor", "mlp")]
    hidden = next(o for o in mlp["options"] if o["name"] == "hidden")
    assert (hidden["type"], hidden["required"]) == ("int", False)
    assert command_line("plugins") == 0
    out = capsys.readouterr().out
    assert all(component["summary"] in out for component in listed)
