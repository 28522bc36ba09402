"""Odd networks: what is handled, and what is refused with the layer's name."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from nern.artifact.artifact import Artifact
from nern.builtin.architectures.timm import Timm
from nern.builtin.architectures.torchvision import Torchvision
from nern.builtin.embeddings.positional import Positional
from nern.builtin.predictors.mlp import MLP
from nern.errors import ConfigError, DataError, OptionError
from nern.kernels.coordinates import KernelGrid
from nern.kernels.orders import Unordered
from nern.networks.feature_maps import choose_feature_maps
from nern.networks.layers import map_layers
from nern.networks.pair import NetworkPair
from nern.registry.discovery import create_registry
from nern.representation.assembling import assemble
from nern.support.files import write_tensors

CPU = torch.device("cpu")
SIZE = (3, 8, 8)


class MyConv(nn.Module):
    """A convolution of one's own, whose weight has a form of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4 * 4 * 9))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight.reshape(4, 4, 3, 3), padding=1)


class Odd(nn.Module):
    """Convolutions of every kind behind each other, as far as `parts` names them."""

    def __init__(self, *parts: str) -> None:
        super().__init__()
        self.parts = parts
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.unused = nn.Conv2d(4, 4, 1)
        self.act = nn.ReLU(inplace=True)
        if "line" in parts:
            self.line = nn.Conv1d(4, 6, 3, groups=2, padding=1)
            self.back = nn.Conv1d(6, 4, 1)
        if "transposed" in parts:
            self.transposed = nn.ConvTranspose2d(4, 6, (2, 3), groups=2)
            self.narrow = nn.ConvTranspose2d(6, 4, 1)
        if "volume" in parts:
            self.volume = nn.Conv3d(4, 4, 1)
        if "parametrised" in parts:
            self.parametrised = parametrizations.weight_norm(nn.Conv2d(4, 4, 3, padding=1))
        if "mine" in parts:
            self.mine = MyConv()
        if "tied" in parts:
            self.tied, self.tied_too = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
            self.tied_too.weight = self.tied.weight
            self.tied_norm, self.tied_too_norm = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        if "twice" in parts:
            self.twice = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Any:
        x = self.act(self.norm(self.stem(x)))
        if "line" in self.parts:
            x = self.back(self.line(x.flatten(2))).unflatten(2, (8, 8))
        if "transposed" in self.parts:
            x = self.narrow(self.transposed(x))
        if "volume" in self.parts:
            x = self.volume(x.unsqueeze(2)).squeeze(2)
        if "parametrised" in self.parts:
            x = self.parametrised(x)
        if "mine" in self.parts:
            x = self.mine(x)
        if "tied" in self.parts:
            x = self.tied_norm(self.tied(x))
            x = self.tied_too_norm(self.tied_too(x))
        if "twice" in self.parts:
            x = self.twice(F.relu(self.twice(x)))
        if "in place" in self.parts:
            y = self.norm(x)
            y += x
            x = y
        logits = self.head(x.mean((2, 3)))
        if "mapping" in self.parts:
            return OrderedDict(out=logits)
        return logits


def odd(*parts: str) -> nn.Module:
    torch.manual_seed(0)
    network = Odd(*parts).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.running_mean)
    return network


def test_one_dimensional_kernels_are_lines() -> None:
    network = odd("line")
    layers = map_layers(network, SIZE, "convolutions")
    assert [(layer.parameter, layer.filters, layer.channels, layer.kernel) for layer in layers] == [
        ("stem.weight", 4, 3, (3, 3)), ("line.weight", 6, 2, (1, 3)), ("back.weight", 4, 6, (1, 1)),
    ]  # fmt: skip
    weight = network.state_dict()["line.weight"]
    place = layers[1].coordinates()
    assert torch.equal(layers[1].split(weight)[:, 0], weight[place[:, 1], place[:, 2]])
    assert torch.equal(layers[1].join(layers[1].split(weight)), weight)


def test_filters_of_transposed_convolutions_are_their_outputs() -> None:
    network = odd("transposed")
    layer = map_layers(network, SIZE, ["transposed.weight"])[0]
    weight = network.state_dict()["transposed.weight"]  # [inputs, outputs / groups, 2, 3], 2 groups
    assert (layer.filters, layer.channels, layer.kernel) == (6, 2, (2, 3))
    kernels = layer.split(weight)
    assert torch.equal(layer.join(kernels), weight)
    for row, (_, output, channel) in enumerate(layer.coordinates().tolist()):
        group = output // 3
        assert torch.equal(kernels[row], weight[group * 2 + channel, output % 3])


