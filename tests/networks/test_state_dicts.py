"""State dicts in the formats found in the wild, and files that are none."""

from __future__ import annotations

import hashlib
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from nern.builtin.architectures.cifar_resnet import CifarResNet
from nern.errors import DataError
from nern.networks.state_dicts import digest, load_weights, read_state_dict


def resnet(depth: int = 8, **options: Any) -> nn.Module:
    return CifarResNet(depth=depth, width=4, **options).build()


def state_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


WRAPPED: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "plain": lambda state: state,
    "ordered": OrderedDict,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3, "best_prec1": 91.7},
    "model": lambda state: {"model": state, "optimizer": {"lr": 0.1}},
    "model_state_dict": lambda state: {"model_state_dict": state},
    "net": lambda state: {"net": state, "acc": 95.0},
    "twice": lambda state: {"state_dict": {"model": state}},
    "module.": lambda state: {f"module.{name}": value for name, value in state.items()},
    "_orig_mod.": lambda state: {f"_orig_mod.{name}": value for name, value in state.items()},
    "module._orig_mod.": lambda state: {f"module._orig_mod.{name}": value for name, value in state.items()},
    "_orig_mod.module.": lambda state: {f"_orig_mod.module.{name}": value for name, value in state.items()},
    "state_dict and module.": lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}},
    "parameters": lambda state: {name: nn.Parameter(v) if v.is_floating_point() else v for name, v in state.items()},
}


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".th", ".bin"])
@pytest.mark.parametrize("form", WRAPPED)
def test_torch_files_are_read(form: str, suffix: str, tmp_path: Path) -> None:
    state = state_of(resnet())
    torch.save(WRAPPED[form](state), tmp_path / f"weights{suffix}")
    assert same(read_state_dict(tmp_path / f"weights{suffix}"), state)


def test_torch_files_in_the_old_format_are_read(tmp_path: Path) -> None:
    state = state_of(resnet())
    torch.save({"state_dict": state}, tmp_path / "old.th", _use_new_zipfile_serialization=False)
    assert same(read_state_dict(tmp_path / "old.th"), state)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_safetensors_are_read(prefix: str, tmp_path: Path) -> None:
    state = state_of(resnet())
    save_file({prefix + name: value for name, value in state.items()}, str(tmp_path / "weights.safetensors"))
    loaded = read_state_dict(tmp_path / "weights.safetensors")
    assert set(loaded) == set(state)
    assert all(torch.equal(loaded[name], state[name]) for name in state)


def test_the_real_files(resnet20_weights: Path, resnet56_weights: Path, squeezenet_weights: Path) -> None:
    for depth, path in ((20, resnet20_weights), (56, resnet56_weights)):
        network = CifarResNet(depth=depth).build()
        load_weights(network, path)
        stored = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        assert all(torch.equal(network.state_dict()[name.removeprefix("module.")], value.float()) for name, value in stored.items())
    assert read_state_dict(squeezenet_weights)["features.0.weight"].shape == (96, 3, 7, 7)


def test_load_fills_the_network_in_float32_and_tells_the_stored_dtypes(tmp_path: Path) -> None:
    state = state_of(resnet())
    stored = {name: value.half() if name == "conv1.weight" else value for name, value in state.items()}
    del stored["bn1.num_batches_tracked"]
    torch.save(stored, tmp_path / "weights.pt")
    network = resnet()
    dtypes = load_weights(network, tmp_path / "weights.pt")
    assert list(dtypes) == list(state)
    assert dtypes["conv1.weight"] == torch.float16
    assert dtypes["linear.weight"] == torch.float32
    assert dtypes["bn1.num_batches_tracked"] == torch.int64
    assert network.conv1.weight.dtype == torch.float32
    assert torch.equal(network.conv1.weight, state["conv1.weight"].half().float())
    assert torch.equal(network.layer3[0].bn2.running_var, state["layer3.0.bn2.running_var"])


# -- mistakes ----------------------------------------------------------------------------------------------------------


def refused(network: nn.Module, path: Path) -> str:
    before = state_of(network)
    with pytest.raises(DataError) as caught:
        load_weights(network, path)
    assert same(state_of(network), before)  # nothing is half loaded
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_a_missing_file_is_named_with_its_nearest_neighbour(tmp_path: Path) -> None:
    torch.save(state_of(resnet()), tmp_path / "resnet20.pth")
    assert refused(resnet(), tmp_path / "resnet2O.pth").endswith("does not exist, did you mean 'resnet20.pth'?")
    assert refused(resnet(), tmp_path / "nowhere" / "a.pth").endswith(f"does not exist (nor does the folder {tmp_path}/nowhere)")
    assert f"is a folder; name the file in it, such as {tmp_path}/resnet20.pth" in refused(resnet(), tmp_path)


