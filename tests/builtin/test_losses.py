"""Every form of every loss, and its gradient, against loops in float64."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from nern.builtin.losses.fmd import FeatureMapDistillation
from nern.builtin.losses.kd import KnowledgeDistillation
from nern.builtin.losses.reconstruction import Reconstruction
from nern.errors import OptionError
from nern.interfaces import Kernels, LossContext
from nern.kernels.coordinates import KernelGrid, LayerMapping
from nern.networks.pair import NetworkPair
from nern.testing import fixtures


def compare(loss: Callable[[Tensor], Tensor], reference: Callable[[Tensor], Tensor], at: Tensor, rtol: float = 1e-5) -> None:
    """Value and gradient of a float32 loss against a float64 one."""
    narrow, wide = at.clone().requires_grad_(), at.double().requires_grad_()
    computed, expected = loss(narrow), reference(wide)
    computed.backward()
    expected.backward()
    assert computed.dtype == torch.float32
    assert computed.dim() == 0
    assert computed.item() == pytest.approx(expected.item(), rel=rtol, abs=1e-9)
    assert float((narrow.grad.double() - wide.grad).norm()) <= rtol * float(wide.grad.norm()) + 1e-12


# -- reconstruction, eq. 3 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["rms", "norm", "mse"])
def test_reconstruction(form: str) -> None:
    torch.manual_seed(0)
    counts = torch.tensor([9.0] * 12 + [1.0] * 8)
    has = torch.zeros(20, 9)
    has[:12], has[12:, 4] = 1, 1
    original = torch.randn(20, 9) * has
    index, layer = torch.arange(20), torch.zeros(20, dtype=torch.int64)

    def loss(values: Tensor) -> Tensor:
        return Reconstruction(form=form)(Kernels(original, index, layer, counts), Kernels(values * has, index, layer, counts))

    def reference(values: Tensor) -> Tensor:
        squares = sum((values[i, j] - original[i, j].double()) ** 2 for i in range(20) for j in range(9) if has[i, j])
        number = int(has.sum())
        return {"rms": (squares / number).sqrt(), "norm": squares.sqrt() / number, "mse": squares / number}[form]

    compare(loss, reference, torch.randn(20, 9))


@pytest.mark.parametrize("form", ["rms", "norm", "mse"])
def test_reconstruction_of_equal_weights_is_zero_with_a_finite_gradient(form: str) -> None:
    values = torch.randn(5, 9)
    predicted = values.clone().requires_grad_()
    kernels = [Kernels(v, torch.arange(5), torch.zeros(5, dtype=torch.int64), torch.full((5,), 9.0)) for v in (values, predicted)]
    loss = Reconstruction(form=form)(*kernels)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert bool(predicted.grad.isfinite().all())


def of_small(compared: Callable[[Kernels, Kernels], Tensor], original: Kernels) -> Callable[[Tensor], Tensor]:
    """The loss of predictions [36, 9] for the small network: twelve kernels of 3 × 3, then 24 of 1 × 1, which are their centre."""
    has = torch.zeros(36, 9)
    has[:12], has[12:, 4] = 1, 1
    return lambda values: compared(original, attrs.evolve(original, values=values * has))


@pytest.mark.parametrize("balance", [0.5, 1.0])
@pytest.mark.parametrize("form", ["rms", "mse"])
def test_balanced_reconstruction(form: str, balance: float) -> None:
    context = fixtures.context()
    state = {name: value.double() for name, value in fixtures.network().state_dict().items()}
    first, second = state["0.weight"], state["3.weight"]
    number = first.numel() + second.numel()
    mean = (first.square().sum() + second.square().sum()) / number
    factors = [(mean / layer.square().mean()) ** balance for layer in (first, second)]
    compared = Reconstruction(form=form, balance=balance).start(context)
    original = context.kernels

    def reference(values: Tensor) -> Tensor:
        total = factors[0] * (values[:12].reshape(first.shape) - first).square().sum()
        total = total + factors[1] * (values[12:, 4].reshape(second.shape) - second).square().sum()
        return (total / number).sqrt() if form == "rms" else total / number

    compare(of_small(compared, original), reference, torch.randn(36, 9))
    rows = torch.tensor([3, 20, 3])  # a sample finds the factors of its own kernels
    off = attrs.evolve(original, values=original.values.clone())
    off.values[3, 4] += 1.0
    sample = [Kernels(*(getattr(kernels, name)[rows] for name in ("values", "index", "layer", "count"))) for kernels in (original, off)]
    expected = 2 * float(factors[0]) / (9 + 1 + 9)
    assert float(compared(*sample)) == pytest.approx(expected if form == "mse" else expected**0.5, rel=1e-4)


def test_a_layer_of_zeros_keeps_its_errors_as_they_are() -> None:
    context = fixtures.context()
    values = context.kernels.values.clone()
    values[12:] = 0
    original = attrs.evolve(context.kernels, values=values)
    compared = Reconstruction(form="mse", balance=1.0).start(attrs.evolve(context, kernels=original))
    off = values.clone()
    off[12:, 4] = 0.5  # 24 weights of 108 + 24
    assert float(compared(original, attrs.evolve(original, values=off))) == pytest.approx(24 * 0.25 / 132)


# -- knowledge distillation, eq. 5 -------------------------------------------------------------------------------------


def kl(original: Tensor, reconstructed: Tensor, form: str, temperature: float) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for a, b in zip(original.double(), reconstructed, strict=True):
        p = [math.exp(float(x) / temperature) for x in a]
        q = torch.exp((b - b.max()) / temperature)
        q = q / q.sum()
        q = q + 1e-4 if form == "stable" else q
        for i in range(len(p)):
            total = total + p[i] / sum(p) * (math.log(p[i] / sum(p)) - q[i].log())
    return temperature**2 * total / len(original)


@pytest.mark.parametrize(("form", "temperature"), [("plain", 1.0), ("plain", 2.0), ("plain", 0.5), ("stable", 1.0)])
def test_knowledge_distillation(form: str, temperature: float) -> None:
    torch.manual_seed(0)
    original = 3 * torch.randn(7, 10)
    loss = KnowledgeDistillation(form=form, temperature=temperature)
    compare(lambda x: loss(original, x), lambda x: kl(original, x, form, temperature), 3 * torch.randn(7, 10))


@given(st.integers(0, 10_000), st.floats(0.1, 30), st.floats(0.5, 8))
def test_distillation_is_never_negative_and_zero_for_equal_logits(seed: int, scale: float, temperature: float) -> None:
    torch.manual_seed(seed)
    a, b = scale * torch.randn(2, 4, 6)
    loss = KnowledgeDistillation(temperature=temperature)
    assert float(loss(a, b)) >= -1e-5
    assert float(loss(a, a)) == pytest.approx(0, abs=1e-5)
    torch.testing.assert_close(loss(a, b), loss(a + 5, b - 3), rtol=1e-3, atol=1e-4)  # logits have no origin


def test_distillation_of_certain_predictions_is_finite() -> None:
    a, b = torch.tensor([[200.0, -200.0]]), torch.tensor([[-200.0, 200.0]], requires_grad=True)
    for form in ("plain", "stable"):
        loss = KnowledgeDistillation(form=form)(a, b)
        assert bool(loss.isfinite())
    assert loss.item() == pytest.approx(-math.log(1e-4), rel=1e-5)  # stable: no class is less probable than 1e-4


def test_the_stable_form_has_no_temperature() -> None:
    with pytest.raises(ValueError, match="temperature must be 1 with the stable form"):
        KnowledgeDistillation(form="stable", temperature=2.0)


# -- feature-map distillation, eq. 4 -----------------------------------------------------------------------------------


def fmd(original: list[Tensor], reconstructed: list[Tensor], form: str) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for a, b in zip(original, reconstructed, strict=True):
        a, batch = a.double(), len(a)
        if form == "batch":
            total = total + (a / (a.square().sum().sqrt() + 1e-3) - b / (b.square().sum().sqrt() + 1e-3)).square().sum()
        elif form == "similarity":
            rows = []
            for x in (a, b):
                gram = torch.stack([torch.stack([(x[i] * x[j]).sum() for j in range(batch)]) for i in range(batch)])
                rows.append(gram / gram.square().sum(1, keepdim=True).sqrt())
            total = total + (rows[0] - rows[1]).square().sum() / batch**2
        else:
            for i in range(batch):
                d = a[i] / (a[i].square().sum().sqrt() + 1e-3) - b[i] / (b[i].square().sum().sqrt() + 1e-3)
                total = total + (d.square().sum() if form == "squared" else d.square().sum().sqrt()) / batch
    return total


SHAPES = [(5, 4, 6, 6), (5, 8, 3, 3), (5, 7)]


@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
@pytest.mark.parametrize("form", ["squared", "norm", "batch", "similarity"])
def test_feature_map_distillation(form: str, layout: str) -> None:
    torch.manual_seed(0)
    format = torch.channels_last if layout == "channels last" else torch.contiguous_format

    def maps(flat: Tensor) -> list[Tensor]:
        parts = flat.split([math.prod(shape) for shape in SHAPES])
        return [
            p.reshape(s).contiguous(memory_format=format if len(s) == 4 else torch.contiguous_format)
            for p, s in zip(parts, SHAPES, strict=True)
        ]

    size = sum(math.prod(shape) for shape in SHAPES)
    original, loss = maps(torch.randn(size)), FeatureMapDistillation(form=form)
    compare(lambda x: loss(original, maps(x)), lambda x: fmd(original, maps(x), form), torch.randn(size))


@pytest.mark.parametrize("closeness", [1e-1, 1e-3, 1e-5])
def test_feature_maps_that_nearly_agree_still_give_a_gradient(closeness: float) -> None:
    """The distance is a small difference of large numbers late in training; float32 must not drown its gradient."""
    torch.manual_seed(0)
    original = torch.randn(4, 8, 16, 16)
    at = original + closeness * torch.randn(4, 8, 16, 16)
    loss = FeatureMapDistillation()
    compare(lambda x: loss([original], [x]), lambda x: fmd([original], [x], "squared"), at, rtol=max(1e-5, 2e-7 / closeness))


@pytest.mark.parametrize("form", ["squared", "norm", "batch", "similarity"])
def test_equal_and_empty_feature_maps_give_a_finite_gradient(form: str) -> None:
    """A map that is zero everywhere, which a dead layer has, divides nothing by zero."""
    torch.manual_seed(0)
    original = torch.randn(3, 2, 4, 4)
    for values in (original.clone(), torch.zeros(3, 2, 4, 4), torch.cat([torch.zeros(1, 2, 4, 4), original[1:]])):
        values.requires_grad_()
        loss = FeatureMapDistillation(form=form)([original], [values])
        loss.backward()
        assert bool(loss.isfinite())
        assert bool(values.grad.isfinite().all())
    assert float(FeatureMapDistillation(form=form)([original], [original])) == pytest.approx(0, abs=1e-5)


@given(st.integers(0, 10_000), st.floats(2, 1000))
def test_the_scale_of_a_sample_does_not_matter(seed: int, scale: float) -> None:
    torch.manual_seed(seed)
    a, b = 10 * torch.randn(2, 3, 4, 5, 5)
    factors = torch.tensor([1.0, scale, 1.0]).view(3, 1, 1, 1)
    loss = FeatureMapDistillation()
    np.testing.assert_allclose(loss([a], [b * factors]), loss([a], [b]), rtol=1e-3)


def test_feature_maps_in_bfloat16_are_compared_in_float32() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 4, 8, 16, 16).bfloat16()
    distance = FeatureMapDistillation()([a], [b])
    assert distance.dtype == torch.float32
    assert distance.item() == pytest.approx(fmd([a], [b.double()], "squared").item(), rel=1e-2)


def context(names: list[str]) -> LossContext:
    """What a loss sees at its start: the feature maps of a network with modules of these names."""
    network = nn.Module()
    for name in names:
        network.add_module(name, nn.Identity())
    networks = NetworkPair(network, names, device=torch.device("cpu"))
    nothing = torch.zeros(0)
    kernels = Kernels(nothing, nothing.long(), nothing.long(), nothing)
    return LossContext(KernelGrid((LayerMapping("w", (1, 1, 3, 3), 0),)), kernels, networks)


def test_only_the_chosen_feature_maps_are_compared() -> None:
    torch.manual_seed(0)
    names = ["bn1", "bn2", "sum1", "other", "sum2"]
    original, reconstructed = [[torch.randn(3, 2, 4, 4) for _ in names] for _ in range(2)]
    loss = FeatureMapDistillation(maps=["sum*", "bn1"]).start(context(names))
    expected = sum(fmd([original[i]], [reconstructed[i].double()], "squared").item() for i in (0, 2, 4))
    assert loss(original, reconstructed).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("maps", "wrong"), [(["bn*", "add?"], "add?"), (["layer1"], "layer1"), ([], "")])
def test_a_pattern_that_fits_no_feature_map_is_named(maps: list[str], wrong: str) -> None:
    message = f"maps '{wrong}' matches none of the feature maps (bn1, sum1)"
    with pytest.raises(OptionError, match=f"^{re.escape(message)}$"):
        FeatureMapDistillation(maps=maps).start(context(["bn1", "sum1"]))
