"""Experiments from presets, files and overrides."""

from __future__ import annotations

from pathlib import Path

import pytest

from nern.config.loading import load_experiment
from nern.config.structuring import structure, to_yaml, unstructure
from nern.config.yaml_reading import read_yaml
from nern.errors import ConfigError, PluginError
from nern.registry.registry import Registry
from tests.helpers import write_experiment

PLUGIN = """
import attrs, nern

@attrs.frozen
class Zeros(nern.Sampler):
    \"\"\"The first kernel alone.\"\"\"

    def start(self, kernels, layers, seed):
        return lambda step: kernels.new_zeros(1).long()

@nern.hookimpl
def nern_samplers():
    return {"zeros": Zeros}
"""


def test_a_resolved_preset_is_the_same_experiment(registry: Registry) -> None:
    for name in ("digits", "resnet20-cifar10", "resnet20-cifar10-fast"):
        experiment, _ = load_experiment(name, registry=registry)
        text = to_yaml(experiment, registry)
        assert structure(read_yaml(text, name), registry, name) == experiment, name
        assert experiment.output == f"runs/{name}"


def test_the_papers_recipe(registry: Registry) -> None:
    """The figures of the paper's default run: hidden 160, cross-filter, Ranger at 5e-3, α = β = 1e-4, 2¹² kernels a step."""
    values = unstructure(load_experiment("resnet20-cifar10", registry=registry)[0], registry)
    assert values["architecture"]["depth"] == 20
    assert (values["embedding"]["base"], values["embedding"]["frequencies"], values["embedding"]["combine"]) == (0.76, 40, "concat")
    assert (values["predictor"]["name"], values["predictor"]["hidden"], values["predictor"]["layers"]) == ("mlp", 160, 5)
    assert values["smoother"]["name"] == "cross-filter"
    assert (values["sampler"]["name"], values["sampler"]["batch"], values["sampler"]["uniform"]) == ("magnitude", 4096, 0.8)
    assert (values["losses"]["kd"]["weight"], values["losses"]["fmd"]["weight"]) == (1e-4, 1e-4)
    optimizer = values["optimizer"]
    assert (optimizer["name"], optimizer["lr"], optimizer["betas"], optimizer["weight_decay"]) == ("ranger", 5e-3, [0.5, 0.999], 1e-3)
    assert [phase["iterations"] for phase in values["phases"]] == [70_000]


@pytest.mark.parametrize("overrides", [{"predictor.hidden": 7, "seed": 3}, ["seed=3", "predictor.hidden=7"]], ids=["mapping", "strings"])
def test_overrides_as_a_mapping_or_as_strings(registry: Registry, overrides: object) -> None:
    experiment, _ = load_experiment("digits", overrides, registry)  # type: ignore[arg-type]
    assert experiment.predictor.hidden == 7  # type: ignore[attr-defined]
    assert experiment.seed == 3


def test_the_fast_preset_serves_other_depths_and_sizes_by_overrides(registry: Registry) -> None:
    experiment, _ = load_experiment("resnet20-cifar10-fast", ["architecture.depth=56", "predictor.hidden=280"], registry)
    assert experiment.architecture.depth == 56  # type: ignore[attr-defined]
    assert experiment.predictor.hidden == 280  # type: ignore[attr-defined]


def test_mistakes_carry_the_files_name(tmp_path: Path, registry: Registry) -> None:
    path = write_experiment(tmp_path, seed="none")
    with pytest.raises(ConfigError, match=rf"^{path}: seed: must be an int, got text \('none'\)$"):
        load_experiment(path, registry=registry)


def test_local_plugins_are_found_from_the_file_and_keep_their_full_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "mine.py").write_text(PLUGIN)
    path = write_experiment(tmp_path / "here", plugins=["./mine.py"], sampler={"name": "zeros"})
    experiment, _ = load_experiment(path)
    assert type(experiment.sampler).__name__ == "Zeros"
    assert [Path(plugin) for plugin in experiment.plugins] == [tmp_path / "here" / "mine.py"]

    monkeypatch.chdir(tmp_path / "here")  # a preset has no folder of its own: the working directory serves
    experiment, _ = load_experiment("digits", {"plugins": ["mine.py"], "phases.reconstruction.sampler": {"name": "zeros"}})
    assert [Path(plugin) for plugin in experiment.plugins] == [tmp_path / "here" / "mine.py"]


def test_a_missing_plugin_is_named_where_something_of_it_is_wanted(tmp_path: Path) -> None:
    path = write_experiment(tmp_path, plugins=["nowhere.py"], sampler={"name": "zeros"})
    with pytest.raises((ConfigError, PluginError), match=r"no sampler is called 'zeros'.*nowhere\.py.*there is no file"):
        load_experiment(path)


def test_plugins_of_a_wrong_type_are_refused(tmp_path: Path) -> None:
    for plugins, message in (("mine.py", "plugins: must be a list, got text"), ([3], r"plugins\.0: must be text, got an int \(3\)")):
        with pytest.raises(ConfigError, match=message):
            load_experiment(write_experiment(tmp_path, plugins=plugins))
