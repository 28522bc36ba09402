"""Codes: a few numbers for every kernel, alone and with a perceptron of the coordinate."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

import nern
from nern import ConfigError, Engine
from nern.builtin.embeddings.codes import Codes, cosines
from nern.support.seeding import generator
from tests.coded_run import SMALL, engine
from tests.helpers import ARCHITECTURE, weights_file


def test_the_transform_is_that_of_scipy() -> None:
    from scipy.fft import dct

    for size in (1, 3, 5):
        expected = torch.from_numpy(dct(torch.eye(size, dtype=torch.float64).numpy(), axis=0, norm="ortho"))
        torch.testing.assert_close(cosines(size), expected)


@pytest.mark.parametrize("transform", ["dct", "none"])
def test_codes_start_as_the_original_kernels_of_every_size(tmp_path: Path, transform: str) -> None:
    options = {**ARCHITECTURE, "shortcut": "B"}
    weights = weights_file(tmp_path / "w.safetensors", shortcut="B")
    values = {
        **SMALL,
        "architecture": {"name": "cifar-resnet", **options, "weights": str(weights)},
        "embedding": {"name": "codes", "transform": transform},
    }
    values |= {"fold_batch_norms": False, "output": str(tmp_path / "run")}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    run = Engine.from_yaml(tmp_path / "run.yaml")
    original = run._prepare()
    representation = run._context(original).representation
    for name, value in representation.reconstruct().items():
        torch.testing.assert_close(value, original.state[name], rtol=1e-5, atol=1e-6)


def test_fewer_numbers_give_the_nearest_kernels(tmp_path: Path) -> None:
    run = engine(tmp_path, embedding={"name": "codes", "numbers": 4})
    original = run._prepare()
    embedding = run._context(original).representation.embedding
    waves = torch.stack([torch.outer(cosines(3)[i], cosines(3)[j]).flatten() for i, j in ((0, 0), (0, 1), (1, 0), (1, 1))])
    first = original.state["conv1.weight"].double().flatten(2)
    torch.testing.assert_close(embedding.kernels()[:4].double(), (first @ waves.T @ waves).reshape(4, 9), rtol=1e-5, atol=1e-6)


def test_kernels_of_a_few_coordinates_are_those_among_all(tmp_path: Path) -> None:
    run = engine(tmp_path, architecture={"name": "cifar-resnet", **ARCHITECTURE, "shortcut": "B"})
    weights_file(tmp_path / "original.safetensors", shortcut="B")  # its shortcuts are 1 × 1
    embedding = run._context(run._prepare()).representation.embedding
    some = torch.randperm(embedding.grid.rows, generator=generator(0, "rows"))[:40]
    rows = torch.cat([torch.tensor(embedding.grid.starts[:-1]), some])  # some of every layer
    codes = [value for name, value in embedding.named_parameters() if "codes" in name]
    factors = torch.randn(len(rows), embedding.grid.outputs, generator=generator(1, "factors"))
    kernels, expected = embedding(embedding.grid.coordinates()[rows])[:, : embedding.grid.outputs], embedding.kernels()[rows]
    torch.testing.assert_close(kernels, expected)
    for one, other in zip(*(torch.autograd.grad((part * factors).sum(), codes) for part in (kernels, expected)), strict=True):
        torch.testing.assert_close(one, other)


def test_a_file_of_many_kernels_beside_a_large_one_opens(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 300, 7), nn.ReLU(), nn.Conv2d(300, 300, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    short = {
        "phases.distillation.iterations": 1,
        "phases.distillation.batch": 2,
        "curvature_batches": 1,
        "observers": {},
        "curve_points": 0,
    }
    result = nern.represent(
        model, torch.randn(30, 3, 9, 9), recipe="small", layers="convolutions", overrides=short, output=tmp_path / "run", quiet=True
    )
    state = nern.load(result.artifact).state_dict()
    assert {name: value.shape for name, value in state.items()} == {name: value.shape for name, value in model.state_dict().items()}


def test_codes_and_coordinates_together(tmp_path: Path) -> None:
    run = engine(
        tmp_path, embedding={"name": "codes", "numbers": 3, "frequencies": 4}, predictor={"name": "codes", "hidden": 8, "layers": 3}
    )
    result = run.fit()
    state, rebuilt = run.reconstruct().state_dict(), nern.load(result.artifact).reconstruct().state_dict()
    assert all(torch.equal(state[name], rebuilt[name]) for name in state)
    assert result.bytes.predictor > 0


def test_codes_refuse_another_reading_of_small_kernels() -> None:
    from nern.kernels.coordinates import KernelGrid, LayerMapping

    with pytest.raises(ConfigError, match="small_kernels must be centre"):
        Codes().build(KernelGrid((LayerMapping("w", (2, 2, 3, 3), 0),), "max"))


def test_a_perceptron_without_coordinates_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"set embedding\.frequencies, or predictor\.hidden to 0"):
        engine(tmp_path, predictor={"name": "codes", "hidden": 8}).check()


def test_coordinates_that_nothing_uses_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine(tmp_path, embedding={"name": "codes", "frequencies": 4}).check()
    assert "nothing uses the 24 numbers" in caplog.text
