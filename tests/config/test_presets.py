from __future__ import annotations

import pytest
import yaml

from nern.cli.main import run
from nern.config.loading import load_experiment
from nern.config.sources import presets
from nern.errors import ConfigError
from nern.registry.discovery import create_registry

REGISTRY = create_registry(entry_points=False)
PRESETS = presets()

#: How many rows each table of the paper has; Table 6's two combinations that the paper leaves out are ours.
ROWS = {1: 12, 2: 3, 3: 4, 4: 8, 5: 6, 6: 3 + 2, 7: 4, 10: 8, 11: 9, 12: 8, 13: 3}


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_valid_and_its_printed_yaml_is_the_same_experiment(name, tmp_path):
    experiment, _ = load_experiment(name, registry=REGISTRY)
    copy = tmp_path / "copy.yaml"
    copy.write_text(PRESETS[name], encoding="utf-8")
    again, _ = load_experiment(copy, {"output": experiment.output}, registry=REGISTRY)
    assert again == experiment
    first = PRESETS[name].splitlines()[0]
    assert first == f"# {PRESETS.summary(name)}"


@pytest.mark.parametrize(("table", "count"), ROWS.items())
def test_every_row_of_a_table_is_there_with_a_fast_recipe(table, count):
    names = [name for name in PRESETS if name.startswith(f"table{table}/")]
    assert len([name for name in names if not name.endswith("-fast")]) == count
    assert len([name for name in names if name.endswith("-fast")]) == count


@pytest.mark.parametrize(
    ("name", "depth", "hidden", "steps", "smoother", "distillation"),
    [  # reference: the paper's sections 4.1 to 4.5 and its published configurations; distillation: α = β and its warm-up
        ("table1/resnet20-cross-filter-160", 20, 160, 70000, "cross-filter", (1e-4, 0)),
        ("table1/resnet56-in-filter-240", 56, 240, 70000, "in-filter", (1e-5, 10000)),
        ("table2/resnet56-in-filter-400", 56, 400, 90000, "in-filter", (1e-5, 10000)),
        ("table5/resnet20-140", 20, 140, 70000, "none", (1e-4, 0)),
        ("table10/resnet56-5e-06-240", 56, 240, 70000, "none", (1e-5, 10000)),
    ],
)
def test_the_papers_recipes(name, depth, hidden, steps, smoother, distillation):
    experiment, registry = load_experiment(name, registry=REGISTRY)
    assert (experiment.architecture.depth, experiment.predictor.hidden) == (depth, hidden)
    assert [(phase.iterations, phase.batch) for phase in experiment.phases] == [(steps, 256)]
    assert registry.name_of(experiment.smoother) == smoother
    terms = {name: (term.weight, term.warmup) for name, term in experiment.losses.items()}
    assert terms == {"reconstruction": (1.0, 0), "kd": distillation, "fmd": distillation}
    assert (experiment.sampler.batch, experiment.sampler.uniform) == (4096, 0.8)
    assert (registry.name_of(experiment.optimizer), experiment.optimizer.lr) == ("ranger", 5e-3)


def test_the_papers_recipe_for_imagenet():
    experiment, registry = load_experiment("table3/resnet18-cross-filter-1256", registry=REGISTRY)
    architecture = experiment.architecture
    assert (registry.name_of(architecture), architecture.depth, architecture.builder) == ("imagenet-resnet", 18, "resnet18")
    assert [(phase.iterations, phase.batch) for phase in experiment.phases] == [(160000, 32)]
    terms = {name: (term.weight, term.warmup) for name, term in experiment.losses.items()}
    assert terms == {"reconstruction": (1.0, 0), "kd": (1e-6, 20000), "fmd": (1e-6, 20000)}
    assert (experiment.predictor.hidden, experiment.sampler.batch) == (1256, 2**16)
    squeezenet, _ = load_experiment("table13/squeezenet-in-filter-360", registry=REGISTRY)
    assert (squeezenet.architecture.builder, squeezenet.predictor.hidden) == ("squeezenet1_1", 360)
    assert registry.name_of(squeezenet.smoother) == "in-filter"


