"""Orders of kernels: what they cost, how they are stored, and that they can be undone."""

from __future__ import annotations

import threading
from math import ceil, log2
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nern.builtin.architectures.cifar_resnet import CifarResNet
from nern.builtin.observers.progress import ProgressBar
from nern.builtin.smoothers.greedy import CrossFilter, InFilter
from nern.builtin.smoothers.local_search import CrossFilter2Opt, InFilter2Opt
from nern.config.loading import load_experiment
from nern.engine import Engine
from nern.errors import Interrupted
from nern.interfaces import Smoother
from nern.kernels.coordinates import KernelGrid
from nern.kernels.distances import path_length
from nern.kernels.orders import ORDER_KINDS, BitReader, FilterOrder, KernelOrder, LayerOrder, Unordered, bits_per_entry, pack_orders
from nern.registry.registry import Registry
from nern.run import original
from nern.run.interruption import StopRequest
from tests.kernels.test_greedy_path import brute_force

SMOOTHERS = (CrossFilter(), InFilter(), CrossFilter2Opt(), InFilter2Opt())


def orders(filters: int, channels: int, seed: int = 0) -> list[LayerOrder]:
    """One of each kind."""
    source = torch.Generator().manual_seed(seed)
    inner = torch.stack([torch.randperm(channels, generator=source) for _ in range(filters)])
    return [
        Unordered(filters, channels),
        KernelOrder(filters, channels, torch.randperm(filters * channels, generator=source)),
        FilterOrder(filters, channels, inner, torch.randperm(filters, generator=source)),
    ]


def restored(smoother: Smoother, weight: Tensor) -> Tensor:
    """A weight [f, c, h, w], put in order and back by what is stored."""
    filters, channels = weight.shape[:2]
    kernels = weight.reshape(filters, channels, -1)
    order = smoother.order(kernels)
    stored = type(order).from_bits(filters, channels, BitReader(pack_orders([order])))
    back = torch.empty_like(kernels).reshape(filters * channels, -1)
    back[stored.indices()] = kernels.reshape(filters * channels, -1)[order.indices()]
    return back.reshape(weight.shape)


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**20))
def test_orders_of_every_kind_are_packed_one_behind_the_other(filters: int, channels: int, seed: int) -> None:
    layer_orders = [*orders(filters, channels, seed), *orders(channels, filters, seed + 1)]
    packed = pack_orders(layer_orders)
    count = filters * channels
    cross, inner = count * ceil(log2(count)), count * ceil(log2(channels)) + filters * ceil(log2(filters))
    transposed = count * ceil(log2(filters)) + channels * ceil(log2(channels))
    assert [order.bits for order in layer_orders] == [0, cross, inner, 0, cross, transposed]
    assert packed.dtype == torch.uint8 and len(packed) == ceil((2 * cross + inner + transposed) / 8)
    reader = BitReader(packed)
    for order in layer_orders:
        read = ORDER_KINDS[order.kind].from_bits(order.filters, order.channels, reader)
        assert torch.equal(read.indices(), order.indices())
    reader.finish()


def test_entries_are_packed_most_significant_bit_first() -> None:
    packed = pack_orders([KernelOrder(1, 5, torch.tensor([4, 0, 3, 1, 2]))])
    assert packed.tolist() == [0b10000001, 0b10010100]


@pytest.mark.parametrize(("choices", "bits"), [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (2**18, 18), (2**18 + 1, 19)])
def test_an_entry_takes_the_logarithm_of_its_choices_in_whole_bits(choices: int, bits: int) -> None:
    assert bits_per_entry(choices) == bits


