"""What is wrong with data and weights is known before the first step, and how the original does is shown."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import nern
from nern.builtin.architectures.cifar_resnet import CifarResNet
from nern.config.loading import load_experiment
from nern.engine import Engine
from nern.errors import ConfigError, DataError, OptionError
from nern.interfaces import Preprocessing
from nern.run.evaluation import Score, is_chance
from nern.support import cache
from tests.helpers import experiment, network


def engine(folder: Path, **changes: Any) -> Engine:
    values = experiment(folder, **changes)
    return Engine(*load_experiment(write(folder, values), {}))


def write(folder: Path, values: dict[str, Any]) -> Path:
    import yaml

    (folder / "experiment.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return folder / "experiment.yaml"


# -- means and deviations ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"std": [0.0]}, r"architecture\.std: must be above 0, got \[0\]"),
        ({"std": [-0.4]}, r"architecture\.std: must be above 0"),
        ({"std": [58.4]}, r"architecture\.std: must be of values in \[0, 1\], got \[58\.4\]; divided by 255 that is \[0\.22902\]"),
        ({"mean": [123.7]}, r"architecture\.mean: must be of values in \[0, 1\], got \[123\.7\]; divided by 255 that is \[0\.485098\]"),
    ],
)
def test_impossible_normalisation_is_refused_with_the_configuration(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    values = experiment(tmp_path)
    values["architecture"].update(options)
    with pytest.raises(ConfigError, match=message):
        load_experiment(write(tmp_path, values), {})


def test_a_plugin_cannot_prepare_inputs_impossibly_either() -> None:
    with pytest.raises(OptionError, match="std must be above 0"):
        Preprocessing(std=(0.0, 0.2, 0.2))
    assert Preprocessing(mean=(0.0,) * 3, std=(1 / 255,) * 3).std == (1 / 255,) * 3


# -- weights -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("bn1.running_var", -0.25, r"'bn1\.running_var' has values below zero \(the least is -0\.25\)"),
        ("conv1.weight", 1e25, r"'conv1\.weight' is too large: the squares of its values add up to 3\.6e\+51"),
        ("linear.bias", 1e19, r"'linear\.bias' is too large"),
    ],
)
def test_weights_that_the_arithmetic_does_not_hold_are_refused(name: str, value: float, message: str, tmp_path: Path) -> None:
    state = network().state_dict()
    state[name] = torch.full_like(state[name], value)
    save_file(state, str(tmp_path / "original.safetensors"))
    with pytest.raises(DataError, match=message):
        engine(tmp_path).fit()
    assert not (tmp_path / "run").exists()


# -- the original, measured --------------------------------------------------------------------------------------------


class Watcher:
    """Notes what it is told before the first step."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, dict[str, float]]] = []
        self.stepped = False

    @nern.hookimpl
    def nern_original_measured(self, split: str, images: int, metrics: dict[str, float]) -> None:
        assert not self.stepped
        self.seen.append((split, images, metrics))

    @nern.hookimpl
    def nern_step(self) -> None:
        self.stepped = True


def test_the_original_is_measured_before_the_first_step(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    running, watcher = engine(tmp_path), Watcher()
    running.registry.manager.register(watcher)
    with caplog.at_level(logging.WARNING, "nern"):
        result = running.fit()
    assert watcher.stepped
    assert [(split, images) for split, images, _ in watcher.seen] == [("heldout", 140), ("test", 397)]
    assert watcher.seen[1][2]["top1"] == pytest.approx(result.original_top1)
    assert "which is no better than chance (10.00 %): look at the classes and their order" in caplog.text  # its weights are random


@pytest.mark.parametrize(
    ("images", "outputs", "top1", "chance"),
    [
        (1000, 10, 12.0, True), (1000, 10, 20.0, False), (10, 1000, 0.0, True), (10, 1000, 50.0, False), (900, 10, 0.67, True),
        (100, 2, 55.0, True), (100, 2, 90.0, False), (50_000, 1000, 0.12, True), (50_000, 1000, 30.0, False),
    ],
)  # fmt: skip
def test_what_is_near_chance(images: int, outputs: int, top1: float, chance: bool) -> None:
    assert is_chance(Score(images, {"top1": top1}), outputs) is chance
    assert not is_chance(Score(images, {"top1": None}), outputs)


# -- images ------------------------------------------------------------------------------------------------------------


def folders(root: Path, classes: list[str], size: int = 8, each: int = 3) -> Path:
    draw = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in classes:
            (root / split / name).mkdir(parents=True)
            for index in range(each):
                Image.fromarray(draw.integers(0, 256, (size, size), dtype=np.uint8)).save(root / split / name / f"{index}.png")
    return root


def test_another_number_of_classes_than_outputs_is_refused_until_the_outputs_are_named(tmp_path: Path) -> None:
    outputs = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "ibis", "jay"]
    root = folders(tmp_path / "images", ["cat", "dog"])
    task = {"name": "image-folder", "root": str(root)}
    with pytest.raises(DataError, match=r"the task has 2 classes and the network 10 outputs: .* with task\.classes"):
        engine(tmp_path, task=task).fit()
    assert not (tmp_path / "run").exists()
    running = engine(tmp_path, task={**task, "classes": outputs})
    original, data = network(), running.data
    images, labels = next(iter(data.batches("test", 99, torch.device("cpu"))))
    assert labels.tolist() == [2] * 3 + [3] * 3
    result = running.fit()
    with torch.no_grad():
        assert result.original_top1 == pytest.approx(100 * float((original(images).argmax(1) == labels).double().mean()))


def test_a_broken_training_photograph_is_named_before_anything_is_written(tmp_path: Path) -> None:
    root = folders(tmp_path / "images", [str(index) for index in range(10)], size=20, each=2)
    broken = root / "train" / "7" / "1.png"
    broken.write_bytes(broken.read_bytes()[:60])
    running = engine(tmp_path, task={"name": "image-folder", "root": str(root)})
    squashed = lambda self: Preprocessing((0.3,), (0.4,), (1, 8, 8), resize=10)  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CifarResNet, "preprocessing", squashed)
        with pytest.raises(DataError, match=r"7/1\.png is not a complete image"):
            running.fit()
    assert not (tmp_path / "run").exists()


# -- orderings in the cache --------------------------------------------------------------------------------------------


def test_a_foreign_or_damaged_order_in_the_cache_is_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NERN_CACHE", str(tmp_path / "cache"))
    running = engine(tmp_path)
    expected = [order.indices() for order in running._prepare().orders]
    (entry,) = (tmp_path / "cache").iterdir()
    name = entry.name.removesuffix(".cache")
    right = cache.load(name)
    assert right is not None
    wrong: list[dict[str, torch.Tensor]] = [
        {},
        {**right, "packed": right["packed"].flip(0)},
        {**right, "packed": right["packed"][:-5]},
        {**right, "kinds": right["kinds"][:-1]},
        {**right, "kinds": right["kinds"] + 7},
    ]
    for tensors in wrong:
        cache.store(name, tensors)
        assert all(torch.equal(a, order.indices()) for a, order in zip(expected, running._prepare().orders, strict=True))
    entry.write_bytes(entry.read_bytes()[:-1])
    assert all(torch.equal(a, order.indices()) for a, order in zip(expected, running._prepare().orders, strict=True))