def test_rows_that_leave_something_out():
    load = lambda name: load_experiment(name, registry=REGISTRY)[0]  # noqa: E731
    assert list(load("table4/resnet20-180-no-inputs").losses) == ["reconstruction"]
    assert [phase.name for phase in load("table4/resnet20-180-no-inputs-fast").phases] == ["reconstruction"]
    assert REGISTRY.name_of(load("table4/resnet56-320-noise").phases[0].inputs) == "uniform-noise"
    assert list(load("table6/kd-fmd").losses) == ["kd", "fmd"]
    assert [list(phase.losses) for phase in load("table6/kd-fmd-fast").phases] == [["kd", "fmd"]]
    samplers = [REGISTRY.name_of(phase.sampler) for phase in load("table7/random-layer-fast").phases]
    assert samplers == ["random-layer", "random-layer"]
    assert load("table10/resnet56-5e-05-280").pretrain.smoothness == 5e-5


def test_the_command_line_lists_a_table(capsys):
    assert run(["presets", "table7"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if "-fast " not in line] == [
        "table7/all", "table7/magnitude", "table7/random-layer", "table7/uniform",
    ]  # fmt: skip
    assert run(["presets", "table1/resnet20-cross-filter-16"]) == 2
    assert "did you mean 'table1/resnet20-cross-filter-160'?" in capsys.readouterr().err


def test_tables_are_listed_in_the_papers_order():
    tables = list(dict.fromkeys(int(name.split("/")[0].removeprefix("table")) for name in PRESETS if name.startswith("table")))
    assert tables == sorted(tables)


def test_a_file_may_extend_a_preset_and_another_file(tmp_path):
    (tmp_path / "one.yaml").write_text("extends: digits\nset: {predictor.hidden: 99}\nheldout: 0.2\n")
    (tmp_path / "two.yaml").write_text("extends: one.yaml\nembedding: {name: fourier}\nset: {phases.distillation: null}\n")
    experiment, registry = load_experiment(tmp_path / "two.yaml", registry=REGISTRY)
    base = yaml.safe_load(PRESETS["digits"])
    assert (experiment.predictor.hidden, experiment.heldout) == (99, 0.2)
    assert experiment.architecture.depth == base["architecture"]["depth"]
    assert registry.name_of(experiment.embedding) == "fourier"
    assert [phase.name for phase in experiment.phases] == ["reconstruction"]


def test_local_plugins_of_an_extended_file_are_found_beside_it(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "mine.py").write_text(
        "import attrs, nern\n"
        "from nern.builtin.samplers.all import All\n"
        "@attrs.frozen\nclass Mine(All):\n    '''Mine.'''\n"
        "@nern.hookimpl\ndef nern_samplers():\n    return {'mine': Mine}\n"
    )
    (tmp_path / "base" / "base.yaml").write_text("extends: digits\nplugins: [mine.py]\n")
    (tmp_path / "top.yaml").write_text("extends: base/base.yaml\nsampler: mine\n")
    experiment, _ = load_experiment(tmp_path / "top.yaml")
    assert type(experiment.sampler).__name__ == "Mine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: one.yaml\n", "one.yaml: extends itself"),
        ("extends: digit\n", "there is no preset and no YAML file called 'digit', did you mean 'digits'?"),
        ("extends: [digits]\n", "'extends' is the name of a preset or file"),
        ("extends: digits\nset: [1]\n", "'set' a mapping of dotted paths to values"),
        ("extends: digits\nset: {predictor.hiden: 3}\n", "predictor.hiden: unknown key, did you mean 'hidden'?"),
        ("extends: digits\nset: {phases.3: null}\n", "phases.3: the list has no entry '3'"),
    ],
)
def test_mistakes_in_extending_are_named(tmp_path, text, message):
    (tmp_path / "one.yaml").write_text(text)
    with pytest.raises(ConfigError) as error:
        load_experiment(tmp_path / "one.yaml", registry=REGISTRY)
    assert message in str(error.value)


def test_what_is_done_to_a_presets_values_does_not_change_the_preset() -> None:
    name = "table1/resnet20-cross-filter-160-fast"
    changed = PRESETS.values_of(name)
    changed["predictor"]["hidden"] = 3
    changed["phases"][0]["iterations"] = 4
    assert PRESETS.values_of(name) == yaml.safe_load(PRESETS[name])
    assert PRESETS.values_of(name)["predictor"]["hidden"] == 160


def test_asking_whether_there_is_a_preset_reads_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nern.config.sources.read_yaml", None)
    assert "digits" in PRESETS
    assert "table1/resnet20-cross-filter-160" in PRESETS
    assert "digitz" not in PRESETS
