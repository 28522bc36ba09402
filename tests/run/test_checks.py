"""What is refused before a run starts, through the Python interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from nern.builtin.architectures.cifar_resnet import CifarResNet
from nern.config.loading import load_experiment
from nern.engine import Engine
from nern.errors import ConfigError
from nern.hookspecs import hookimpl
from nern.interfaces import Architecture
from nern.kernels.coordinates import LayerMapping
from nern.registry.discovery import create_registry
from nern.representation.representation import Representation
from tests.helpers import RECONSTRUCTION, network, write_experiment


class Offer:
    """A plugin of one architecture."""

    def __init__(self, cls: type[Architecture]) -> None:
        self.cls = cls

    @hookimpl
    def nern_architectures(self) -> Mapping[str, type[Architecture]]:
        return {"mine": self.cls}


def engine(folder: Path, cls: type[Architecture], **overrides: Any) -> Engine:
    registry = create_registry(entry_points=False)
    registry.register(Offer(cls), "offer")
    values = {"architecture": {"name": "mine", "channels": 1, "size": 8, "depth": 8, "width": 4, "mean": [0.3], "std": [0.4]}}
    return Engine(*load_experiment(write_experiment(folder), {**values, **overrides}, registry))


@attrs.frozen
class FromALibrary(CifarResNet):
    """Knows where to fetch weights."""

    @property
    def has_weights(self) -> bool:
        return True

    def load(self, network: nn.Module) -> dict[str, torch.dtype]:
        raise ConfigError("weights were fetched")


def test_a_check_fetches_no_weights(tmp_path: Path) -> None:
    engine(tmp_path, FromALibrary).check()
    with pytest.raises(ConfigError, match="weights were fetched"):
        engine(tmp_path, FromALibrary).fit()


@attrs.frozen
class Headless(CifarResNet):
    """A network that fails on any input."""

    def build(self) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 3))


@attrs.frozen
class Unmapped(CifarResNet):
    """Maps what the network does not have."""

    def layers(self, network: nn.Module) -> Sequence[LayerMapping]:
        return [LayerMapping("nowhere.weight", (4, 4, 3, 3), 0)]


@attrs.frozen
class Empty(CifarResNet):
    """Maps nothing."""

    def layers(self, network: nn.Module) -> Sequence[LayerMapping]:
        return []


@attrs.frozen
class NoSuchMap(CifarResNet):
    """Names a feature map that the network does not have."""

    def features(self, network: nn.Module) -> Sequence[str]:
        return ["nowhere"]


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Headless, r"the network cannot take inputs of 1 × 8 × 8 \(.*\); set architecture.size"),
        (Unmapped, "architecture maps 'nowhere.weight', which is no parameter of the network"),
        (Empty, "architecture maps no convolution: there is nothing to represent"),
        (NoSuchMap, "nowhere"),
    ],
)
def test_networks_that_cannot_be_represented_are_refused_in_one_line(tmp_path: Path, cls: type[Architecture], message: str) -> None:
    for call in (Engine.check, Engine.fit):
        with pytest.raises(ConfigError, match=message) as caught:
            call(engine(tmp_path, cls, pretrain={"epochs": 1}))
        assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_check_neither_writes_nor_draws_from_torchs_own_generator(tmp_path: Path) -> None:
    path = write_experiment(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    state = torch.random.get_rng_state()
    Engine.from_yaml(path).check()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_network_that_untrained_kernels_take_beyond_float32_is_refused_with_what_to_set(tmp_path: Path) -> None:
    small = network()
    for name, module in small.named_modules():
        if isinstance(module, nn.BatchNorm2d) and name != "bn1":
            module.weight.data.mul_(1e9)  # and the kernels in front are that much smaller than those of the first layer
        elif isinstance(module, nn.Conv2d) and name != "conv1":
            module.weight.data.mul_(1e-9)
    save_file(small.state_dict(), str(tmp_path / "original.safetensors"))
    terms = {"reconstruction": {}, "kd": {}, "fmd": {}}
    path = write_experiment(tmp_path, losses=terms, phases=[{"iterations": 2, "batch": 4}])
    with pytest.raises(ConfigError, match=r"beyond float32.*losses\.kd\.warmup=500 losses\.fmd\.warmup=500$"):
        Engine.from_yaml(path).fit()
    assert not (tmp_path / "run").exists()
    Engine.from_yaml(path, {"losses.kd.warmup": 2, "losses.fmd.warmup": 2}).fit()
    with pytest.raises(ConfigError, match=r"joint\.losses: .* add phases\.joint\.losses\.reconstruction=\{\}, and let it begin later"):
        Engine.from_yaml(path, {"phases.0.losses": {"kd": {}}, "output": str(tmp_path / "other")}).fit()


def test_before_the_first_step_only_a_few_kernels_are_predicted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Predicting all kernels of a large network takes minutes, and a check has no need of them."""
    checked, counts = Engine(*load_experiment(write_experiment(tmp_path, phases=[RECONSTRUCTION]))), []
    predict = Representation.predict

    def counted(self: Representation, rows: torch.Tensor | None = None) -> torch.Tensor:
        counts.append(self.grid.rows if rows is None else len(rows))
        return predict(self, rows)

    def refused(self: Representation, chunk: int = 0) -> torch.Tensor:
        raise AssertionError("every kernel is predicted")

    monkeypatch.setattr(Representation, "predict", counted)
    monkeypatch.setattr(Representation, "predict_weights", refused)
    checked.check()
    assert counts
    assert max(counts) <= 64 < checked.prepared().grid.rows
