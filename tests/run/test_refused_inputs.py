"""Inputs that the network does not take are refused before the first step, in one line that says what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

import nern
from nern.builtin.tasks.digits import Digits
from nern.cli.main import run
from nern.errors import ConfigError, DataError
from nern.run.evaluation import outputs_of
from nern.support.files import write_tensors
from nern.toolkit.given import examples_of
from tests.plugins.odd_components import REST

NETWORKS = """
import torch
from torch import nn

class Flat(nn.Sequential):
    def __init__(self, channels=1, side=8):
        super().__init__(nn.Conv2d(channels, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * side * side, 10))

class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.conv, self.linear = nn.Embedding(20, 8), nn.Conv1d(8, 8, 3, padding=1), nn.Linear(8, 10)

    def forward(self, tokens):
        return self.linear(self.conv(self.embedding(tokens).transpose(1, 2)).mean(2))

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(13, 10)

    def forward(self, image, numbers):
        return self.linear(torch.cat([self.conv(image).mean((2, 3)), numbers], 1))
"""
TOKENS = {"class": "Tokens", "size": [7], "inputs": {"0": [7, "int64"]}}
TWO = {"class": "Two", "size": [3, 8, 8], "inputs": {"image": [3, 8, 8], "numbers": [5]}}
SAYS_ANOTHER_SIZE = {"class": "Flat", "size": [1, 9, 9], "inputs": {"0": [1, 8, 8]}}
FLAT = {"class": "Flat", "size": [1, 8, 8]}
COLOUR = {"class": "Flat", "size": [3, 8, 8], "arguments": {"channels": 3}}
FIVE = {"class": "Flat", "size": [5, 8, 8], "arguments": {"channels": 5}}
PYTHON = "take a task that gives such inputs, or hand them over in Python with nern.represent(model, data=…)"
SIZE = "set architecture.size to the size that it takes"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with networks, and folders of images of 8 and of 9 pixels."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "inputs_networks.py").write_text(NETWORKS, encoding="utf-8")
    source = np.random.default_rng(0)
    for side in (8, 9):
        for split in ("train", "test"):
            for name in range(10):
                images = folder / str(side) / split / str(name)
                images.mkdir(parents=True)
                for number in range(2):
                    Image.fromarray(source.integers(0, 255, (side, side), dtype=np.uint8)).save(images / f"{number}.png")
    return folder


def experiment(place: Path, network: dict[str, Any], task: dict[str, Any], folder: Path, **sections: Any) -> Path:
    options = {"name": "module", "build": f"{place / 'inputs_networks.py'}:{network['class']}", **network}
    del options["class"]
    space: dict[str, Any] = {}
    exec(NETWORKS, space)  # noqa: S102
    with torch.random.fork_rng():
        torch.manual_seed(0)
        write_tensors(folder / "weights.safetensors", space[network["class"]](**network.get("arguments", {})).state_dict())
    options["weights"] = str(folder / "weights.safetensors")
    task = {**task, "root": str(place / task["root"])} if "root" in task else task
    values = {**REST, "architecture": options, "task": task, "output": str(folder / "run"), **sections}
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


@pytest.mark.parametrize("losses", [{"reconstruction": {}}, {"kd": {}}])
@pytest.mark.parametrize(
    ("network", "task", "said"),
    [
        (TOKENS, {"name": "uniform-noise"}, ["task: its images are [1, 7] float32", "it takes [1, 7] int64", PYTHON]),
        (TWO, {"name": "coloured-noise"}, ["it takes image [1, 3, 8, 8] float32, numbers [1, 5] float32", PYTHON]),
        (TWO, {"name": "image-folder", "root": "8"}, ["task: its images are [1, 3, 8, 8] float32", PYTHON]),
        (SAYS_ANOTHER_SIZE, {"name": "normal-noise"}, ["its images are [1, 1, 9, 9]", "it takes [1, 1, 8, 8] float32", SIZE]),
        (SAYS_ANOTHER_SIZE, {"name": "image-folder", "root": "9"}, ["its images are [1, 1, 9, 9]", SIZE]),
        (FLAT, {"name": "image-folder", "root": "9"}, ["0.png has 9 × 9 pixels, the network takes 8 × 8; resize the images"]),
        (FLAT, {"name": "cifar10", "root": "9"}, ["0.png has 9 × 9 pixels, the network takes 8 × 8; resize the images"]),
        (FIVE, {"name": "image-folder", "root": "8"}, ["image files have 1 or 3 channels, the network takes 5"]),
        (FIVE, {"name": "photographs", "root": "8"}, ["image files have 1 or 3 channels, the network takes 5"]),
    ],
)
def test_a_configuration_is_refused_before_images_are_opened(network, task, said, losses, place, tmp_path, capsys) -> None:
    path = experiment(place, network, task, tmp_path, losses=losses)
    for verb in ("config", "train"):
        capsys.readouterr()
        assert run([verb, str(path)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert all(words in line for words in said)
    assert not (tmp_path / "run").exists()


def test_the_inputs_of_a_phase_are_looked_at_like_those_of_the_task(place, tmp_path) -> None:
    phases = [{"name": "only", "iterations": 1, "batch": 2, "inputs": {"name": "uniform-noise"}}]
    path = experiment(place, TOKENS, {"name": "digits"}, tmp_path, phases=phases, losses={"reconstruction": {}})
    with pytest.raises(DataError, match=r"phases\.only\.inputs: its images are \[1, 7\] float32"):
        nern.Engine.from_yaml(path).check()


def test_grey_images_serve_a_network_of_three_channels(place, tmp_path) -> None:
    path = experiment(place, COLOUR, {"name": "image-folder", "root": "8"}, tmp_path, losses={"kd": {}})
    nern.Engine.from_yaml(path).fit()
    assert (tmp_path / "run" / "model.nern").is_file()


def test_a_published_archive_has_one_size(tmp_path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "test").mkdir()
    task = nern.create_registry().find("task", "cifar10").cls(root=str(tmp_path))
    with pytest.raises(DataError, match=r"CIFAR10 has images of 3 × 32 × 32, the network takes 1 × 32 × 32: set architecture\.size=32"):
        task.check(nern.Preprocessing((0.5,), (0.5,), (1, 32, 32)))


# -- examples in Python ---------------------------------------------------------------------------------------------------


def flat() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


IMAGES, LABELS = noise(40, 1, 8, 8), torch.arange(40) % 10


class Examples(torch.utils.data.Dataset):
    """Examples of one shape up to one that is not, or that cannot be read."""

    def __init__(self, odd: int, raises: bool) -> None:
        self.odd, self.raises = odd, raises

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if index == self.odd and self.raises:
            raise KeyError("boom")
        return (noise(1, 9, 9) if index == self.odd else IMAGES[index]), index % 10


@pytest.mark.parametrize(
    ("data", "test", "said"),
    [
        ((IMAGES, LABELS), (noise(10, 1, 9, 9), LABELS[:10]),
         r"the test examples are \[2, 1, 9, 9\] float32, .*it takes \[2, 1, 8, 8\] float32: give examples that it takes"),
        ((IMAGES, LABELS), noise(10, 3, 8, 8), r"the test examples are \[2, 3, 8, 8\] float32, and the network does not take them"),
        ((IMAGES, LABELS), ((IMAGES * 9).byte(), LABELS), r"of test are bytes \(uint8\) and those of data are not: give both in the same"),
        ((IMAGES, LABELS), (IMAGES * torch.nan, LABELS), r"the test examples hold numbers that are not finite"),
        ((torch.cat([IMAGES[:7], IMAGES[7:8] * torch.inf, IMAGES[8:]]), LABELS), None, r"example 7 of data holds numbers that are not"),
        (((IMAGES * 9).long(), LABELS), None, r"the network cannot take the data: inputs \[2, 1, 8, 8\] \(.*\); give it float32 inputs"),
        (Examples(1, False), None, r"examples 0, 1 of the data set make no batch \(.*\); give all examples one shape and type"),
        (Examples(0, True), None, r"example 0 of the data set cannot be read: it raised KeyError: 'boom' \(.*_inputs\.py, line"),
    ],
)  # fmt: skip
def test_examples_that_the_network_does_not_take_are_refused(data, test, said, tmp_path) -> None:
    overrides = {"losses": {"reconstruction": {}, "kd": {}}, "phases": [{"iterations": 1, "batch": 4}], "smoother": "none", "observers": {}}
    with pytest.raises((DataError, ConfigError), match=said) as caught:
        nern.Engine.from_model(flat(), data, overrides, test=test, output=tmp_path / "run").fit()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_late_example_of_another_shape_is_named(tmp_path) -> None:
    with pytest.raises(DataError, match=r"examples 29, 30 of the data set make no batch"):
        examples_of(Examples(30, False))[torch.tensor([29, 30])]


def test_measuring_names_examples_that_a_network_does_not_take() -> None:
    data = Digits().open(nern.Preprocessing((0.3,), (0.4,), (1, 8, 8)), 0.1, 0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(81, 10))
    with pytest.raises(DataError, match=r"the test examples are \[\d+, 1, 8, 8\] float32, .*set architecture\.size to the size that it"):
        list(outputs_of(network, data, "test", torch.device("cpu")))
