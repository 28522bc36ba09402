"""Weights files as training scripts write them, each compared with the plain state dict."""

from __future__ import annotations

import argparse
import logging
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.optim.swa_utils import AveragedModel

from nern.builtin.architectures.torchvision import Torchvision
from nern.errors import ConfigError, DataError
from nern.networks import state_dicts
from nern.networks.state_dicts import exact_entries, load_weights, read_state_dict, same_bits, write_state_dict
from tests.networks.two_blocks import Net, seeded


@pytest.fixture(autouse=True)
def fresh() -> None:
    state_dicts._say.cache_clear()


def prefixed(start: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {start + name: value for name, value in state.items()}


def inside(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.replace("features.", "features.module._orig_mod."): value for name, value in state.items()}


def below(backbone: str, head: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {(head if name.startswith("linear") else backbone) + name: value for name, value in state.items()}


OTHER = {name: value + 1 for name, value in seeded(1).state_dict().items()}
LAYOUTS: dict[str, tuple[Callable[[dict[str, Tensor]], Any], str]] = {
    "a tensor beside": (lambda s: {"epoch": 9, "arch": "x", "state_dict": prefixed("module.")(s), "best": torch.tensor(69.8)}, "'module.'"),
    "tensors beside": (lambda s: {"state_dict": s, "best": torch.tensor(1.0), "n": torch.tensor(2)}, ""),
    "numbers beside": (lambda s: {**s, "epoch": 3, "lr": 0.1}, ""),
    "Lightning": (lambda s: {"state_dict": prefixed("model.")(s), "hyper_parameters": {"lr": 0.1}}, "'model.' left out"),
    "Lightning, compiled": (lambda s: {"state_dict": prefixed("model._orig_mod.")(s)}, "'model.' left out"),
    "Lightning, more": (lambda s: {**prefixed("net.")(s), "loss.weight": torch.ones(10)}, "1 other entries (loss.weight"),
    "mmpretrain": (lambda s: {"meta": {"epoch": 3}, "state_dict": below("backbone.", "head.")(s)}, "'backbone.' and 'head.' left out"),
    "mmpretrain, more": (lambda s: {**below("backbone.", "head.")(s), "neck.x.weight": torch.ones(3)}, "1 other entries (neck.x.weight"),
    "MoCo": (lambda s: {"state_dict": {**prefixed("module.encoder_q.")(s), **prefixed("module.encoder_k.")(OTHER)}}, "behind 'encoder_k.'"),
    "counted by thop": (lambda s: {**prefixed("module.")(s), "module.linear.total_ops": torch.zeros(1)}, "'total_ops' left out"),
    "averaged by Lightning": (lambda s: {**prefixed("net.")(s), **AveragedModel(seeded(1)).state_dict(prefix="ema.")}, "behind 'ema.'"),
    "FSDP": (prefixed("_fsdp_wrapped_module."), "_fsdp_wrapped_module"),
    "Fabric": (prefixed("_forward_module.module."), "_forward_module"),
    "inside": (inside, "'_orig_mod.' and 'module.' left out"),
    "wrapped thrice": (lambda s: {"model": prefixed("a.module.b._orig_mod.")(s)}, "left out"),
    "optimiser": (lambda s: {"net": s, "opt": {"state": {0: {"exp_avg": torch.ones(9, 9)}}, "param_groups": []}}, ""),
    "head": (lambda s: {name.replace("linear", "fc"): value for name, value in s.items()}, "'fc.' read as 'linear.'"),
    "averaged, too": (lambda s: {"model_ema": OTHER, "model": s}, "'model' was taken; there is model_ema"),
    "averaged and raw": (lambda s: {"state_dict_ema": OTHER, "state_dict": s}, "architecture.entry"),
    "student": (lambda s: {**prefixed("teacher.")(OTHER), **prefixed("student.")(s)}, "is behind 'teacher.'"),
    "two networks": (lambda s: {"netD": {"x.weight": torch.ones(2, 2)}, "netG": s}, ""),
    "namespace": (lambda s: {"model": s, "args": argparse.Namespace(lr=0.1), "where": Path("a/b")}, ""),
    "NumPy": (lambda s: {"state_dict": s, "best_acc": np.float64(91.2), "seed": np.int32(3)}, ""),
    "sparse": (lambda s: {name: value.to_sparse() if value.dim() == 4 else value for name, value in s.items()}, ""),
}  # fmt: skip


KEYS = ("model_state", "params", "network", "model_ema", "state_dict_ema", "module", "weights", "generator")
LAYOUTS |= {key: (lambda s, key=key: {key: s, "epoch": 1}, "") for key in KEYS}  # type: ignore[misc]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make, said = LAYOUTS[layout]
    state, network = seeded().state_dict(), seeded(2)
    torch.save(make(state), tmp_path / "w.pth")
    with caplog.at_level(logging.WARNING, "nern"):
        for _ in range(2):
            dtypes = load_weights(network, tmp_path / "w.pth")
    assert all(torch.equal(network.state_dict()[name], value) for name, value in state.items())
    assert set(dtypes) == set(state)
    assert len(caplog.messages) == bool(said), caplog.messages  # one line, and once
    assert said in "".join(caplog.messages)


def test_an_averaged_model(tmp_path: Path) -> None:
    network = seeded()
    torch.save(AveragedModel(network).state_dict(), tmp_path / "w.pth")  # n_averaged, module.…
    loaded = seeded(1)
    load_weights(loaded, tmp_path / "w.pth")
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in network.state_dict().items())


def test_a_chosen_entry_and_an_unknown_one(tmp_path: Path) -> None:
    torch.save({"a": {"ema": OTHER, "raw": seeded().state_dict()}, "epoch": 3}, tmp_path / "w.pth")
    network = seeded()
    load_weights(network, tmp_path / "w.pth", entry="a.ema")
    assert torch.equal(network.linear.bias, OTHER["linear.bias"])
    assert torch.equal(read_state_dict(tmp_path / "w.pth", "a.ema")["linear.bias"], OTHER["linear.bias"])
    with pytest.raises(DataError, match=r"no state dict at architecture\.entry=b \(there are: a\.ema, a\.raw\)"):
        load_weights(network, tmp_path / "w.pth", entry="b")


def test_beginnings_can_be_renamed_and_the_message_offers_it(tmp_path: Path) -> None:
    state = {n.replace("features.", "body.").replace("linear", "head.fc"): v for n, v in seeded().state_dict().items()}
    torch.save(state, tmp_path / "w.pth")
    network = seeded(1)
    with pytest.raises(DataError, match=r'lacks features\.0\.weight.*has no body\.0\.weight.*architecture\.rename=\{"body\.'):
        load_weights(network, tmp_path / "w.pth")
    load_weights(network, tmp_path / "w.pth", rename={"body.": "features.", "head.fc.": "linear."})
    assert torch.equal(network.features[2].weight, state["body.2.weight"])


def test_the_message_offers_the_whole_beginning_that_is_too_much(tmp_path: Path) -> None:
    state = {f"encoder_q.{name}": value for name, value in seeded().state_dict().items() if "linear" not in name}
    torch.save({**state, "encoder_q.linear.0.weight": torch.ones(3, 4)}, tmp_path / "w.pth")
    with pytest.raises(DataError, match=r'set architecture\.rename=\{"encoder_q\.": ""\}$'):
        load_weights(seeded(), tmp_path / "w.pth")


def test_a_renaming_without_effect_and_one_of_two_names_into_one_are_refused(tmp_path: Path) -> None:
    torch.save({**prefixed("a.")(seeded().state_dict()), **prefixed("b.")(OTHER)}, tmp_path / "w.pth")
    with pytest.raises(ConfigError, match=r"architecture\.rename: no name in weights file .* begins with 'aa\.'; there is a\.features\.0"):
        load_weights(seeded(), tmp_path / "w.pth", rename={"aa.": ""})
    with pytest.raises(ConfigError, match=r"architecture\.rename: gives two entries of the weights file one name"):
        load_weights(seeded(), tmp_path / "w.pth", rename={"a.": "", "b.": ""})
    network = seeded(2)
    load_weights(network, tmp_path / "w.pth", rename={"b.": ""})
    assert torch.equal(network.linear.bias, OTHER["linear.bias"])


def test_sizes_that_differ_are_explained(tmp_path: Path) -> None:
    state = seeded().state_dict()
    torch.save({**state, "linear.weight": torch.ones(7, 4), "linear.bias": torch.ones(7)}, tmp_path / "w.pth")
    with pytest.raises(
        DataError, match=r"linear\.bias is \[7\] in the file and \[10\] in the network; build the network as the file's was"
    ):
        load_weights(seeded(), tmp_path / "w.pth")
    torch.save({name: value for name, value in state.items() if "linear" not in name}, tmp_path / "w.pth")
    with pytest.raises(DataError, match=r"lacks linear\.weight, linear\.bias; build the network as the file's was built: classes"):
        load_weights(seeded(), tmp_path / "w.pth")


def test_shapes_keep_another_head_from_being_renamed(tmp_path: Path) -> None:
    state = {n.replace("linear", "fc"): v for n, v in seeded().state_dict().items()}
    torch.save({**state, "fc.weight": torch.ones(7, 4), "fc.bias": torch.ones(7)}, tmp_path / "w.pth")
    with pytest.raises(DataError, match=r"lacks linear\.weight, linear\.bias; the network has no fc\.weight"):
        load_weights(seeded(), tmp_path / "w.pth")


def computed(network: Net, kind: str) -> Net:
    for module in (network.features[0], network.features[2], network.linear):
        if kind == "pruned":
            prune.l1_unstructured(module, "weight", 0.5)
        elif kind == "old weight norm":
            torch.nn.utils.weight_norm(module)
        elif kind == "weight norm":
            parametrizations.weight_norm(module)
        elif kind == "old spectral norm":
            torch.nn.utils.spectral_norm(module)
        else:
            parametrizations.spectral_norm(module)
    return network.eval()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["pruned", "old weight norm", "weight norm", "old spectral norm", "spectral norm"])
