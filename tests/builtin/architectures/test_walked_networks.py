"""Networks of torchvision and timm, found by walking: mappings, feature maps and short runs."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional as F

from nern.artifact import reading
from nern.builtin.architectures.imagenet_resnet import ImageNetResNet
from nern.builtin.architectures.squeezenet import SqueezeNet
from nern.builtin.architectures.timm import Timm
from nern.builtin.architectures.torchvision import Torchvision
from nern.engine import Engine
from nern.networks.pair import NetworkPair
from nern.support.files import write_tensors
from nern.toolkit.architectures import LibraryArchitecture
from tests.helpers import randomise_batch_norms

CPU = torch.device("cpu")

#: Grouped and depthwise kernels, 1 × 7 and 7 × 1, even sizes, several sizes in a layer, biases, pre-activations, tokens.
NETWORKS: dict[str, LibraryArchitecture] = {
    "resnet18": ImageNetResNet(layers="convolutions", size=32, classes=10),
    "squeezenet": SqueezeNet(layers="convolutions", size=48, classes=10),
    "torchvision-mobilenet": Torchvision(model="mobilenet_v3_small", size=32, classes=10),
    "torchvision-shufflenet": Torchvision(model="shufflenet_v2_x0_5", size=32, classes=10),
    "torchvision-densenet": Torchvision(model="densenet121", size=32, classes=10),
    "torchvision-inception": Torchvision(model="inception_v3", size=75, classes=10),
    "timm-efficientnet": Timm(model="efficientnet_b0", size=32, classes=10),
    "timm-regnet": Timm(model="regnetx_002", size=32, classes=10),
    "timm-convnext": Timm(model="convnext_atto", size=32, classes=10),
    "timm-mixnet": Timm(model="mixnet_s", size=32, classes=10),
    "timm-eca": Timm(model="eca_resnet33ts", size=32, classes=10),
    "timm-vit": Timm(model="vit_tiny_patch16_224", size=32, classes=10),
}


def built(architecture: LibraryArchitecture) -> nn.Module:
    """The network with weights, shifts and statistics that matter."""
    torch.manual_seed(0)
    network = architecture.build().eval()
    randomise_batch_norms(network, std=0.1)
    return network


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_and_maps_of_a_network(name: str) -> None:
    architecture = NETWORKS[name]
    network = built(architecture)
    state, layers = network.state_dict(), list(architecture.layers(network))

    expected = [key for key, value in state.items() if value.dim() >= 3 and key.endswith("weight")]
    assert [layer.parameter for layer in layers] == expected
    assert [layer.layer for layer in layers] == list(range(len(layers)))
    for layer in layers:
        weight, place = state[layer.parameter], layer.coordinates()
        assert torch.equal(layer.split(weight).flatten(1), weight[place[:, 1], place[:, 2]].flatten(1))  # [f, c] of each kernel
        assert torch.equal(layer.join(layer.split(weight)), weight)

    names = list(architecture.features(network))
    inputs = torch.randn(2, *architecture.preprocessing().size)
    maps, logits = plain_maps(network, names, inputs)
    pair = NetworkPair(network, names, device=CPU)  # batch norms are folded where torch.fx can follow
    outputs = pair.original(inputs, features=True)
    assert relative(outputs.logits, logits) < 1e-4
    for each, value in zip(names, outputs.features, strict=True):
        if each in maps:
            assert relative(value, maps[each]) < 1e-4, each
    assert len(set(names) & set(maps)) >= len(layers)  # behind every represented convolution stands a map


def plain_maps(network: nn.Module, names: list[str], inputs: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Outputs of those `names` that are modules, copied as they are made, and the logits, in double precision."""
    network = network.double()
    maps: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda module, arguments, output: maps.update({name: output.clone()})

    hooks = [module.register_forward_hook(keep(name)) for name, module in network.named_modules() if name in names]
    with torch.no_grad():
        logits = network(inputs.double())
    for hook in hooks:
        hook.remove()
    network.float()
    return maps, logits


def relative(actual: Tensor, expected: Tensor) -> float:
    return float(((actual.double() - expected).norm() / expected.norm().clamp_min(1e-12)).detach())


def test_residual_sums_are_what_blocks_activate() -> None:
    architecture = ImageNetResNet(size=32, classes=10)
    network = built(architecture)
    names = list(architecture.features(network))
    blocks = [f"layer{stage}.{block}" for stage in range(1, 5) for block in range(2)]
    assert names == [f"{block}.{part}" for block in blocks for part in ("bn1", "bn2", "sum")]
    inputs = torch.randn(2, 3, 32, 32)
    outputs, _ = plain_maps(network, blocks, inputs)
    maps = dict(zip(names, NetworkPair(network, names, device=CPU).original(inputs, features=True).features, strict=True))
    for block in blocks:
        assert relative(F.relu(maps[f"{block}.sum"]), outputs[block]) < 1e-5


