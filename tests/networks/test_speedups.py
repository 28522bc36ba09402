"""Networks as people write them, each against plain PyTorch in double precision, with every speed-up that it bears."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from nern.errors import ConfigError
from nern.networks import crashes
from nern.networks.batch_norm import fold_batch_norms
from nern.networks.building import ready
from nern.networks.copies import copied
from nern.networks.pair import NetworkPair
from nern.networks.speedups import bearable, memory_layout
from nern.networks.tracing import trace_forward
from tests.helpers import randomise_batch_norms

CPU = torch.device("cpu")
SIZE = (3, 12, 12)


class Plain(nn.Module):
    """Two convolutions with batch norms, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.conv2, self.bn2 = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.fc = nn.Linear(16 * 9, 10)

    def maps(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        return F.avg_pool2d(F.relu(self.bn2(self.conv2(x))), 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.maps(x).flatten(1))


class Viewing(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.maps(x).view(-1, 144))


class Strided(Plain):
    """Reads its maps by their place in memory: other logits, without an error, where the layout is another one."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.maps(x)
        return self.fc(x.as_strided((len(x), 144), (144, 1)))


class WeightReadTwice(Plain):
    def maps(self, x: Tensor) -> Tensor:
        return super().maps(x) + F.avg_pool2d(F.conv2d(x, self.conv1.weight, None, 1, 1), 4)


class NormReadTwice(Plain):
    def maps(self, x: Tensor) -> Tensor:
        return super().maps(x) * self.bn2.weight.view(1, -1, 1, 1)


class ReadBehindTracing(Plain):
    """Reads a weight where no trace shows it."""

    def maps(self, x: Tensor) -> Tensor:
        return super().maps(x) * float(self.conv2.weight.detach().mean())


class Hooked(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.conv1.register_forward_hook(lambda module, inputs, output: output.clamp(-0.3, 0.3))


class NormInTraining(Plain):
    def train(self, mode: bool = True) -> NormInTraining:
        super().train(mode)
        self.bn2.train()
        return self


class UnderTwoNames(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(self.conv1, self.bn1, nn.ReLU(), nn.MaxPool2d(2), self.conv2, self.bn2, nn.ReLU(), nn.AvgPool2d(2))

    def maps(self, x: Tensor) -> Tensor:
        return self.features(x)


class Checkpointed(Plain):
    reentrant = False

    def maps(self, x: Tensor) -> Tensor:
        return checkpoint(super().maps, x, use_reentrant=self.reentrant)


class CheckpointedReentrantly(Checkpointed):
    reentrant = True


class Scripted(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.bn1 = torch.jit.script(nn.Sequential(nn.BatchNorm2d(16), nn.Hardswish()))


NETWORKS = [
    Plain, Viewing, Strided, WeightReadTwice, NormReadTwice, ReadBehindTracing, Hooked, NormInTraining, UnderTwoNames,
    Checkpointed, CheckpointedReentrantly, Scripted,
]  # fmt: skip


def made(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build()
        randomise_batch_norms(network)
    return network.eval()


def fastest_pair(
    network: nn.Module, features: list[str], names: list[str], dtype: torch.dtype = torch.float32
) -> tuple[NetworkPair, list[str]]:
    """A pair with the speed-ups that the network bears, and what is said of others."""
    speedups, lines = bearable(network, features, names, torch.zeros(2, *SIZE), device=CPU, dtype=dtype)
    pair = NetworkPair(
        network, features, device=CPU, dtype=speedups.dtype, fold=speedups.fold, channels_last=speedups.channels_last
    )  # fmt: skip
    return pair, lines


def images(count: int = 6) -> Tensor:
    return torch.randn(count, *SIZE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("build", NETWORKS)
def test_the_chosen_pair_computes_what_the_plain_network_computes(build: type[Plain]) -> None:
    network = made(build)
    before = copy.deepcopy(network.state_dict())
    names = ["conv1.weight", "conv2.weight"]
    pair, lines = fastest_pair(network, ["conv2"], names)
    original = copy.deepcopy(network).double()
    for _ in range(3):  # what a step leaves behind would change the next one
        torch.testing.assert_close(pair.original(images()).logits.double(), original(images().double()), rtol=1e-4, atol=1e-4)
        weights = {name: (before[name] + 0.1 * torch.randn_like(before[name])).requires_grad_() for name in names}
        outputs = pair.reconstructed(images(), weights, features=True)
        wide = copy.deepcopy(original)
        maps = []
        wide.conv2.register_forward_hook(lambda module, inputs, output, maps=maps: maps.append(output))
        with torch.no_grad():
            for name, weight in weights.items():
                wide.get_parameter(name).copy_(weight)
        if isinstance(wide, Checkpointed):
            wide.maps = lambda x, plain=wide: Plain.maps(plain, x)
        logits = wide(images().double())
        torch.testing.assert_close(outputs.logits.double(), logits, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(outputs.features[0].double(), maps[0], rtol=1e-4, atol=1e-4)
        (outputs.logits.square().sum() + outputs.features[0].square().sum()).backward()
        wide.zero_grad()
        (logits.square().sum() + maps[0].square().sum()).backward()
        for name, weight in weights.items():
            expected = wide.get_parameter(name).grad
            assert float((weight.grad.double() - expected).norm() / expected.norm()) < 1e-4, name
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    if build in (Plain, UnderTwoNames, WeightReadTwice):
        assert lines == []
    if build in (Viewing, Strided):
        assert not pair.speedups.channels_last
        assert lines[0].startswith("the network runs without channels-last memory, with which ")


def test_a_speedup_that_is_given_up_is_named_with_the_reason() -> None:
    for build, reason in ((Viewing, "it fails (view size is not compatible"), (Strided, "its outputs differ by ")):
        _, lines = fastest_pair(made(build), [], ["conv1.weight"])
        assert lines == [line for line in lines if line.startswith(f"the network runs without channels-last memory, with which {reason}")]
        assert len(lines) == 1


def test_folding_passes_by_what_is_read_twice_hooked_or_in_training() -> None:
    assert fold_batch_norms(made(Plain)).keys() == {"conv1.weight", "conv2.weight"}
    assert fold_batch_norms(made(WeightReadTwice)).keys() == {"conv2.weight"}
    assert fold_batch_norms(made(NormReadTwice)).keys() == {"conv1.weight"}
    assert fold_batch_norms(made(Hooked)).keys() == {"conv2.weight"}
    assert fold_batch_norms(made(NormInTraining)).keys() == {"conv1.weight"}
    assert fold_batch_norms(made(UnderTwoNames)).keys() == {"conv1.weight", "conv2.weight", "features.0.weight", "features.4.weight"}


class OnlyInFloat32(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.inverse(torch.eye(144)) @ self.maps(x).flatten(1).unsqueeze(2), torch.ones(10, 1)).mean(1) + self.lookup(x)

    def lookup(self, x: Tensor) -> Tensor:
        outputs = torch.zeros(len(x), 10)
        outputs[:, :10] = self.maps(x).mean((1, 2, 3))[:, None]
        if outputs.dtype != self.maps(x).dtype:
            raise RuntimeError("expected float32")
        return outputs


def test_bfloat16_is_given_up_where_the_network_fails_in_it() -> None:
    pair, lines = fastest_pair(made(OnlyInFloat32), [], ["conv1.weight"], torch.bfloat16)
    assert pair.dtype == torch.float32
    assert lines == ["the network runs in float32, since in bfloat16 it fails (expected float32)"]
    pair, lines = fastest_pair(made(Plain), [], ["conv1.weight"], torch.bfloat16)
    assert (pair.dtype, lines) == (torch.bfloat16, [])


class Failing(Plain):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("on purpose")


def test_a_network_that_cannot_run_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"the network cannot run forwards and backwards \(on purpose\)"):
        fastest_pair(made(Failing), [], ["conv1.weight"])


def test_the_memory_layout_is_one_in_which_the_network_runs() -> None:
    assert memory_layout(made(Plain), images()) == torch.channels_last
    assert memory_layout(made(Viewing), images()) == torch.contiguous_format
    assert memory_layout(made(Strided), images()) == torch.contiguous_format


# -- layers that end the process ---------------------------------------------------------------------------------------


class Branched(Plain):
    """Has the layer that writes beyond its memory on some processors."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 48, 1, 2)

    def maps(self, x: Tensor) -> Tensor:
        return super().maps(x) + self.stem(x).mean((1, 2, 3), keepdim=True)


def test_a_layer_that_ends_the_process_is_run_in_the_usual_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["conv1.weight", "stem.weight"]
    for crash in (True, False):
        monkeypatch.setattr(crashes, "_crashes", lambda layer, size, crash=crash: crash)
        pair, lines = fastest_pair(made(Branched), [], names)
        assert pair.speedups.channels_last is not crash
        assert pair.speedups.fold
        assert [line.endswith("the backward pass of 'stem' ends the process") for line in lines] == [True] * crash
        assert (memory_layout(made(Branched), images(), trains=True) == torch.contiguous_format) is crash


@pytest.mark.slow
def test_the_trial_agrees_with_a_process_that_watches_its_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    """The verdict is that of the trial's exit status, and is kept; nothing is tried where no layer is suspicious."""
    monkeypatch.setenv("NERN_CACHE", str(tmp_path))
    first = crashes.crashing_layer(made(Branched), SIZE)
    assert first in (None, "stem")
    monkeypatch.setattr(crashes.subprocess, "run", None)
    assert crashes.crashing_layer(made(Branched), SIZE) == first
    assert crashes.crashing_layer(made(Plain), SIZE) is None


def test_a_trial_that_dies_is_a_crash(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("NERN_CACHE", str(tmp_path))
    monkeypatch.setattr(crashes, "_TRIAL", "import os; os.abort()")
    assert crashes.crashing_layer(made(Branched), SIZE) == "stem"
    monkeypatch.setenv("NERN_CACHE", str(tmp_path) + "/other")
    monkeypatch.setattr(crashes, "_TRIAL", "")
    assert crashes.crashing_layer(made(Branched), SIZE) is (None if crashes.platform.libc_ver()[0] == "glibc" else "stem")


# -- what is made ready ------------------------------------------------------------------------------------------------


class Lazy(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.LazyConv2d(8, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(10))


def test_lazy_parts_get_their_shapes_from_the_size() -> None:
    network = ready(Lazy(), images)
    assert {name: tuple(value.shape) for name, value in network.named_parameters()}["0.weight"] == (8, 3, 3, 3)
    assert network.training
    with pytest.raises(ConfigError, match=r"the network has lazy parts and cannot take its inputs \(.*set architecture\.size"):
        ready(Lazy(), lambda: torch.zeros(1, 3, 2, 2))


def test_compiled_parts_are_taken_out_of_their_compilation() -> None:
    inside = made(Plain)
    partly = made(Plain)
    partly.fc = torch.compile(partly.fc, backend="eager")
    called = made(Plain)
    called.compile(backend="eager")
    for network in (torch.compile(inside, backend="eager"), partly, called):
        prepared = ready(network, images)
        assert list(prepared.state_dict()) == list(inside.state_dict())
        torch.testing.assert_close(prepared(images()), inside(images()))


def test_a_copy_shares_what_is_shared_and_nothing_else() -> None:
    network = made(UnderTwoNames)
    twin = copied(network, torch.clone)
    assert twin.features[0] is twin.conv1
    assert twin.conv1.weight is not network.conv1.weight
    assert torch.equal(twin(images()), network(images()))
    assert copied(network, lambda value: value.to("meta")).conv1.weight.device.type == "meta"


@pytest.mark.parametrize("build", [Viewing, UnderTwoNames, NormInTraining, Checkpointed, Scripted])
def test_tracing_leaves_a_network_as_it_was(build: type[Plain]) -> None:
    network = made(build)
    before = copy.deepcopy(network.state_dict())
    names = {event.name for event in trace_forward(network, SIZE)}
    assert {"conv1", "conv2", "fc"} <= names
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not network.conv1._forward_hooks


def test_a_pair_is_released_to_the_original_weights() -> None:
    network = made(UnderTwoNames)
    pair = NetworkPair(network, [], device=CPU)
    weight = torch.zeros(16, 3, 3, 3, requires_grad=True)
    changed = pair.reconstructed(images(), {"features.0.weight": weight}).logits
    assert not torch.allclose(changed, network(images()), atol=1e-3)
    pair.release()
    torch.testing.assert_close(pair.reconstructed(images(), {}).logits, network(images()), rtol=1e-4, atol=1e-4)
