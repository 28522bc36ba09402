"""Where a configuration comes from: YAML, presets, dotted overrides."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from nern.config.defaults import DEFAULTS
from nern.config.overrides import apply_overrides, parse_override
from nern.config.sources import read_source
from nern.config.yaml_reading import read_yaml
from nern.errors import ConfigError

VALUES: dict[str, Any] = {
    "predictor": {"name": "mlp", "hidden": 160, "layers": 5},
    "task": {"name": "cifar10", "root": "/data", "augment": "flip"},
    "phases": [{"name": "first", "iterations": 5}, {"name": "second", "iterations": 6, "optimizer": {"name": "adamw", "lr": 0.1}}],
}


def overridden(*texts: str) -> dict[str, Any]:
    return apply_overrides(VALUES, dict(parse_override(text) for text in texts), DEFAULTS)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4), ("1.5E3", 1500.0), ("-2e0", -2.0), (".5e1", 5.0), ("0.1", 0.1), ("7", 7), ("true", True), ("null", None),
        ("", None), ("[1, a]", [1, "a"]), ("{a: 1}", {"a": 1}), ("1e", "1e"), ("e4", "e4"), ("runs/x=y", "runs/x=y"),
    ],
)  # fmt: skip
def test_values_are_read_as_yaml_with_every_way_to_write_a_number(text: str, value: object) -> None:
    assert parse_override(f"a.b={text}") == ("a.b", value)


@pytest.mark.parametrize("text", ["predictor.hidden", "=3", " =3"])
def test_an_override_needs_a_path_and_an_equals_sign(text: str) -> None:
    with pytest.raises(ConfigError, match=r"must look like key\.sub=value"):
        parse_override(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", r"x\.yaml:\d+:\d+: "),
        ("a: 1\na: 2", r"x\.yaml:2:1: the key 'a' appears twice"),
        ("? [a, b]\n: 1", r"x\.yaml:1:3: a key must be a word"),
        ("a: !!python/object/apply:os.getcwd []", r"x\.yaml:1:4: could not determine a constructor"),
        ("a: \x00", r"x\.yaml: "),
    ],
    ids=["syntax", "twice", "key", "code", "nul"],
)
def test_errors_in_yaml_name_the_file_and_the_place(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_yaml(text, "x.yaml")


def test_overrides_leave_the_values_they_start_from_alone() -> None:
    before = repr(VALUES)
    overridden("predictor.hidden=3", "phases.0.iterations=9", "phases.1.optimizer.lr=1")
    assert repr(VALUES) == before


def test_lists_are_entered_by_position_or_name() -> None:
    assert overridden("phases.0.iterations=9")["phases"][0]["iterations"] == 9
    assert overridden("phases.second.optimizer.lr=9")["phases"][1]["optimizer"] == {"name": "adamw", "lr": 9}
    for path in ("phases.2.iterations", "phases.third.iterations", "phases.-1.iterations"):
        with pytest.raises(ConfigError, match=r"the list has no entry '.*' \(there are: 0 to 1, first, second\)"):
            overridden(f"{path}=1")


def test_another_name_drops_the_options_of_the_old_component() -> None:
    assert overridden("predictor.name=skip-mlp")["predictor"] == {"name": "skip-mlp"}
    assert overridden("predictor.name=mlp")["predictor"] == VALUES["predictor"]
    assert overridden("task.name=image-folder")["task"] == {"name": "image-folder", "root": "/data"}
    assert overridden("phases.1.optimizer.name=sgd")["phases"][1]["optimizer"] == {"name": "sgd"}


@pytest.mark.parametrize(
    ("texts", "section", "expected"),
    [
        (("predictor.name=skip-mlp", "predictor.hidden=3"), "predictor", {"name": "skip-mlp", "hidden": 3}),
        (("task=digits", "task.root=/x"), "task", {"name": "digits", "root": "/x"}),
        (("losses={kd: {}}", "losses.kd.weight=2"), "losses", {"kd": {"weight": 2}}),
        (("sampler.batch=3", "sampler.name=uniform"), "sampler", {"name": "uniform", "batch": 3}),
    ],
)
def test_the_order_of_overrides_does_not_matter(texts: tuple[str, ...], section: str, expected: object) -> None:
    for order in permutations((*texts, "seed=4")):
        values = overridden(*order)
        assert values[section] == expected
        assert values["seed"] == 4


def test_a_section_that_is_left_out_starts_from_the_defaults() -> None:
    assert overridden("losses.kd.weight=2")["losses"] == {**DEFAULTS["losses"], "kd": {"weight": 2}}
    assert DEFAULTS["losses"]["kd"] == {"weight": 1e-4}


def test_a_path_through_a_value_is_refused() -> None:
    for path, message in (("seed.x", "'seed' is an int"), ("predictor.hidden.x.y", r"'predictor\.hidden' is an int")):
        with pytest.raises(ConfigError, match=message):
            apply_overrides({**VALUES, "seed": 1}, {path: 1}, DEFAULTS)


def test_a_wrong_reference_says_what_is_near(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no preset and no YAML file called 'digit', did you mean 'digits'\?"):
        read_source("digit")
    with pytest.raises(ConfigError, match="no preset and no YAML file called 'qqqq'"):
        read_source("qqqq")
    with pytest.raises(ConfigError, match=r"cannot read the configuration .*x\.yaml: it does not exist"):
        read_source(tmp_path / "x.yaml")


def test_files_that_hold_no_mapping_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    for content, kind in ((b"", "nothing"), (b"- 1\n", "a list"), (b"digits", r"text \('digits'\)")):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=f"an experiment is a mapping of keys .*, got {kind}"):
            read_source(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        read_source(path)


def test_a_file_gives_its_name_and_its_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("seed: 3\n")
    source = read_source(tmp_path / "mine.yaml")
    assert (source.name, source.folder, source.values) == ("mine", tmp_path, {"seed": 3})