@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
@given(part=st.floats(0, 0.999))
@settings(max_examples=15)
def test_a_truncated_file_is_refused(kind: str, part: float, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("cut") / ("weights.safetensors" if kind == "safetensors" else "weights.pth")
    if kind == "safetensors":
        save_file(state_of(resnet()), str(path))
    else:
        torch.save(state_of(resnet()), path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    message = refused(resnet(), path)
    assert any(part in message for part in ("not a complete safetensors file", "is truncated or not a torch state dict", "is empty"))


@given(data=st.binary(max_size=200), suffix=st.sampled_from([".pt", ".th", ".safetensors"]))
def test_files_of_random_bytes_are_refused(data: bytes, suffix: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("junk") / f"weights{suffix}"
    path.write_bytes(data)
    refused(resnet(), path)


def test_a_web_page_in_place_of_the_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_text("<!DOCTYPE html><html><body>404</body></html>\n" * 50)
    refused(resnet(), tmp_path / "weights.pth")


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    witness = tmp_path / "witness"

    class Touches:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (witness,)

    torch.save({"state_dict": state_of(resnet()), "extra": Touches()}, tmp_path / "zip.pth")
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps(Touches(), protocol=2))
    for name in ("zip.pth", "pickle.pth"):
        refused(resnet(), tmp_path / name)
    assert not witness.exists()


@pytest.mark.parametrize("value", [[1, 2], {"epoch": 3}, {}, {"a": torch.zeros(2), "b": "text"}, torch.zeros(3)], ids=str)
def test_a_file_without_a_state_dict_is_refused(value: Any, tmp_path: Path) -> None:
    torch.save(value, tmp_path / "weights.pt")
    assert "holds no state dict" in refused(resnet(), tmp_path / "weights.pt")


def test_another_architecture_is_told_by_names(tmp_path: Path) -> None:
    torch.save(state_of(resnet(14)), tmp_path / "resnet14.pt")
    message = refused(resnet(8), tmp_path / "resnet14.pt")
    assert "belongs to another architecture: the network has no layer1.1.conv1.weight" in message
    assert "more" in message
    torch.save(state_of(resnet(8)), tmp_path / "resnet8.pt")
    assert "the file lacks layer1.1.conv1.weight" in refused(resnet(14), tmp_path / "resnet8.pt")


def test_another_architecture_is_told_by_shapes(tmp_path: Path) -> None:
    torch.save(state_of(resnet(classes=100)), tmp_path / "cifar100.pt")
    message = refused(resnet(classes=10), tmp_path / "cifar100.pt")
    assert "linear.weight is [100, 16] in the file and [10, 16] in the network" in message
    assert "linear.bias is [100] in the file and [10] in the network" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    state = state_of(resnet())
    state["layer2.0.conv1.weight"][0, 0, 0, 0] = value
    torch.save(state, tmp_path / "weights.pt")
    assert refused(resnet(), tmp_path / "weights.pt").endswith("has values that are not finite in layer2.0.conv1.weight")


# -- digest ------------------------------------------------------------------------------------------------------------


def test_digest_by_hand() -> None:
    state = {"b": torch.tensor([[1.5, -2.0]]), "a": torch.tensor(7)}
    content = b"a:torch.int64:[];" + struct.pack("<q", 7) + b"b:torch.float32:[1, 2];" + struct.pack("<2f", 1.5, -2.0)
    assert digest(state) == hashlib.sha256(content).hexdigest()
    assert digest(dict(reversed(state.items()))) == digest(state)


def test_digest_changes_with_every_part() -> None:
    base = {"a": torch.zeros(2, 3), "b": torch.ones(4).half()}
    others = [
        {**base, "a": torch.zeros(3, 2)},
        {**base, "a": torch.zeros(2, 3, dtype=torch.int32)},
        {**base, "b": torch.tensor([1, 1, 1, 1.001]).half()},
        {"a": base["a"], "c": base["b"]},
    ]
    assert len({digest(state) for state in [base, *others]}) == 5
    assert digest({"w": torch.arange(6.0).reshape(2, 3).T}) == digest({"w": torch.arange(6.0).reshape(2, 3).T.contiguous()})
