"""Nested dictionaries to checked objects and back: every mistake is named with its path and the nearest right spelling."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from nern.config.defaults import DEFAULTS
from nern.config.experiment import Experiment, LossTerm
from nern.config.overrides import apply_overrides
from nern.config.structuring import structure, to_yaml, unstructure
from nern.config.yaml_reading import read_yaml
from nern.errors import ConfigError
from nern.registry.registry import Registry
from tests.helpers import EXPERIMENT


def problems(registry: Registry, **overrides: object) -> list[str]:
    """What is wrong with the small experiment after overrides (`__` stands for a dot), without the file's name."""
    values = apply_overrides(EXPERIMENT, {path.replace("__", "."): value for path, value in overrides.items()}, DEFAULTS)
    with pytest.raises(ConfigError) as caught:
        structure(values, registry, "x.yaml")
    lines = str(caught.value).splitlines()
    assert all(line.startswith("x.yaml: ") for line in lines)
    return [line.removeprefix("x.yaml: ") for line in lines]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("predictor__hiden", 3, "predictor.hiden: unknown key, did you mean 'hidden'?"),
        ("archtecture", {}, "archtecture: unknown key, did you mean 'architecture'?"),
        ("phases__0__iteration", 3, "phases.0.iteration: unknown key, did you mean 'iterations'?"),
        ("phases__1__losses__kd__temprature", 3, "phases.1.losses.kd.temprature: unknown key, did you mean 'temperature'?"),
        ("SEED", 3, "SEED: unknown key, did you mean 'seed'?"),
        ("pretrain__epoch", 3, "pretrain.epoch: unknown key, did you mean 'epochs'?"),
        ("task__root", "x", "task.root: unknown key, there are: name"),
    ],
)
def test_unknown_keys(registry: Registry, path: str, value: object, message: str) -> None:
    assert problems(registry, **{path: value}) == [message]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "output",
            "C:\runs\new",
            "output: must not hold a line break, a tab or another control character, got 'C:\\runs\\new'; between "
            "double quotes, YAML takes a backslash for the beginning of one: write single quotes",
        ),
        ("predictor__hidden", "many", "predictor.hidden: must be an int, got text ('many')"),
        ("predictor__hidden", 3.0, "predictor.hidden: must be an int, got a float (3.0)"),
        ("predictor__hidden", True, "predictor.hidden: must be an int, got true or false (True)"),
        ("predictor__hidden", None, "predictor.hidden: must be an int, got nothing"),
        ("architecture__depth", [20], "architecture.depth: must be an int, got a list"),
        ("architecture__weights", 5, "architecture.weights: must be text, got an int (5)"),
        ("architecture__mean", 0.5, "architecture.mean: must be a list, got a float (0.5)"),
        ("architecture__mean", ["x"], "architecture.mean.0: must be a float, got text ('x')"),
        ("phases__0__optimizer__lr", "1e", "phases.0.optimizer.lr: must be a float, got text ('1e')"),
        ("phases", {"iterations": 3}, "phases: must be a list, got a mapping"),
        ("phases__0__losses__reconstruction__weight", "big", "phases.0.losses.reconstruction.weight: must be a float, got text ('big')"),
        ("seed", "0", "seed: must be an int, got text ('0')"),
        ("device", 0, "device: must be text, got an int (0)"),
        ("task", 5, "task: must be a task's name, or a mapping with 'name', got an int (5)"),
        ("predictor", {"hidden": 3}, "predictor: needs a 'name' (one of: codes, mlp, residual-mlp, skip-mlp)"),
        ("phases__0__optimizer__lr", float("nan"), "phases.0.optimizer.lr: must be a finite number, got nan"),
        ("phases__1__losses__kd__weight", float("inf"), "phases.1.losses.kd.weight: must be a finite number, got inf"),
    ],
)
def test_wrong_types(registry: Registry, path: str, value: object, message: str) -> None:
    assert problems(registry, **{path: value}) == [message]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("predictor__hidden", 0, "predictor.hidden: must be >= 1, got 0"),
        ("architecture__depth", 21, "architecture.depth: must be 6n + 2 (8, 14, 20, 26, 32, …, 56, …), got 21"),
        ("architecture__mean", [0.5, 0.5], "architecture.mean: must have one value per channel (1), got 2"),
        ("architecture__shortcut", "C", "architecture.shortcut: must be one of A, B, got 'C'"),
        ("phases__0__losses__reconstruction__form", "rsm",
         "phases.0.losses.reconstruction.form: must be one of rms, norm, mse, got 'rsm'; did you mean 'rms'?"),
        ("phases__0__iterations", 0, "phases.0.iterations: must be >= 1, got 0"),
        ("phases__1__losses__kd__weight", -1, "phases.1.losses.kd.weight: must be >= 0, got -1.0"),
        ("phases__1__losses__kd__temperature", 0, "phases.1.losses.kd.temperature: must be > 0, got 0.0"),
        ("phases__1__clip", 0.0, "phases.1.clip: must be > 0, got 0.0"),
        ("heldout", 1.0, "heldout: must be < 1, got 1.0"),
        ("seed", -1, "seed: must be >= 0, got -1"),
        ("threads", 0, "threads: must be >= 1, got 0"),
        ("precision", "float16", "precision: must be one of float32, bfloat16, auto, got 'float16'; did you mean 'bfloat16'?"),
    ],
)  # fmt: skip
def test_impossible_values(registry: Registry, path: str, value: object, message: str) -> None:
    assert problems(registry, **{path: value}) == [message]


