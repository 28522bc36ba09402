from __future__ import annotations

import json
import shlex

import pytest

from benchmarks import rows
from nern import Engine
from nern.config.overrides import parse_override
from nern.errors import ConfigError

SMALL = ["architecture.width=2", "pretrain.epochs=1", "phases.0.iterations=3", "phases.1.iterations=2"]


def test_patterns_choose_presets_in_the_order_of_the_tables():
    names = rows.matching(["table7/*-fast", "table1/resnet20-*-140"])
    assert names == [
        "table1/resnet20-cross-filter-140", "table1/resnet20-in-filter-140",
        "table7/all-fast", "table7/magnitude-fast", "table7/random-layer-fast", "table7/uniform-fast",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="there is no preset and no YAML file called 'tabel1/\\*'"):
        rows.matching(["tabel1/*"])


def test_results_hold_no_path_of_this_machine(tmp_path):
    words = ["digits", *SMALL, "--seeds", "0,2", "--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results"), "threads=1"]
    assert rows.main(words) == 0
    files = sorted((tmp_path / "results").iterdir())
    assert len(files) == 2
    assert files[0].name.startswith("digits.seed0.")  # with a hash: values were overridden
    kept = json.loads(files[1].read_text())
    original = json.loads((tmp_path / "runs" / "digits" / "seed=2" / "result.json").read_text())
    assert str(tmp_path) not in files[1].read_text()
    assert kept["command"] == f"nern train digits {' '.join(SMALL)} seed=2"
    assert (kept["preset"], kept["seed"]) == ("digits", 2)
    assert {key: kept[key] for key in ("reconstructed_top1", "bytes", "seconds")} == {
        key: original[key] for key in ("reconstructed_top1", "bytes", "seconds")
    }
    before = files[1].stat().st_mtime_ns, (tmp_path / "runs" / "digits" / "seed=2" / "result.json").stat().st_mtime_ns
    assert rows.main(words) == 0  # what is finished is not run again
    assert (tmp_path / "runs" / "digits" / "seed=2" / "result.json").stat().st_mtime_ns == before[1]


def test_rows_without_results_come_first_and_second_seeds_after_all_first_ones(tmp_path):
    for name in ("table7.all-fast.seed0.json", "table7.uniform-fast.seed1.json", "table7.magnitude-fast.seed0.f00d.json"):
        preset = name.partition(".seed")[0].replace(".", "/")
        (tmp_path / name).write_text(json.dumps({"preset": preset, "overrides": {}, "configuration": rows.configuration(preset, {})}))
    before = {**rows.configuration("table7/random-layer-fast", {}), "seed": 1}  # the preset has had other values since
    old = {"preset": "table7/random-layer-fast", "overrides": {}, "configuration": before}
    (tmp_path / "table7.random-layer-fast.seed0.json").write_text(json.dumps(old))
    presets = ["table7/all-fast", "table7/magnitude-fast", "table7/random-layer-fast", "table7/uniform-fast"]
    assert rows.queue(presets, [0, 1], {"threads": 1}, tmp_path) == [
        ("table7/all-fast", 0), ("table7/uniform-fast", 1),  # are there already, which costs nothing to see
        ("table7/random-layer-fast", 0),
        ("table7/all-fast", 1), ("table7/magnitude-fast", 0), ("table7/random-layer-fast", 1), ("table7/uniform-fast", 0),
        ("table7/magnitude-fast", 1),
    ]  # fmt: skip


def test_two_rows_side_by_side_are_the_runs_they_would_be_alone(tmp_path):
    words = ["digits", *SMALL, "--seeds", "0,1", "--runs", str(tmp_path / "runs"), "--results", str(tmp_path), "threads=1"]
    assert rows.main([*words, "--jobs", "2"]) == 0
    kept = {json.loads(file.read_text())["seed"]: json.loads(file.read_text()) for file in tmp_path.glob("*.json")}
    assert sorted(kept) == [0, 1]
    overrides = dict(parse_override(word) for word in [*SMALL, "threads=1"])
    alone = Engine.from_yaml("digits", {**overrides, "seed": 1, "output": str(tmp_path / "alone")}).fit()
    assert kept[1]["reconstructed_top1"] == alone.reconstructed_top1
    assert kept[1]["checkpoints"] == json.loads((tmp_path / "alone" / "result.json").read_text())["checkpoints"]