def test_layers_that_are_never_called_are_copied() -> None:
    assert [layer.parameter for layer in map_layers(odd(), SIZE, "convolutions")] == ["stem.weight"]
    assert [layer.parameter for layer in map_layers(odd(), SIZE, ["*.weight"])] == ["stem.weight"]


def test_a_shared_weight_is_represented_once_and_stored_once() -> None:
    network = odd("tied")
    layers = tuple(map_layers(network, SIZE, "convolutions"))
    assert [layer.parameter for layer in layers] == ["stem.weight", "tied.weight"]
    assert map_layers(network, SIZE, ["tied_too.weight"])[0].parameter == "tied.weight"
    names = choose_feature_maps(network, layers, SIZE)
    assert names == ["norm", "tied_norm", "tied_too_norm"]

    inputs = torch.randn(2, *SIZE)
    changed = torch.randn(4, 4, 3, 3)
    expected = copy.deepcopy(network)
    expected.tied.weight.data.copy_(changed)  # type: ignore[union-attr]
    for fold in (False, True):
        outputs = NetworkPair(network, names, device=CPU, fold=fold).reconstructed(inputs, {"tied.weight": changed}, features=True)
        torch.testing.assert_close(outputs.logits, expected(inputs))

    grid, registry = KernelGrid(layers), create_registry(entry_points=False)
    orders: list[Any] = [Unordered(layer.filters, layer.channels) for layer in layers]
    representation = assemble(grid, orders, Positional(frequencies=2), MLP(hidden=4)).eval()
    dtypes = {name: value.dtype for name, value in network.state_dict().items()}
    kept = Artifact(representation, Timm(model="resnet18"), Positional(), MLP(), network, dtypes, registry, "", {})
    represented = sum(layer.count * 9 for layer in layers)
    counted = sum(value.numel() for name, value in network.state_dict().items() if value.is_floating_point() and name != "tied_too.weight")
    assert kept._content()[0]["copied.float32"].numel() == counted - represented
    rebuilt = kept.reconstruct().state_dict()
    assert torch.equal(rebuilt["tied.weight"], rebuilt["tied_too.weight"])
    assert not torch.equal(rebuilt["tied.weight"], network.state_dict()["tied.weight"])


@pytest.mark.parametrize(
    ("parts", "patterns", "message"),
    [
        (["parametrised"], None, "architecture.layers: 'parametrised.weight' is computed from other parameters"),
        (["mine"], None, "architecture.layers: 'mine.weight' belongs to a MyConv, whose weight is not made of kernels"),
        ([], ["unused.weight"], "architecture.layers: 'unused.weight' belongs to a layer that no forward pass calls"),
        (
            [],
            ["stem.wieght"],
            "'stem.wieght' matches the weight of no convolution, linear layer or embedding; did you mean 'stem.weight'?",
        ),
        (
            [],
            ["tail.*", "stem.*"],
            "'tail.*' matches the weight of no convolution, linear layer or embedding; there are: stem.weight, unused.weight, head.weight",
        ),
    ],
)
def test_layers_that_cannot_be_represented_are_named(parts: list[str], patterns: list[str] | None, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        map_layers(odd(*parts), SIZE, patterns or "convolutions")
    assert message in str(error.value)


def test_a_wide_pattern_leaves_out_what_cannot_be_represented() -> None:
    assert [layer.parameter for layer in map_layers(odd("volume", "mine"), SIZE, ["*"])] == ["stem.weight", "volume.weight"]


def test_inputs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"the network cannot take inputs of 4 × 8 × 8 \(.*\); set architecture.size"):
        map_layers(odd(), (4, 8, 8), "convolutions")