def test_computed_weights_are_those_that_the_network_computes_with(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    network, images = computed(seeded(), kind), torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.save({"state_dict": {f"module.{name}": value for name, value in network.state_dict().items()}}, tmp_path / "w.pth")
    loaded = seeded(1).eval()
    with caplog.at_level(logging.WARNING, "nern"):
        load_weights(loaded, tmp_path / "w.pth")
    with torch.no_grad():
        assert torch.allclose(loaded(images), network(images), atol=1e-6)
    assert "3 weights computed from" in caplog.text
    if kind == "pruned":
        assert int((loaded.features[0].weight == 0).sum()) == 54


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("norm", [torch.nn.utils.weight_norm, parametrizations.weight_norm], ids=["old", "new"])
def test_one_length_for_a_whole_weight(norm: Callable[..., nn.Module], tmp_path: Path) -> None:
    network, images = seeded(), torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    norm(network.features[2], dim=None)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    loaded = seeded(1)
    load_weights(loaded, tmp_path / "w.pth")
    with torch.no_grad():
        assert torch.allclose(loaded.eval()(images), network.eval()(images), atol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("file", "net"), [("old weight norm", "weight norm"), ("weight norm", "old weight norm")])
def test_both_forms_of_weight_norm_serve_a_network_of_the_other_form(file: str, net: str, tmp_path: Path) -> None:
    network, images = computed(seeded(), file), torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.save(network.state_dict(), tmp_path / "w.pth")
    loaded = computed(seeded(1), net)
    load_weights(loaded, tmp_path / "w.pth")
    with torch.no_grad():
        assert torch.allclose(loaded(images), network(images), atol=1e-6)


def test_a_parametrisation_that_needs_code_is_named(tmp_path: Path) -> None:
    network = seeded()
    parametrizations.orthogonal(network.linear)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    with pytest.raises(DataError, match=r"'linear\.parametrizations.*remove_parametrizations"):
        load_weights(seeded(), tmp_path / "w.pth")


@pytest.mark.slow
def test_old_names_of_densenet_and_wrapped_parts_of_alexnet(tmp_path: Path) -> None:
    for model, old in (
        ("densenet121", lambda name: re.sub(r"(denselayer\d+\.(?:norm|relu|conv))([12])\.", r"\1.\2.", name)),
        ("alexnet", lambda name: name.replace("features.", "features.module.")),
    ):
        architecture = Torchvision(model=model, weights=str(tmp_path / "w.pth"))
        state = architecture.build().state_dict()
        torch.save({old(name): value for name, value in state.items()}, tmp_path / "w.pth")
        network = architecture.build()
        architecture.load(network)
        assert all(torch.equal(network.state_dict()[name], value) for name, value in state.items())


def test_versions_of_modules_are_kept(tmp_path: Path) -> None:
    architecture = Torchvision(model="mnasnet0_5", size=64, weights=str(tmp_path / "w.pth"))
    state = architecture.build().state_dict()
    torch.save({"model": OrderedDict((f"module.{name}", value) for name, value in state.items())}, tmp_path / "plain.pth")
    torch.save(state, tmp_path / "w.pth")
    for name in ("w.pth", "plain.pth"):
        network = architecture.build()
        load_weights(network, tmp_path / name)
        assert torch.equal(network.state_dict()["classifier.1.weight"], state["classifier.1.weight"])
    write_state_dict(network.state_dict(), tmp_path / "out.pth")
    architecture.build().load_state_dict(torch.load(tmp_path / "out.pth", weights_only=True))  # as torchvision itself reads it


def test_tied_weights_are_written_and_read(tmp_path: Path) -> None:
    class Tied(Net):
        def __init__(self) -> None:
            super().__init__()
            self.more = nn.Conv2d(4, 4, 3)
            self.more.weight = self.features[2].weight

    network = Tied()
    write_state_dict(network.state_dict(), tmp_path / "w.safetensors")
    state = read_state_dict(tmp_path / "w.safetensors")
    assert set(state) == set(network.state_dict()) and torch.equal(state["more.weight"], network.features[2].weight)
    del state["more.weight"]  # as safetensors' own save_model leaves it
    save_file(state, tmp_path / "once.safetensors")
    loaded = Tied()
    load_weights(loaded, tmp_path / "once.safetensors")
    assert torch.equal(loaded.more.weight, network.features[2].weight)


def test_values_that_float32_cannot_hold_are_kept(tmp_path: Path) -> None:
    state = seeded().state_dict()
    state["linear.weight"] = state["linear.weight"].double() + 1e-12
    state["linear.bias"] = state["linear.bias"].half()
    torch.save(state, tmp_path / "w.pth")
    network = seeded(1)
    dtypes = load_weights(network, tmp_path / "w.pth")
    assert (dtypes["linear.weight"], dtypes["linear.bias"]) == (torch.float64, torch.float16)
    assert set(exact_entries(network)) == {"linear.weight"}
    assert same_bits(exact_entries(network)["linear.weight"], state["linear.weight"])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda v: v.to(torch.complex64), "'linear.weight' is complex"),
        (lambda v: torch.quantize_per_tensor(v, 0.1, 0, torch.qint8), "quantised"),
        (lambda v: v.to("meta"), "meta device"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_values_that_the_network_cannot_take(value: Callable[[Tensor], Tensor], message: str, tmp_path: Path) -> None:
    state = seeded().state_dict()
    torch.save({**state, "linear.weight": value(state["linear.weight"])}, tmp_path / "w.pth")
    with pytest.raises(DataError, match=message):
        load_weights(seeded(), tmp_path / "w.pth")


def test_integers_in_place_of_weights_are_taken_as_they_are_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = seeded().state_dict()
    integers = (100 * state["linear.weight"]).to(torch.int8)
    torch.save({**state, "linear.weight": integers}, tmp_path / "w.pth")
    network = seeded(1)
    with caplog.at_level(logging.WARNING, "nern"):
        assert load_weights(network, tmp_path / "w.pth")["linear.weight"] == torch.int8
    assert torch.equal(network.linear.weight, integers.float())  # type: ignore[union-attr, arg-type]
    assert "'linear.weight' holds integers (int8), as quantised weights do" in caplog.text