def test_paths_become_placeholders_in_a_result():
    result = dict.fromkeys(
        ("original_top1", "reconstructed_top1", "seconds", "iterations", "bytes", "checkpoints", "smoothness", "environment"), 1
    )
    overrides = {"task.root": "/data", "architecture.weights": "/w.th", "device": "cuda", "predictor.hidden": 99}
    kept = rows.record("table7/all", 3, overrides, result)
    assert kept["command"] == "nern train table7/all task.root=DIR architecture.weights=FILE predictor.hidden=99 seed=3"
    assert kept["overrides"] == {"predictor.hidden": 99}
    spaced = rows.record("table7/all", 3, {"embedding": {"name": "fourier", "alone": 0.5}}, result)
    assert shlex.split(spaced["command"]) == ["nern", "train", "table7/all", "embedding={name: fourier, alone: 0.5}", "seed=3"]
    plain = rows.record("table7/all", 3, {"task.root": "/data"}, result)
    assert rows.result_file(rows.RESULTS, plain).name == "table7.all.seed3.json"


def test_a_result_says_which_values_of_its_preset_were_changed_afterwards():
    kept = {"preset": "table7/uniform-fast", "overrides": {}, "configuration": rows.configuration("table7/uniform-fast", {})}
    assert rows.changed_since(kept) == []
    kept["configuration"]["phases"][0]["iterations"] += 1
    del kept["configuration"]["smoother"]
    assert rows.changed_since(kept) == ["phases.0.iterations", "smoother"]
    gone = {"preset": "table7/no-longer-there", "overrides": {}, "configuration": {"predictor": {"name": "mlp"}}}
    assert rows.changed_since(gone) == ["predictor"]
    assert "predictor" in rows.changed_since({"preset": "table7/uniform-fast", "overrides": {}})  # written before results had values
    with_recipe = rows.configuration("resnet20-cifar10-fast", {"recipe": "fast"})  # values of a recipe count, too
    assert with_recipe["phases"][0]["iterations"] == 10_000
    with_recipe["phases"][0]["iterations"] += 1
    old = {"preset": "resnet20-cifar10-fast", "overrides": {"recipe": "fast"}, "configuration": with_recipe}
    assert rows.changed_since(old) == ["phases.0.iterations"]


def test_an_experiment_that_stands_in_two_tables_is_run_once(tmp_path, capsys):
    there = {"preset": "table6/reconstruction-kd-fmd-fast", "seed": 3, "overrides": {}, "reconstructed_top1": 91.0, "original_top1": 91.7}
    there |= dict.fromkeys(("seconds", "iterations", "checkpoints", "smoothness", "environment"), 1)
    there |= {"bytes": {"total": 5}, "configuration": rows.configuration("table6/reconstruction-kd-fmd-fast", {})}
    (tmp_path / "table6.reconstruction-kd-fmd-fast.seed3.json").write_text(json.dumps(there))
    words = ["table1/resnet20-cross-filter-160-fast", "--seeds", "3", "--runs", str(tmp_path / "runs"), "--results", str(tmp_path)]
    assert rows.main(words) == 0
    assert "91.00 of 91.70 %, 5 bytes (the same experiment as table6/reconstruction-kd-fmd-fast)" in capsys.readouterr().err
    kept = json.loads((tmp_path / "table1.resnet20-cross-filter-160-fast.seed3.json").read_text())
    assert (kept["preset"], kept["reconstructed_top1"]) == ("table1/resnet20-cross-filter-160-fast", 91.0)
    assert kept["command"] == "nern train table1/resnet20-cross-filter-160-fast seed=3"
    assert rows.same_experiment("table1/resnet20-cross-filter-140-fast", 3, {}, tmp_path) is None
    assert rows.same_experiment("table1/resnet20-cross-filter-160-fast", 4, {}, tmp_path) is None
    assert rows.same_experiment("table1/resnet20-cross-filter-160-fast", 3, {"storage": "int8"}, tmp_path) is None


def test_a_row_that_fails_does_not_stop_the_others(tmp_path, capsys):
    words = ["table7/all", "digits", *SMALL, "--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    assert rows.main(words) == 1  # table7/all has no phase 1, and no images
    assert "table7/all seed=0: phases.1.iterations: the list has no entry '1'" in capsys.readouterr().err
    assert len(list((tmp_path / "results").iterdir())) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["digits", "predictor.hidden=1,2"], "predictor.hidden: takes one value here"),
        (["digits", "--seeds", "x"], "invalid literal"),
        (["nothing"], "there is no preset"),
    ],
)
def test_mistakes_in_the_words_of_the_command_are_named(words, message, capsys):
    assert rows.main(words) == 2
    assert message in capsys.readouterr().err
