"""The pair of networks against plain modules run in double precision."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nern.builtin.architectures.cifar_resnet import CifarResNet
from nern.errors import ConfigError
from nern.networks.batch_norm import fold_batch_norms
from nern.networks.pair import NetworkPair

CPU = torch.device("cpu")


class Odd(nn.Module):
    """Convolutions and batch norms in every relation to each other."""

    def __init__(self) -> None:
        super().__init__()
        self.biased = nn.Conv2d(3, 8, 3, padding=1, bias=True)
        self.bn_biased = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=4, bias=False)
        self.bn_grouped = nn.BatchNorm2d(8, affine=False)
        self.twice = nn.Conv2d(8, 8, 1, bias=False)  # called twice, once with a batch norm behind
        self.bn_twice = nn.BatchNorm2d(8)
        self.branching = nn.Conv2d(8, 8, (1, 3), padding=(0, 1), bias=False)  # read by its batch norm and by a sum
        self.bn_branching = nn.BatchNorm2d(8, eps=1e-2)
        self.late = nn.Conv2d(8, 8, 3, stride=2, bias=False)
        self.bn_late = nn.BatchNorm2d(8)  # behind an activation
        self.tied = nn.Conv2d(8, 8, 1, bias=False)
        self.bn_tied = nn.BatchNorm2d(8)
        self.tied_too = nn.Conv2d(8, 8, 1, bias=False)
        self.tied_too.weight = self.tied.weight
        self.by_name = nn.Conv2d(8, 8, 1, bias=False)
        self.bn_by_name = nn.BatchNorm2d(8)
        self.linear = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn_biased(self.biased(x)))
        x = F.relu(self.bn_grouped(self.grouped(x)))
        x = self.twice(F.relu(self.bn_twice(self.twice(x))))
        y = self.branching(x)
        x = y + self.bn_branching(y)
        x = self.bn_late(F.relu(self.late(x)))
        x = self.tied_too(F.relu(self.bn_tied(self.tied(x))))
        x = self.bn_by_name(input=self.by_name(x))
        return self.linear(x.mean((2, 3)))


class Untraceable(Odd):
    """A forward that torch.fx cannot follow."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if float(x.sum()) > -1e9 else -x)


