"""Recipes: an experiment without network and data."""

from __future__ import annotations

import pytest
import yaml

from nern.config.experiment import Experiment
from nern.config.loading import load_experiment
from nern.config.recipes import recipe, recipes
from nern.config.sources import RUN_HEADER
from nern.errors import ConfigError

NETWORK = {"architecture": {"name": "cifar-resnet", "depth": 8}, "task": {"name": "digits"}}


def loaded(tmp_path, registry, values, overrides=()):
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump({**NETWORK, **values}))
    return load_experiment(file, overrides, registry)[0]


@pytest.mark.parametrize("name", ["data-free", "fast", "paper", "quick", "small"])
def test_a_recipe_names_neither_network_nor_data_and_makes_any_network_an_experiment(tmp_path, registry, name):
    values = recipe(name)
    assert name in recipes()
    assert not {"architecture", "task", "recipe", "set", "extends"} & set(values)
    assert isinstance(loaded(tmp_path, registry, {"recipe": name}), Experiment)


def test_a_network_and_data_alone_are_an_experiment_with_the_papers_choices(tmp_path, registry):
    plain, paper = loaded(tmp_path, registry, {}), loaded(tmp_path, registry, {"recipe": "paper"})
    assert [(phase.name, phase.iterations, phase.batch) for phase in plain.phases] == [("joint", 70000, 256)]
    assert (plain.phases, plain.embedding, plain.predictor.hidden) == (paper.phases, paper.embedding, paper.predictor.hidden)


def test_sections_of_a_file_replace_those_of_its_recipe_and_set_changes_single_values(tmp_path, registry):
    changed = {"recipe": "fast", "predictor": {"name": "mlp", "hidden": 12}, "set": {"phases.distillation.batch": 3}}
    experiment = loaded(tmp_path, registry, changed)
    assert (experiment.predictor.hidden, experiment.predictor.activation) == (12, "relu")
    assert [phase.batch for phase in experiment.phases] == [256, 3]


def test_phases_may_be_the_name_of_a_recipe_in_a_file_and_on_the_command_line(tmp_path, registry):
    fast = loaded(tmp_path, registry, {"recipe": "fast"}).phases
    assert loaded(tmp_path, registry, {"phases": "fast"}).phases == fast
    assert loaded(tmp_path, registry, {}, ["phases=fast"]).phases == fast
    shorter = loaded(tmp_path, registry, {"phases": "fast"}, ["phases.reconstruction.iterations=7"]).phases
    assert [phase.iterations for phase in shorter] == [7, fast[1].iterations]


def test_another_recipe_can_be_asked_for_on_the_command_line(registry):
    experiment, _ = load_experiment("resnet20-cifar10", ["recipe=small", "predictor.hidden=9"], registry)
    assert (experiment.storage, experiment.predictor.hidden, experiment.architecture.depth) == ("entropy", 9, 20)


@pytest.mark.parametrize("key", ["recipe", "phases"])
def test_an_unknown_recipe_is_named_with_those_that_there_are(tmp_path, registry, key):
    there = "data-free, fast, paper, quick, small"
    with pytest.raises(ConfigError, match=rf"there is no recipe 'fats', did you mean 'fast'\? \(there are: {there}\)"):
        loaded(tmp_path, registry, {key: "fats"})
    with pytest.raises(ConfigError, match="there is no recipe 'fats'"):
        load_experiment("digits", [f"{key}=fats"], registry)


def test_a_run_folder_of_when_all_meant_convolutions_is_read_as_it_was_meant(tmp_path, registry):
    text = yaml.safe_dump({"architecture": {"name": "timm", "model": "resnet18", "layers": "all"}, "task": "digits"})
    (tmp_path / "config.yaml").write_text(text)
    assert load_experiment(tmp_path / "config.yaml", {}, registry)[0].architecture._layers == "all"
    (tmp_path / "metrics.jsonl").touch()
    assert load_experiment(tmp_path / "config.yaml", {}, registry)[0].architecture._layers == "convolutions"
    (tmp_path / "config.yaml").write_text(RUN_HEADER + text)
    assert load_experiment(tmp_path / "config.yaml", {}, registry)[0].architecture._layers == "all"
