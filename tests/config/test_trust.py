"""Values mean what they look like, and whatever a file holds, only a ConfigError comes out."""

from __future__ import annotations

import ast
import os
from pathlib import Path
from typing import Any

import pytest

from nern import ConfigError
from nern.cli.arguments import expanded_argument
from nern.config.loading import load_experiment
from nern.config.overrides import parse_override
from nern.config.structuring import to_yaml
from nern.config.yaml_reading import LONGEST, read_yaml, write_yaml
from tests.conftest import SHARED

CASES = SHARED / "cases" / "hostile"
EXPERIMENT = "architecture: {name: cifar-resnet, depth: 8}\ntask: uniform-noise\nphases: [{iterations: 3}]\n"
OWN = "phases: [{iterations: 3, name: one, sampler: uniform}, {iterations: 3, name: two, sampler: uniform}]\n"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10), ("0o10", 8), ("0x1F", 31), ("-7", -7), ("1:30", "1:30"), ("1_000", "1_000"), ("yes", "yes"), ("off", "off"),
        ("2024-01-01", "2024-01-01"), ("1e-4", 1e-4), ("1.e3", 1000.0), ("True", True), ("~", None), ("''", ""),
    ],
)  # fmt: skip
def test_words_and_numbers_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    read = read_yaml(text, "x")
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize("value", ["010", "1e-4", "0o17", "1:30", "yes", "null", "~", "a: b", "2024-01-01", "0x1F", ".inf", "<<", ""])
def test_text_that_looks_like_something_else_is_written_so_that_it_stays_text(value: str) -> None:
    assert read_yaml(write_yaml({"a": value}), "x") == {"a": value}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: !!int x", "x:1:4: 'x' is not !!int"),
        ("a: !!float ''", "x:1:4: '' is not !!float"),
        ("a: !!bool x", "x:1:4: 'x' is not !!bool"),
        ("a: !!timestamp x", "tag"),
        ("a: !!python/name:os.system", "tag"),
        ("1: a", "x:1:1: the key 1 must be a word"),
        ("{null: a}", "the key null must be a word"),
        ("a: " + "1" * 5000, "x:1:4: '1+'… is a number of too many digits"),
        ('a: "b\\0c"', "x:1:4: text must not hold the character NUL"),
        ("a:\tb", "x:1:3: there is a tab, where YAML allows spaces alone"),
        ("a: @b", "x:1:4: found character '@' that cannot start any token; put such text in quotes"),
        ('a: "C:\\data"', "found unknown escape character 'd'; between double quotes a backslash begins an escape, between single quotes"),
        ("a: 1\n---\na: 2", "x:2:1: a line --- begins another document; a configuration is one document"),
        ("[" * 1000, "x:1:41: values are nested more than 40 deep"),
        ("a: &a [*a]", "x:1:8: an alias repeats the value that it stands in"),
        ("a: &a {b: {c: *a}}", "an alias repeats the value that it stands in"),
        ("a0: &a0 x\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)), "more than 100,000"),
        ("x" * (LONGEST + 1), "at most 200,000 characters"),
    ],
)
def test_bombs_and_impossible_values_are_refused_with_their_place(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_yaml(text, "x")


def test_aliases_and_merged_mappings_are_read() -> None:
    assert read_yaml("a: &a {b: 1}\nc: {<<: *a, d: 2}\ne: [*a, *a]", "x") == {"a": {"b": 1}, "c": {"b": 1, "d": 2}, "e": [{"b": 1}] * 2}


def test_home_and_variables_begin_paths_in_files_overrides_and_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DATA", "/data")
    file = tmp_path / "e.yaml"
    file.write_text(EXPERIMENT.replace("depth: 8", "depth: 8, weights: ~/w.pth").replace("uniform-noise", "{name: cifar10, root: $DATA/c}"))
    experiment, registry = load_experiment(file, ["output=~/runs/x"])
    assert experiment.architecture.weights == f"{tmp_path}/w.pth" and experiment.output == f"{tmp_path}/runs/x"
    assert experiment.task.root == "/data/c"  # type: ignore[attr-defined]
    assert "~" not in to_yaml(experiment, registry)
    monkeypatch.chdir("/")
    assert load_experiment("~/e.yaml")[0].phases[0].iterations == 3
    for text, value in [
        ("~/x", f"{tmp_path}/x"), ("--output=$HOME/x", f"--output={tmp_path}/x"), ("a.b=${DATA}/y", "a.b=/data/y"), ("a=b~/c", "a=b~/c"),
        ("a={b: ~/c}", "a={b: ~/c}"), ("~", str(tmp_path)), ("a$b/c", "a$b/c"),
    ]:  # fmt: skip
        assert expanded_argument(text) == value
    for wrong in ("~nobody-of-this-name/x", "$NO_SUCH_VARIABLE/x"):
        with pytest.raises(ConfigError, match=f"output: begins with .*{wrong[1:9]}"):
            load_experiment(file, {"output": wrong})


@pytest.mark.parametrize("section", ["embedding", "predictor", "sampler", "optimizer", "losses"])
def test_null_does_not_mean_the_default(section: str, tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(f"{EXPERIMENT}{section}: null\n")
    with pytest.raises(ConfigError, match=rf"{section}: must not be null, leave the key out for the default \("):
        load_experiment(tmp_path / "e.yaml")


def test_null_switches_off_what_can_be_off(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(f"{EXPERIMENT}smoother: null\nobservers: null\n")
    experiment, registry = load_experiment(tmp_path / "e.yaml")
    assert registry.name_of(experiment.smoother) == "none" and experiment.observers == {}
    assert list(load_experiment(tmp_path / "e.yaml", ["losses.kd=null"])[0].losses) == ["reconstruction", "fmd"]


@pytest.mark.parametrize("override", ["sampler=all", "sampler.batch=3"])
def test_an_override_that_every_phase_replaces_is_refused(override: str, tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(EXPERIMENT.replace("phases: [{iterations: 3}]\n", OWN))
    path = override.partition("=")[0]
    with pytest.raises(ConfigError, match=rf"override {path} has no effect.*; set phases\.one\.{path} or phases\.two\.{path}$"):
        load_experiment(tmp_path / "e.yaml", [override])
    load_experiment(tmp_path / "e.yaml", ["phases.one.sampler=all", "optimizer.lr=0.1"])
    load_experiment(tmp_path / "e.yaml", ["sampler=all", "phases.two.sampler=null"])  # one phase takes it
    (tmp_path / "f.yaml").write_text(f"extends: e.yaml\nset: {{{override.replace('=', ': ')}}}\n")
    with pytest.raises(ConfigError, match=rf"set: {path} has no effect"):
        load_experiment(tmp_path / "f.yaml")


def test_a_configuration_that_is_no_file_to_read_is_called_so(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    for name, message in (
        ("pipe", "no ordinary file"),
        ("folder", "no ordinary file"),
        ("bytes", "it is no text in UTF-8; save it as UTF-8"),
        ("none", "does not exist"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_experiment(tmp_path / f"{name}.yaml")
    for reference in ("x" * 5000, "a\0b", "a\0b.yaml", "x" * 5000 + ".yaml"):
        with pytest.raises(ConfigError):
            load_experiment(reference)


@pytest.mark.parametrize("overrides", [{"output": "a\0b"}, {1: 2}, {".".join("a" * 100): 1}, {"optimizer.lr": 10**400}, {"seed": 10**30}])
def test_values_from_python_are_checked_like_those_of_a_file(overrides: dict[Any, Any], tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(EXPERIMENT)
    with pytest.raises(ConfigError):
        load_experiment(tmp_path / "e.yaml", overrides)


def test_values_nested_without_end_are_refused(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(EXPERIMENT)
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ConfigError):
        load_experiment(tmp_path / "e.yaml", {"phases": endless})


@pytest.mark.skipif(not CASES.is_dir(), reason="needs ../shared/cases/hostile")
def test_hostile_files_end_in_one_clear_line() -> None:
    for file in [CASES / "alias-bomb.yaml", *sorted((CASES / "yaml").glob("*.yaml"))]:
        last = (file.read_text().splitlines() or [""])[-1]
        given = ast.literal_eval(last.removeprefix("# overrides: ")) if last.startswith("# overrides: ") else {}
        try:
            overrides = dict(parse_override(f"{path}={value}") for path, value in given.items())
            experiment, registry = load_experiment(file, overrides)
        except ConfigError as error:
            assert all(len(line) < 500 for line in str(error).splitlines())
        else:
            to_yaml(experiment, registry)
