"""Second moments of what kernels meet."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from nern import Engine
from nern.convolutions import map_convolutions
from nern.coordinates import KernelGrid, LayerMapping
from nern.errors import ConfigError, DataError
from nern.moments import kernel_moments
from nern.networks import NetworkPair
from nern.ordering import KernelOrder, LayerOrder, Unordered

CPU = torch.device("cpu")


def of(network: nn.Module, inputs: torch.Tensor, layers: list[LayerMapping], orders: list[LayerOrder] | None = None) -> torch.Tensor:
    pair = NetworkPair(network.eval(), [], device=CPU)
    orders = orders or [Unordered(layer.filters, layer.channels) for layer in layers]
    return kernel_moments(pair, KernelGrid(tuple(layers)), orders, [inputs[:3], inputs[3:]])


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 6, 3, groups=2, bias=False),
        nn.Conv2d(4, 4, 3, groups=4),
        nn.Conv2d(4, 5, (1, 3)),
        nn.ConvTranspose2d(4, 6, 3, groups=2),
        nn.Conv1d(4, 6, 3, groups=2),
    ],
)
def test_an_error_changes_the_output_as_its_moment_says(conv: nn.Module) -> None:
    """Property: with independent noise on one kernel, the mean square change of the output is moment · noise² · weights.

    Inputs that are constant over places of an image make every place of the output see the whole kernel but for the
    border, which is cut off.
    """
    torch.manual_seed(0)
    inputs = torch.randn(5, 4, 1, 1).expand(5, 4, 9, 9).contiguous()
    network = nn.Sequential(nn.Flatten(2) if isinstance(conv, nn.Conv1d) else nn.Identity(), conv, nn.Flatten())
    layers = map_convolutions(network, inputs.shape[1:])
    moments = of(network, inputs, layers).reshape(layers[0].filters, layers[0].channels)
    with torch.no_grad():
        before = network[:2](inputs)
        for filter, channel in ((0, 0), (layers[0].filters - 1, layers[0].channels - 1)):
            kernels = layers[0].split(conv.weight).clone()  # type: ignore[arg-type]
            delta = torch.randn(layers[0].kernel)
            kernels[filter * layers[0].channels + channel] += delta
            old = conv.weight.clone()  # type: ignore[operator]
            conv.weight.copy_(layers[0].join(kernels))  # type: ignore[operator]
            change = (network[:2](inputs) - before).square().double()
            conv.weight.copy_(old)  # type: ignore[operator]
            inner = change[:, :, 3:-3] if change.dim() == 3 else change[:, :, 3:-3, 3:-3]
            inner = inner.flatten(2).mean(2)  # [images, filters]
            assert float(inner.sum() - inner[:, filter].sum()) == pytest.approx(0, abs=1e-10)
            expected = float(moments[filter, channel]) * float(delta.sum()) ** 2
            assert float(inner[:, filter].mean()) == pytest.approx(expected, rel=1e-4)


def test_rows_follow_the_order_of_the_kernels() -> None:
    torch.manual_seed(0)
    network, inputs = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), torch.randn(5, 3, 8, 8)
    layers = map_convolutions(network, (3, 8, 8))
    order = KernelOrder(4, 3, torch.randperm(12))
    assert torch.equal(of(network, inputs, layers, [order]), of(network, inputs, layers)[order.indices()])


def test_calls_of_a_layer_add_up() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(2 * x) + self.conv(x)

    torch.manual_seed(0)
    inputs = torch.randn(5, 3, 8, 8)
    layers = [LayerMapping("conv.weight", (3, 3, 3, 3), 0)]
    expected = 5 * inputs.double().square().mean((0, 2, 3)).repeat(3)
    torch.testing.assert_close(of(Twice(), inputs, layers), expected, rtol=1e-5, atol=0)


def test_a_layer_that_meets_nothing_is_named() -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 1))
    network[0].register_module("spare", nn.Conv2d(3, 3, 3))
    with pytest.raises(ConfigError, match=r"'0\.spare\.weight' meets no activations"):
        of(network, torch.randn(5, 3, 8, 8), [LayerMapping("0.spare.weight", (3, 3, 3, 3), 0)])


def test_a_mapping_that_does_not_fit_its_layer_is_named() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3))
    with pytest.raises(ConfigError, match=r"'0\.weight' maps 9 channels of a layer that is given 3"):
        of(network, torch.randn(5, 3, 8, 8), [LayerMapping("0.weight", (4, 9, 1, 3), 0)])


def test_a_weight_that_no_convolution_holds_is_named() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    with pytest.raises(ConfigError, match=r"'1\.weight' is not the weight of a convolution"):
        of(network, torch.randn(5, 3, 2, 2), [LayerMapping("1.weight", (5, 12, 1, 1), 0)])


def test_images_are_missed_before_a_run_starts(tmp_path: Path) -> None:
    (tmp_path / "images" / "test" / "one").mkdir(parents=True)
    image = tmp_path / "images" / "test" / "one" / "a.png"
    Image.new("RGB", (32, 32)).save(image)
    weights = tmp_path / "weights.pt"
    torch.save(Engine.from_yaml("resnet20-cifar10", {"architecture.depth": 8})._fresh_network().state_dict(), weights)
    settings = {"architecture.depth": 8, "architecture.weights": str(weights), "output": str(tmp_path / "run")}
    settings |= {"task": {"name": "image-folder", "root": str(tmp_path / "images")}, "losses": {"reconstruction": {"moments": 1}}}
    settings |= {"losses.kd": None, "losses.fmd": None}
    with pytest.raises(DataError, match=r"the task has no training images; set inputs=\{name: uniform-noise\} in the phase"):
        Engine.from_yaml("resnet20-cifar10", settings).fit()
    assert not (tmp_path / "run").exists()