def test_a_block_with_two_sums_names_both() -> None:
    architecture = NETWORKS["timm-vit"]
    network = built(architecture)
    names = list(architecture.features(network))
    assert names == ["patch_embed.proj", *(f"blocks.{block}.{part}" for block in range(12) for part in ("sum", "sum2"))]
    inputs = torch.randn(2, 3, 32, 32)
    outputs, _ = plain_maps(network, [f"blocks.{block}" for block in range(12)], inputs)
    maps = dict(zip(names, NetworkPair(network, names, device=CPU).original(inputs, features=True).features, strict=True))
    for block in range(12):
        assert relative(maps[f"blocks.{block}.sum2"], outputs[f"blocks.{block}"]) < 1e-5


def test_activations_do_not_work_in_place() -> None:
    for architecture in (NETWORKS["resnet18"], NETWORKS["torchvision-mobilenet"], NETWORKS["timm-eca"]):
        assert not any(getattr(module, "inplace", False) for module in architecture.build().modules())


def test_norms_that_activate_are_compared_before_the_activation() -> None:
    architecture = NETWORKS["timm-efficientnet"]
    network = built(architecture)
    names = list(architecture.features(network))
    assert names[:2] == ["bn1.drop", "blocks.0.0.bn1.drop"]
    inputs = torch.randn(2, 3, 32, 32)
    outputs, _ = plain_maps(network, ["conv_stem"], inputs)
    norm = network.get_submodule("bn1").double()
    stem = F.batch_norm(outputs["conv_stem"], norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
    network.float()
    assert relative(NetworkPair(network, names, device=CPU).original(inputs, features=True).features[0], stem) < 1e-5


@pytest.mark.parametrize(
    ("name", "small_kernels", "patterns"),
    [  # few layers each: a row of the grid takes as many numbers as the largest kernel has
        ("squeezenet", "max", ["features.0.weight", "features.3.*.weight"]),
        ("torchvision-inception", "average", ["Mixed_6b.branch7x7_2.conv.weight", "Mixed_7b.branch3x3_2a.conv.weight"]),
        ("timm-regnet", "centre", ["s1.*.weight", "s2.*.conv2.*.weight"]),
        ("timm-eca", "centre", ["stages.0.0.*.weight"]),
        ("timm-vit", "centre", ["patch_embed.*"]),
    ],
)
def test_networks_train_for_three_steps_and_are_rebuilt_from_the_file(
    name: str, small_kernels: str, patterns: list[str], tmp_path: Path
) -> None:
    architecture = NETWORKS[name]
    network = built(architecture)
    write_tensors(tmp_path / "original.safetensors", network.state_dict())
    options = {"name": name.split("-")[0], "model": architecture.model, "size": architecture.size, "classes": 10}  # type: ignore[attr-defined]
    experiment = {
        "architecture": {**options, "layers": patterns, "weights": str(tmp_path / "original.safetensors")},
        "task": {"name": "uniform-noise", "heldout_images": 4},
        "embedding": {"name": "positional", "frequencies": 2},
        "predictor": {"name": "mlp", "hidden": 4},
        "smoother": {"name": "none"},
        "sampler": {"name": "magnitude", "batch": 256, "uniform": 0.5},
        "losses": {"reconstruction": {}, "kd": {}, "fmd": {}},
        "small_kernels": small_kernels,
        "phases": [{"iterations": 3, "batch": 2}],
        "optimizer": {"name": "adamw", "lr": 1e-3},
        "heldout": 0.0,
        "evaluate_every": 0,
        "log_every": 1,
        "observers": {},
        "precision": "float32",
        "device": "cpu",
        "output": str(tmp_path / "run"),
    }
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(experiment))
    assert Engine.from_yaml(tmp_path / "experiment.yaml").fit().iterations == 3
    original = network.state_dict()
    chosen = {key for key in original if any(fnmatchcase(key, pattern) for pattern in patterns) and original[key].dim() >= 3}
    rebuilt = reading.load(tmp_path / "run" / "model.nern").reconstruct().state_dict()
    assert [(key, value.shape, value.dtype) for key, value in rebuilt.items()] == [
        (key, value.shape, value.dtype) for key, value in original.items()
    ]
    assert {key for key, value in rebuilt.items() if not torch.equal(value, original[key])} == chosen