@pytest.mark.parametrize("kind", [1, 2])
def test_corrupted_orders_are_refused(kind: int) -> None:
    order = orders(5, 6)[kind]
    packed = pack_orders([order])

    def read(stored: Tensor) -> None:
        reader = BitReader(stored)
        type(order).from_bits(5, 6, reader)
        reader.finish()

    read(packed)
    with pytest.raises(ValueError, match="the stored ordering is too short"):
        read(packed[:-1])
    with pytest.raises(ValueError, match="the stored ordering is too long"):
        read(torch.cat([packed, packed[:1]]))
    for byte in range(len(packed) - 1):
        broken = packed.clone()
        broken[byte] ^= 0b00010000
        with pytest.raises(ValueError, match="the stored ordering is not a permutation"):
            read(broken)


@pytest.mark.parametrize("smoother", SMOOTHERS, ids=lambda smoother: type(smoother).__name__)
@pytest.mark.parametrize("shape", [(6, 5, 3, 3), (7, 4, 1, 1), (3, 1, 5, 5), (1, 8, 3, 3), (16, 16, 1, 3)])
def test_orders_are_undone_exactly(smoother: Smoother, shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(restored(smoother, weight), weight)


@pytest.mark.parametrize("smoother", SMOOTHERS[:2], ids=lambda smoother: type(smoother).__name__)
def test_orders_of_a_real_network_are_undone_exactly(smoother: Smoother, resnet20_weights: Path) -> None:
    state = torch.load(resnet20_weights, map_location="cpu", weights_only=True)["state_dict"]
    convolutions = [value for value in state.values() if value.dim() == 4]
    assert len(convolutions) == 19
    for weight in convolutions:
        assert torch.equal(restored(smoother, weight), weight)


@pytest.mark.parametrize("size", [1, 9])
@pytest.mark.parametrize("ties", [False, True])
def test_in_filter_is_the_brute_force_double_loop(size: int, ties: bool) -> None:
    source = torch.Generator().manual_seed(size)
    kernels = torch.randint(-1, 2, (6, 7, size), generator=source).float() if ties else torch.randn(6, 7, size, generator=source)
    inner = [brute_force(kernels[f]) for f in range(6)]
    ordered = torch.stack([torch.cat([kernels[f, c] for c in inner[f]]) for f in range(6)])
    expected = [f * 7 + c for f in brute_force(ordered) for c in inner[f]]
    assert InFilter().order(kernels).indices().tolist() == expected


def test_cross_filter_is_the_brute_force_path() -> None:
    kernels = torch.randn(8, 6, 9, generator=torch.Generator().manual_seed(1))
    assert CrossFilter().order(kernels).indices().tolist() == brute_force(kernels.reshape(48, 9))


@pytest.mark.parametrize("greedy, better", [(CrossFilter(), CrossFilter2Opt()), (InFilter(), InFilter2Opt())])
def test_local_search_costs_no_bits(greedy: Smoother, better: Smoother) -> None:
    kernels = torch.randn(12, 10, 9, generator=torch.Generator().manual_seed(2))
    before, after = greedy.order(kernels), better.order(kernels)
    assert type(after) is type(before) and after.bits == before.bits
    inside = [kernels.reshape(-1, 9)[order.indices()].reshape(12, 10, 9) for order in (before, after)]
    if isinstance(before, KernelOrder):
        lengths = [path_length(values.reshape(-1, 9)) for values in inside]
    else:
        lengths = [sum(path_length(row) for row in values) for values in inside]
    assert lengths[1] < lengths[0]


# -- sizes in the paper ----------------------------------------------------------------------------------------------


def cifar_resnet(depth: int) -> list[tuple[int, int]]:
    with torch.device("meta"):
        network = CifarResNet(depth=depth).build()
    return [layer.shape[:2] for layer in CifarResNet(depth=depth).layers(network)]  # type: ignore[misc]


def resnet18() -> list[tuple[int, int]]:
    """The 3 × 3 convolutions of the four stages."""
    stages = [(64, 64), (64, 128), (128, 256), (256, 512)]
    return [pair for inputs, width in stages for pair in ((width, inputs), *[(width, width)] * 3)]


@pytest.mark.parametrize(
    ("layers", "cross", "inside"),
    [(cifar_resnet(20), 0.04, 0.02), (cifar_resnet(56), 0.128, 0.065), (resnet18(), 2.505, 1.246)],
    ids=["ResNet20", "ResNet56", "ResNet18"],
)
def test_overhead_is_that_of_table_9(layers: list[tuple[int, int]], cross: float, inside: float) -> None:
    """In MB, by the formulas of Appendix D.1, and as a packed file."""
    formula_cross = sum(f * c * (log2(f) + log2(c)) for f, c in layers)
    formula_inside = sum(f * c * log2(c) + f * log2(f) for f, c in layers)
    packed_cross = len(pack_orders([KernelOrder(f, c, torch.arange(f * c)) for f, c in layers]))
    packed_inside = len(pack_orders([FilterOrder(f, c, torch.arange(c).repeat(f, 1), torch.arange(f)) for f, c in layers]))
    for printed, formula, packed in ((cross, formula_cross, packed_cross), (inside, formula_inside, packed_inside)):
        units = [formula / 8 / unit for unit in (1e6, 2**20)]  # the paper does not say which
        assert min(abs(value - printed) for value in units) <= 0.02 * printed + 0.0005
        # only the stem's 3 channels are no power of two: its entries round up to a whole bit
        assert 0 <= packed - formula / 8 <= 1 + sum(f * c for f, c in layers if c == 3) / 8


# -- all layers of a network -----------------------------------------------------------------------------------------


def test_layers_are_ordered_side_by_side_and_kept_in_the_cache(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(2)
    experiment, _ = load_experiment("digits", {}, registry)
    network = experiment.architecture.build()
    grid = KernelGrid(tuple(experiment.architecture.layers(network)))
    state = {name: value.detach() for name, value in network.state_dict().items()}
    reports: list[tuple[int, int]] = []
    layer_orders = original.order_layers(grid, state, "some weights", experiment, registry, lambda *done: reports.append(done))
    for layer, order in zip(grid.layers, layer_orders, strict=True):
        kernels = state[layer.parameter].reshape(layer.filters, layer.channels, -1)
        assert torch.equal(order.indices(), experiment.smoother.order(kernels).indices())
    assert reports[-1] == (grid.rows, grid.rows)

    def fail(*_: object) -> LayerOrder:
        raise AssertionError("not from the cache")

    monkeypatch.setattr(type(experiment.smoother), "order", fail)
    again = original.order_layers(grid, state, "some weights", experiment, registry)
    assert [order.indices().tolist() for order in again] == [order.indices().tolist() for order in layer_orders]


def test_progress_shows_how_far_the_ordering_is(capsys: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar(every=60)
    bar.nern_ordering(done=0, total=20)  # what is in its own order is not said to be ordered
    bar.nern_ordering(done=5, total=20)
    bar.nern_ordering(done=6, total=20)  # too soon after the last line
    assert capsys.readouterr().err == "ordering: 5 of 20 kernels\n"


def test_ctrl_c_ends_a_run_that_is_ordering_kernels(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(*load_experiment("digits", {"output": str(tmp_path / "run")}, registry))
    stop = StopRequest()
    stop.requested = True
    monkeypatch.setenv("NERN_CACHE", "")
    monkeypatch.setattr(engine.source, "load", lambda: (engine.source.build().eval(), {}))
    with pytest.raises(Interrupted, match="stopped while ordering the kernels; continue with --resume"):
        engine._prepare(stop)


def test_ordering_can_be_interrupted(registry: Registry) -> None:
    experiment, _ = load_experiment("digits", {}, registry)
    network = experiment.architecture.build()
    grid = KernelGrid(tuple(experiment.architecture.layers(network)))

    def report(done: int, total: int) -> None:
        raise Interrupted("stopped")

    before = threading.active_count()
    with pytest.raises(Interrupted):
        original.order_layers(grid, dict(network.state_dict()), "other weights", experiment, registry, report)
    assert threading.active_count() == before