@pytest.mark.parametrize(
    ("path", "name", "kind", "near", "listed"),
    [
        ("architecture.name", "cifar-restnet", "architecture", "cifar-resnet", "cifar-resnet"),
        ("embedding.name", "postional", "embedding", "positional", "fourier, learned, positional"),
        ("predictor.name", "mpl", "predictor", "mlp", "mlp, residual-mlp, skip-mlp"),
        ("sampler.name", "unifrom", "sampler", "uniform", "uniform"),
        ("smoother.name", "crossfilter", "smoother", "cross-filter", "in-filter"),
        ("task.name", "digitz", "task", "digits", "digits, given, image-folder"),
        ("optimizer.name", "muom", "optimizer", "muon", "muon, ranger"),
        ("phases.0.optimizer.name", "adam", "optimizer", "adamw", "adamw"),
        ("phases.0.inputs.name", "uniform_noise", "task", "uniform-noise", "uniform-noise"),
    ],
)
def test_unknown_components(registry: Registry, path: str, name: str, kind: str, near: str, listed: str) -> None:
    (line,) = problems(registry, **{path.replace(".", "__"): name})
    assert line.startswith(f"{path.removesuffix('.name')}: no {kind} is called '{name}', did you mean '{near}'? (there ")
    assert listed in line


def test_unknown_losses_and_observers(registry: Registry) -> None:
    (line,) = problems(registry, phases__0__losses={"reconstruction": {}, "fdm": {}})
    assert line.startswith("phases.0.losses.fdm: no loss is called 'fdm', did you mean 'fmd'?")
    (line,) = problems(registry, observers={"progres": {}})
    assert line.startswith("observers.progres: no observer is called 'progres', did you mean 'progress'?")


def test_several_mistakes_are_reported_together(registry: Registry) -> None:
    lines = problems(
        registry,
        architecture={"name": "cifar-resnet", "depth": 21, "classes": "ten", "widht": 3, "size": 1},
        predictor={"name": "mpl"},
        phases__0__losses={"kdd": {}, "reconstruction": {"weight": -1, "form": "rsm"}},
        phases__1__optimizer__lr=0.0,
        phases__1__batch="x",
        seed=-1,
        heldout=2.0,
        colour="red",
    )
    paths = sorted(line.split(": ")[0] for line in lines)
    assert paths == [
        "architecture.classes", "architecture.depth", "architecture.size", "architecture.widht", "colour", "heldout",
        "phases.0.losses.kdd", "phases.0.losses.reconstruction.form", "phases.0.losses.reconstruction.weight",
        "phases.1.batch", "phases.1.optimizer.lr", "predictor", "seed",
    ]  # fmt: skip


def test_missing_sections_are_named(registry: Registry) -> None:
    with pytest.raises(ConfigError) as caught:
        structure({"seed": 1}, registry, "x.yaml")
    assert set(str(caught.value).splitlines()) == {f"x.yaml: {key}: is missing" for key in ("architecture", "task")}
    (line,) = problems(registry, phases=[{"losses": {"kd": {}}}])
    assert line == "phases.0.iterations: is missing"


@pytest.mark.parametrize(
    ("phase", "message"),
    [
        ([], "phases must hold at least one phase"),
        ([{"iterations": 1, "losses": {"kd": {"weight": 0.0}}}], "phases.0 has no loss from its first step on"),
        ([{"iterations": 1, "losses": {}}], "phases.0 has no loss from its first step on"),
        ([{"iterations": 9, "losses": {"kd": {"warmup": 3}}}], "phases.0 has no loss from its first step on"),
    ],
    ids=["none", "weight", "empty", "warm-up"],
)
def test_a_phase_needs_something_to_learn_from_in_every_step(registry: Registry, phase: object, message: str) -> None:
    (line,) = problems(registry, phases=phase)
    assert message in line


def test_options_that_exclude_each_other(registry: Registry) -> None:
    (line,) = problems(registry, phases__1__losses__kd={"form": "stable", "temperature": 2.0})
    assert line == "phases.1.losses.kd.temperature: must be 1 with the stable form"
    (line,) = problems(registry, phases__0__optimizer={"name": "adamw", "schedule": "exponential"})
    assert line == "phases.0.optimizer: final_lr must be above 0 for the exponential schedule"


def test_short_and_long_spellings_mean_the_same(registry: Registry) -> None:
    def built(**changes: Any) -> Experiment:
        return structure({**EXPERIMENT, **changes}, registry)

    assert built(predictor="mlp").predictor == built(predictor={"name": "mlp"}).predictor
    assert built(predictor={"name": "nern:mlp"}).predictor == built(predictor="mlp").predictor
    assert built(smoother=None).smoother == built(smoother="none").smoother
    labelled = built(losses={"soft": {"name": "kd", "temperature": 4, "weight": 2}, "fmd": None}).losses
    assert list(labelled) == ["soft"]
    assert isinstance(labelled["soft"], LossTerm)
    assert (labelled["soft"].weight, labelled["soft"].loss.temperature) == (2.0, 4.0)  # type: ignore[attr-defined]


def test_the_resolved_configuration_gives_the_same_experiment(registry: Registry) -> None:
    first = structure(EXPERIMENT, registry)
    text = to_yaml(first, registry)
    assert structure(read_yaml(text, "again"), registry) == first
    assert yaml.safe_load(text)["predictor"] == unstructure(first, registry)["predictor"]
    assert yaml.safe_load(text)["phases"][0]["optimizer"]["lr"] == 1e-2
