"""Predictors against a written-out float64 network, and Appendix B."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.special import erf
from torch import Tensor, nn

from nern.builtin.embeddings.positional import Positional
from nern.builtin.predictors.mlp import ACTIVATIONS, MLP, ResidualMLP, SkipMLP, expectation, mean_square
from nern.kernels.coordinates import KernelGrid, LayerMapping

VARIANTS = [MLP, SkipMLP, ResidualMLP]
NORMALISATIONS = ["none", "layer", "batch"]
GRID = KernelGrid((LayerMapping("a", (24, 16, 11, 11), 0), LayerMapping("b", (8, 24, 11, 11), 1)))


def phi(name: str, x: Tensor) -> Tensor:
    """The activations by their definitions."""
    if name == "relu":
        return torch.where(x > 0, x, torch.zeros_like(x))
    if name == "gelu":
        return x * (1 + torch.from_numpy(erf(x.numpy() / math.sqrt(2)))) / 2
    if name == "silu":
        return x / (1 + torch.exp(-x))
    if name == "leaky-relu":
        return torch.where(x > 0, x, 0.01 * x)
    if name == "elu":
        return torch.where(x > 0, x, torch.exp(x) - 1)
    if name == "hardswish":
        return x * (x + 3).clamp(0, 6) / 6
    return torch.sin(x)


def normalise(norm: nn.Module, x: Tensor, kind: str) -> Tensor:
    if kind == "none":
        return x
    weight, bias = norm.weight.detach().double(), norm.bias.detach().double()
    if kind == "layer":
        mean, variance = x.mean(1, keepdim=True), x.var(1, unbiased=False, keepdim=True)
    else:
        mean, variance = x.mean(0), x.var(0, unbiased=False)
    return (x - mean) / torch.sqrt(variance + 1e-5) * weight + bias


def reference(module: nn.Module, e: Tensor, options: MLP) -> Tensor:
    def apply(layer: nn.Linear, x: Tensor) -> Tensor:
        y = x @ layer.weight.detach().double().T
        return y if layer.bias is None else y + layer.bias.detach().double()

    x = phi(options.activation, normalise(module.norms[0], apply(module.first, e), options.normalisation))
    for index, layer in enumerate(module.hidden):
        y = apply(layer, x)
        if isinstance(options, SkipMLP) and index == (options.layers - 2) // 2:
            y = y + apply(module.again, e)
        y = phi(options.activation, normalise(module.norms[index + 1], y, options.normalisation))
        x = x + y if isinstance(options, ResidualMLP) else y
    return apply(module.last, x)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("variant", VARIANTS)
def test_forward_equals_the_written_out_network(variant: type[MLP], activation: str, normalisation: str) -> None:
    torch.manual_seed(0)
    options = variant(hidden=13, layers=5, activation=activation, normalisation=normalisation)
    module = options.build(7, 9).train()
    for norm in module.norms:
        for parameter in norm.parameters():
            nn.init.uniform_(parameter, 0.5, 1.5)
    e = torch.randn(20, 7)
    outputs = module(e)
    assert outputs.shape == (20, 9)
    torch.testing.assert_close(outputs.detach().double(), reference(module, e.double(), options), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("variant", "fewest"), [(MLP, 2), (SkipMLP, 3), (ResidualMLP, 3)])
def test_layers_counts_linear_layers(variant: type[MLP], fewest: int) -> None:
    for layers in (fewest, 6):
        module = variant(layers=layers, hidden=5).build(4, 9)
        on_the_way = [m for name, m in module.named_modules() if isinstance(m, nn.Linear) and name != "again"]
        assert len(on_the_way) == layers
        assert module(torch.zeros(2, 4)).shape == (2, 9)
    with pytest.raises(ValueError, match=f"layers must be >= {fewest}, got {fewest - 1}"):
        variant(layers=fewest - 1)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("variant", VARIANTS)
def test_appendix_b_outputs_start_with_the_weights_mean_and_variance(variant: type[MLP], activation: str, normalisation: str) -> None:
    options = variant(hidden=256, activation=activation, normalisation=normalisation)
    embedding = Positional().build(GRID)
    means, variances = [], []
    for seed in range(4):
        torch.manual_seed(seed)
        kernels = torch.randn(GRID.rows, GRID.outputs) * 0.05 + 0.02
        embedded = embedding(GRID.coordinates()[torch.randperm(GRID.rows)[:256]])
        module = options.build(embedding.dim, GRID.outputs)
        with torch.no_grad():
            options.initialise(module, embedded, kernels)
            outputs = module(embedded)
        means.append((float(outputs.mean()) - 0.02) / 0.05)
        variances.append(float((outputs - 0.02).square().mean()) / 0.05**2)
    assert sum(variances) / 4 == pytest.approx(1, abs=0.25)  # of the kernels' own variance
    assert sum(means) / 4 == pytest.approx(0, abs=0.15)  # in the kernels' standard deviations


@pytest.mark.parametrize("variant", VARIANTS)
def test_ordinary_initialisation_is_torchs(variant: type[MLP]) -> None:
    torch.manual_seed(0)
    options = variant(hidden=32, init="ordinary")
    module = options.build(240, 9)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    kernels = torch.randn(100, 9) * 0.01 + 3
    with torch.no_grad():
        options.initialise(module, torch.rand(50, 240), kernels)
    after = module.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    bound = 1 / math.sqrt(240)  # uniform in ±1/√inputs
    assert float(module.first.weight.detach().abs().max()) <= bound
    assert float(module.first.weight.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)
    with torch.no_grad():
        outputs = module(torch.rand(50, 240))
    assert abs(float(outputs.mean()) - 3) > 1  # far from the kernels' mean, which the default meets


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_moments_of_the_activations(activation: str) -> None:
    """Against a plain sum over a fine grid."""
    z = torch.linspace(-10, 10, 200_001, dtype=torch.float64)
    density = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    module = ACTIVATIONS[activation]()
    assert expectation(module) == pytest.approx(float((phi(activation, z) * density).sum()), abs=0.01)
    assert mean_square(module) == pytest.approx(float((phi(activation, z) ** 2 * density).sum()), abs=0.01)