def prepared(network: nn.Module, size: int = 12) -> nn.Module:
    """The network in eval mode, with statistics, scales and shifts that matter."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            if module.affine:
                nn.init.uniform_(module.weight, -1.5, 1.5)
                nn.init.normal_(module.bias)
    with torch.no_grad():
        network.train()(torch.randn(32, 3, size, size))
    return network.eval()


def convolutions(network: nn.Module) -> list[str]:
    return [f"{name}.weight" for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]


def run_plainly(network: nn.Module, inputs: Tensor, features: list[str]) -> tuple[Tensor, list[Tensor]]:
    """Logits, and the outputs of `features` in their order."""
    seen: dict[str, list[Tensor]] = {name: [] for name in features}
    handles = [network.get_submodule(name).register_forward_hook(lambda m, i, o, n=name: seen[n].append(o.clone())) for name in features]
    logits = network(inputs)
    for handle in handles:
        handle.remove()
    return logits, [output for name in features for output in seen[name]]


NETWORKS = {
    "cifar-resnet A": (lambda: CifarResNet(depth=8, width=8).build(), None),
    "cifar-resnet B": (lambda: CifarResNet(depth=14, width=4, shortcut="B").build(), None),
    "odd": (Odd, ["bn_biased", "bn_grouped", "branching", "bn_late", "bn_tied", "linear"]),
    "untraceable": (Untraceable, ["bn_biased", "bn_grouped"]),
}


@pytest.mark.parametrize("fold", [True, False], ids=["folded", "unfolded"])
@pytest.mark.parametrize("which", NETWORKS)
def test_both_networks_equal_plain_ones_in_double_precision(which: str, fold: bool) -> None:
    make, features = NETWORKS[which]
    network = prepared(make())
    if features is None:
        features = [name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d) or name.endswith(".sum")]
    before = copy.deepcopy(network.state_dict())
    pair = NetworkPair(network, features, device=CPU, fold=fold)
    inputs = torch.randn(6, 3, 12, 12)
    wide = copy.deepcopy(network).double()

    logits, maps = run_plainly(wide, inputs.double(), features)
    outputs = pair.original(inputs, features=True)
    torch.testing.assert_close(outputs.logits.double(), logits, rtol=1e-4, atol=1e-4)
    assert len(outputs.features) == len(maps)
    for a, b in zip(outputs.features, maps, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4)
    assert not outputs.logits.requires_grad

    names = [name for name in convolutions(network) if name in dict(network.named_parameters())]
    weights = {name: (before[name] + 0.1 * torch.randn_like(before[name])).requires_grad_() for name in names}
    with torch.no_grad():
        for name, weight in weights.items():
            wide.get_parameter(name).copy_(weight)
    wide.zero_grad()
    logits, maps = run_plainly(wide, inputs.double(), features)
    outputs = pair.reconstructed(inputs, weights, features=True)
    torch.testing.assert_close(outputs.logits.double(), logits, rtol=1e-4, atol=1e-4)

    def measure(logits: Tensor, maps: list[Tensor]) -> Tensor:
        return logits.square().sum() + sum((m * torch.arange(m.numel()).reshape(m.shape).cos()).sum() for m in maps)

    measure(outputs.logits, outputs.features).backward()
    measure(logits, maps).backward()
    for name, weight in weights.items():
        expected = wide.get_parameter(name).grad
        assert float((weight.grad.double() - expected).norm() / expected.norm()) < 1e-4, name
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_torchvision_networks_fold_to_the_same_function() -> None:
    import torchvision

    network = prepared(torchvision.models.resnet18(num_classes=10), 64)
    features = [name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)]
    inputs = torch.randn(2, 3, 64, 64)
    outputs = NetworkPair(network, features, device=CPU).original(inputs, features=True)
    logits, maps = run_plainly(network.double().requires_grad_(False), inputs.double(), features)
    for a, b in zip([outputs.logits, *outputs.features], [logits, *maps], strict=True):
        assert float((a.double() - b).norm() / b.norm()) < 1e-5


def test_a_batch_norm_is_folded_only_where_it_alone_reads_a_convolution_of_its_own() -> None:
    network = prepared(Odd())
    scales = fold_batch_norms(network)
    assert set(scales) == {"biased.weight", "grouped.weight", "by_name.weight"}
    assert isinstance(network.bn_biased, nn.Identity)
    assert isinstance(network.bn_twice, nn.BatchNorm2d)


def test_a_convolution_whose_output_is_compared_is_not_folded() -> None:
    network = prepared(Odd())
    assert "biased.weight" not in fold_batch_norms(network, keep=["biased"])


def test_feature_maps_come_in_the_order_of_their_names() -> None:
    network = prepared(CifarResNet(depth=8, width=4).build())
    names = ["layer3.0.sum", "bn1", "layer2.0.bn2"]
    inputs = torch.randn(2, 3, 12, 12)
    features = NetworkPair(network, names, device=CPU).original(inputs, features=True).features
    _, maps = run_plainly(network, inputs, names)
    assert [m.shape for m in features] == [m.shape for m in maps]
    for a, b in zip(features, maps, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_no_feature_map_is_kept_unless_wanted() -> None:
    network = prepared(CifarResNet(depth=8, width=4).build())
    pair = NetworkPair(network, ["bn1"], device=CPU)
    inputs = torch.randn(2, 3, 12, 12)
    assert pair.original(inputs).features == []
    assert len(pair.original(inputs, features=True).features) == 1
    assert pair.reconstructed(inputs, {}).features == []


def test_bfloat16_gives_float32_logits_near_the_exact_ones() -> None:
    network = prepared(CifarResNet(depth=8, width=8).build())
    inputs = torch.randn(8, 3, 12, 12)
    exact = NetworkPair(network, [], device=CPU).original(inputs).logits
    logits = NetworkPair(network, [], device=CPU, dtype=torch.bfloat16).original(inputs).logits
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, exact)
    assert float((logits - exact).norm() / exact.norm()) < 0.05


def test_an_unknown_feature_map_is_named() -> None:
    with pytest.raises(ConfigError, match="feature map 'layer9' is no module of the network"):
        NetworkPair(CifarResNet(depth=8).build(), ["bn1", "layer9"], device=CPU)


def test_a_network_with_a_copied_volume_runs() -> None:
    """Layouts for images are for weights of four dimensions; a three-dimensional convolution beside them stays as it is."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.image, self.volume = nn.Conv2d(2, 3, 3), nn.Conv3d(1, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.volume(self.image(x)[:, None]).flatten(1)

    torch.manual_seed(0)
    network, inputs = Mixed().eval(), torch.randn(2, 2, 7, 7)
    pair = NetworkPair(network, [], device=CPU)
    torch.testing.assert_close(pair.original(inputs).logits, network(inputs).detach(), rtol=1e-4, atol=1e-5)
    weight = network.image.weight.detach().clone().requires_grad_()
    pair.reconstructed(inputs, {"image.weight": weight}).logits.sum().backward()
    assert weight.grad is not None