@pytest.mark.parametrize(
    ("parts", "pattern", "message"),
    [
        (["twice"], "twice", "architecture.features: 'twice' is made 2 times in a forward pass"),
        ([], "unused", "architecture.features: 'unused' is not called in a forward pass"),
        ([], "nrom", "architecture.features: 'nrom' matches no feature map, did you mean 'norm'?"),
    ],
)
def test_feature_maps_that_do_not_exist_are_named(parts: list[str], pattern: str, message: str) -> None:
    network = odd(*parts)
    with pytest.raises(ConfigError) as error:
        choose_feature_maps(network, map_layers(network, SIZE, "convolutions"), SIZE, [pattern])
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("twice", "feature map 'twice' is made 2 times in a forward pass"),
        ("unused", "feature map 'unused' is made never in a forward pass"),
        ("head.sum", "feature map 'head.sum' is made never in a forward pass"),
        ("nothing.sum", "feature map 'nothing.sum' is no module of the network and no sum in one"),
    ],
)
def test_a_map_that_is_not_made_once_stops_the_step(name: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        NetworkPair(odd("twice"), [name], device=CPU).original(torch.randn(2, *SIZE), features=True)
    assert message in str(error.value)


def test_maps_that_the_network_changes_are_copied_first() -> None:
    network = odd()  # its activation works in place on the output of the batch norm
    inputs = torch.randn(2, *SIZE)
    with torch.no_grad():
        expected = network.norm(network.stem(inputs))  # type: ignore[operator]
    assert bool((expected < 0).any())
    for fold in (False, True):
        pair = NetworkPair(network, ["norm"], device=CPU, fold=fold)
        for _ in range(2):
            torch.testing.assert_close(pair.original(inputs, features=True).features[0], expected)


def test_a_layer_that_is_called_twice_is_represented_but_not_compared() -> None:
    network = odd("twice")
    layers = map_layers(network, SIZE, "convolutions")
    assert [layer.parameter for layer in layers] == ["stem.weight", "twice.weight"]
    assert choose_feature_maps(network, layers, SIZE) == ["norm"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Torchvision(model="fcn_resnet50"), "model must be an image classifier, which torchvision's fcn_resnet50 is not"),
        (lambda: Torchvision(model="resnet81"), "model must be the name of a torchvision model, got 'resnet81'; did you mean"),
        (lambda: Timm(model="resnet18.nobody_in1k"), "model must be the name of a timm model, got 'resnet18.nobody_in1k'"),
        (lambda: Torchvision(model="resnet18", version="V9"), "version must be one of IMAGENET1K_V1, got 'V9'"),
        (lambda: Timm(model="resnet18", pretrained=True, weights="a.pth"), "pretrained must be false where weights names a file"),
        (lambda: Timm(model="resnet18", pretrained=True, classes=4), "classes must be null where pretrained is true"),
        (lambda: Timm(model="resnet18", size=32, resize=16), "resize must be >= size (32), got 16"),
    ],
)
def test_impossible_options_are_refused(make: Any, message: str) -> None:
    with pytest.raises(OptionError) as error:
        make()
    assert message in str(error.value)


def test_pretrained_weights_come_from_the_folder_of_their_library(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    architecture = Torchvision(model="squeezenet1_1", pretrained=True)
    assert architecture.has_weights
    torch.manual_seed(1)
    theirs, ours = architecture.build(), architecture.build()
    file = tmp_path / "hub" / "checkpoints" / architecture._published().url.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    torch.save(theirs.state_dict(), file)
    dtypes = architecture.load(ours)
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())
    assert set(dtypes) == set(ours.state_dict())

    file.unlink()
    monkeypatch.setattr("torch.hub.urlopen", _no_network)
    with pytest.raises(DataError, match=r"cannot get the library's weights \(there is no network\); set architecture.pretrained=false"):
        architecture.load(ours)


def _no_network(*arguments: Any, **options: Any) -> Any:
    raise OSError("there is no network")


def test_auxiliary_classifiers_are_left_out_and_passed_over(tmp_path: Any) -> None:
    architecture = Torchvision(model="googlenet", size=64, classes=10)
    network = architecture.build().eval()
    assert not any(name.startswith("aux") for name in network.state_dict())
    published = {**network.state_dict(), "aux1.conv.conv.weight": torch.zeros(2), "aux2.fc1.bias": torch.zeros(2)}
    write_tensors(tmp_path / "published.safetensors", published)
    attrs.evolve(architecture, weights=str(tmp_path / "published.safetensors")).load(network)
    write_tensors(tmp_path / "foreign.safetensors", {**published, "aux3.bias": torch.zeros(2)})
    with pytest.raises(DataError, match=r"the network has no aux3\.bias"):
        attrs.evolve(architecture, weights=str(tmp_path / "foreign.safetensors")).load(network)
