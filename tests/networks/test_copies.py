"""Copies of networks whose forward passes leave something behind, and networks that are left as they were."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nern.errors import ConfigError
from nern.networks.copies import copied, duplicate, unchanged
from nern.networks.pair import NetworkPair
from nern.networks.speedups import bearable
from nern.networks.state_dicts import with_weights
from tests.helpers import same


class Counting(nn.Module):
    """Counts its calls, and averages its activations, in buffers; `form` says how it writes them."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form, self.last = form, torch.zeros(())
        self.conv = nn.Conv2d(1, 4, 3)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        self.calls += 1
        if self.form == "new":
            self.mean = 0.9 * self.mean + 0.1 * y.mean((0, 2, 3))
        elif self.form == "in place":
            self.mean.mul_(0.9).add_(0.1 * y.mean((0, 2, 3)))
        elif self.form == "state":
            y = y + self.last
            self.last = y.mean()
        elif self.form == "kept":
            self.last = y.mean()
        return (y - self.mean[:, None, None]).mean((2, 3))


def made(form: str) -> Counting:
    torch.manual_seed(0)
    return Counting(form)


IMAGES = torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("form", ["new", "in place"])
def test_forward_passes_that_change_buffers_leave_the_network_unchanged(form: str) -> None:
    network = made(form)
    network.mean += 1
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad(), unchanged(network):
        network(IMAGES)
        assert network.calls == 1 and not torch.equal(network.mean, before["mean"])
    assert same(network.state_dict(), before)


@pytest.mark.parametrize("form", ["new", "in place", "kept"])
def test_a_network_that_changes_its_buffers_can_be_trained_for_many_steps(form: str) -> None:
    network = made(form)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    pair = NetworkPair(network, [], device=torch.device("cpu"))
    weight = (1.1 * network.conv.weight.detach()).requires_grad_()
    for _ in range(3):
        (gradient,) = torch.autograd.grad(pair.reconstructed(IMAGES, {"conv.weight": weight}).logits.square().sum(), [weight])
        assert gradient.isfinite().all() and gradient.any()
    assert same(network.state_dict(), before)
    bearable(network, [], ["conv.weight"], IMAGES, device=torch.device("cpu"), dtype=torch.float32)


def test_a_tensor_that_one_forward_pass_keeps_for_the_next_is_named_before_training() -> None:
    with pytest.raises(ConfigError, match=r"keeps a tensor of one forward pass for the next.*detach that tensor in its forward method"):
        bearable(made("state"), [], ["conv.weight"], IMAGES, device=torch.device("cpu"), dtype=torch.float32)


@pytest.mark.filterwarnings("ignore")
def test_tensors_that_a_forward_pass_has_left_do_not_prevent_copies() -> None:
    kept, normed = made("kept"), made("none")
    kept(IMAGES)
    nn.utils.weight_norm(normed.conv)
    for network in (kept, normed):
        for copy in (duplicate(network), copied(network, torch.clone)):
            assert torch.equal(copy(IMAGES), network(IMAGES))
            assert copy.conv.bias.data_ptr() != network.conv.bias.data_ptr()


@pytest.mark.filterwarnings("ignore:.*weight_norm")
def test_weights_are_replaced_in_a_network_that_keeps_what_it_has_computed() -> None:
    network = nn.Sequential(nn.utils.weight_norm(nn.Conv2d(1, 4, 3)), nn.Conv2d(4, 2, 1))
    network(torch.ones(1, 1, 5, 5))
    changed = with_weights(network, {"1.weight": torch.ones(2, 4, 1, 1)})
    assert torch.equal(changed.state_dict()["1.weight"], torch.ones(2, 4, 1, 1))
    assert not torch.equal(network.state_dict()["1.weight"], torch.ones(2, 4, 1, 1))
