"""CIFAR ResNets: the published layout, depth, shortcuts, and what of them is represented and compared."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from nern.builtin.architectures.cifar_resnet import CifarResNet, Shortcut


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (56, 0.85)])
def test_option_a_has_the_published_sizes(depth: int, millions: float) -> None:
    """3·16·9 + 2n·16²·9 + 16·32·9 + (2n − 1)·32²·9 + 32·64·9 + (2n − 1)·64²·9 convolution weights, n = (depth − 2) / 6."""
    n = (depth - 2) // 6
    formula = 9 * (3 * 16 + 2 * n * 16**2 + 16 * 32 + (2 * n - 1) * 32**2 + 32 * 64 + (2 * n - 1) * 64**2)
    component = CifarResNet(depth=depth)
    network = component.build()
    layers = component.layers(network)
    assert sum(torch.Size(layer.shape).numel() for layer in layers) == formula
    assert round(sum(parameter.numel() for parameter in network.parameters()) / 1e6, 2) == millions
    assert len(layers) == depth - 1
    assert [layer.layer for layer in layers] == list(range(depth - 1))
    assert all(layer.kernel == (3, 3) for layer in layers)


def test_option_b_adds_two_projections_with_batch_norm() -> None:
    component = CifarResNet(depth=20, shortcut="B")
    layers = component.layers(component.build())
    assert len(layers) == 19 + 2
    assert [(layer.parameter, layer.shape) for layer in layers if layer.kernel == (1, 1)] == [
        ("layer2.0.shortcut.0.weight", (32, 16, 1, 1)),
        ("layer3.0.shortcut.0.weight", (64, 32, 1, 1)),
    ]


def test_feature_maps_are_batch_norms_and_sums() -> None:
    for shortcut, norms in (("A", 19), ("B", 21)):
        component = CifarResNet(depth=20, shortcut=shortcut)
        network = component.build()
        names = component.features(network)
        assert sum(isinstance(network.get_submodule(name), nn.BatchNorm2d) for name in names) == norms
        assert sum(name.endswith(".sum") for name in names) == 9
        assert len(set(names)) == len(names) == norms + 9


def test_residual_sums_are_seen_before_their_activation() -> None:
    network = CifarResNet(depth=8, width=4).build().eval()
    seen: dict[str, torch.Tensor] = {}
    for name in ("layer2.0.bn2", "layer2.0.shortcut", "layer2.0.sum", "layer2.0"):
        network.get_submodule(name).register_forward_hook(lambda m, i, o, name=name: seen.update({name: o}))
    network(torch.randn(2, 3, 16, 16))
    torch.testing.assert_close(seen["layer2.0.sum"], seen["layer2.0.bn2"] + seen["layer2.0.shortcut"])
    torch.testing.assert_close(seen["layer2.0"], seen["layer2.0.sum"].clamp(min=0))
    assert bool((seen["layer2.0.sum"] < 0).any())


def test_option_a_takes_every_second_pixel_and_pads_with_zeros() -> None:
    x = torch.randn(2, 3, 6, 8)
    output = Shortcut(3)(x)
    assert output.shape == (2, 6, 3, 4)
    for channel in range(6):
        for y in range(3):
            for z in range(4):
                expected = x[:, channel - 1, 2 * y, 2 * z] if 1 <= channel < 4 else torch.zeros(2)
                assert torch.equal(output[:, channel, y, z], expected)


@pytest.mark.parametrize(
    ("options", "shape"), [({"classes": 100}, (2, 100)), ({"channels": 1, "size": 8, "mean": [0.3], "std": [0.4]}, (2, 10))]
)
def test_options_set_the_number_of_classes_and_the_size_of_inputs(options: dict[str, object], shape: tuple[int, int]) -> None:
    component = CifarResNet(depth=8, **options)
    preprocessing = component.preprocessing()
    assert component.build().eval()(torch.zeros(2, *preprocessing.size)).shape == shape


def test_the_real_weights_fit(resnet20_weights: Path, resnet56_weights: Path) -> None:
    for depth, path in ((20, resnet20_weights), (56, resnet56_weights)):
        component = CifarResNet(depth=depth, weights=str(path))
        dtypes = component.load(component.build())
        assert set(dtypes.values()) <= {torch.float32, torch.int64}


@pytest.mark.parametrize("depth", [2, 7, 18, 21])
def test_impossible_depths_are_refused(depth: int) -> None:
    with pytest.raises(ValueError, match=f"depth must be 6n \\+ 2 .*, got {depth}"):
        CifarResNet(depth=depth)


def test_statistics_of_other_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"mean must have one value per channel \(1\), got 3"):
        CifarResNet(channels=1)
