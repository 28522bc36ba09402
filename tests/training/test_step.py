"""One training step against equations 1–5 of the paper, written out in float64.

The lower half of this file uses nothing of nern: it has its own embedding, orderings, predictor, networks and losses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from nern.builtin.architectures.cifar_resnet import CifarResNet
from nern.builtin.embeddings.positional import Positional
from nern.builtin.losses.fmd import FeatureMapDistillation
from nern.builtin.losses.kd import KnowledgeDistillation
from nern.builtin.losses.reconstruction import Reconstruction
from nern.builtin.optimizers.torch import SGD
from nern.builtin.predictors.mlp import MLP
from nern.builtin.samplers.all import All
from nern.builtin.samplers.layers import RandomLayer
from nern.builtin.samplers.magnitude import Magnitude
from nern.builtin.samplers.uniform import Uniform
from nern.builtin.smoothers.greedy import CrossFilter, InFilter
from nern.builtin.smoothers.none import NoSmoother
from nern.config.experiment import LossTerm, Phase
from nern.interfaces import Draw, Sampler, Smoother
from nern.kernels.coordinates import KernelGrid
from nern.networks.pair import NetworkPair
from nern.representation.assembling import assemble
from nern.representation.original_kernels import OriginalKernels
from nern.training.step import PhaseTrainer, StepContext

CPU = torch.device("cpu")
TOLERANCE = 1e-5  # of the gradient's norm
KINK = 5e-6  # nearer to zero than this, float32 may see the other side of a ReLU

#: Weights of reconstruction, KD and FMD in eq. 2: the paper's, and each alone, so that a large term hides no small one.
PAPER = (1.0, 1e-4, 1e-4)
EACH = [PAPER, (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]


def resnet(architecture: CifarResNet) -> nn.Module:
    """A network with fresh weights, statistics of its own inputs, and scales and shifts that are not 1 and 0."""
    torch.manual_seed(0)
    network = architecture.build().train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # a plain average
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
    with torch.no_grad():
        for _ in range(4):
            network(torch.randn(16, architecture.channels, architecture.size, architecture.size))
    return network.eval()


def objective(weights: tuple[float, float, float]) -> dict[str, LossTerm]:
    losses = {"reconstruction": Reconstruction(), "kd": KnowledgeDistillation(), "fmd": FeatureMapDistillation()}
    return {name: LossTerm(loss=loss, weight=weight) for (name, loss), weight in zip(losses.items(), weights, strict=True)}


@attrs.frozen
class Given(Sampler):
    """The same rows in every step."""

    rows: Tensor

    def start(self, norms: Tensor, layers: Tensor, seed: int) -> Draw:
        return lambda step: self.rows


def trainer_of(
    network: nn.Module,
    architecture: CifarResNet,
    inputs: Tensor,
    *,
    predictor: MLP | None = None,
    smoother: Smoother | None = None,
    sampler: Sampler | None = None,
    losses: dict[str, LossTerm] | None = None,
) -> PhaseTrainer:
    """What the engine assembles, in float32."""
    state, smoother, predictor = dict(network.state_dict()), smoother or CrossFilter(), predictor or MLP(hidden=40)
    grid = KernelGrid(tuple(architecture.layers(network)))
    orders = [smoother.order(state[layer.parameter].reshape(layer.filters, layer.channels, -1)) for layer in grid.layers]
    kernels = OriginalKernels(grid, state, orders, CPU)
    torch.manual_seed(1)
    representation = assemble(grid, orders, Positional(), predictor)
    predictor.initialise(representation.predictor, representation.embedding(grid.coordinates()), kernels.weights_in_rows())
    networks = NetworkPair(network, architecture.features(network), device=CPU)
    parts = StepContext(representation, kernels, networks, CPU, torch.float32, 0)
    return PhaseTrainer(parts, Phase(iterations=10), losses or objective(PAPER), sampler or All(), SGD(), lambda step: inputs, 0)


def gradient_of_step(trainer: PhaseTrainer, step: int = 0) -> tuple[Tensor, dict[str, float]]:
    """The gradient that `trainer.step` hands to the optimiser [parameters] float64, and the losses that it reports."""
    gradients = {}
    for name, parameter in trainer.parameters:
        parameter.register_post_accumulate_grad_hook(lambda p, name=name: gradients.update({name: p.grad.double().flatten()}))
    trainer.step(step)
    names = [name for name, _ in linear_names(trainer.context.representation.predictor)]
    assert set(gradients) == set(names) == {name for name, _ in trainer.parameters}
    return torch.cat([gradients[name] for name in names]), trainer.flush(step)


def check(trainer: PhaseTrainer, network: nn.Module, inputs: Tensor, order: str, weights: tuple[float, float, float]) -> None:
    """Compare a step with the reference; `trainer` may sample, and its predictor may have kinks only where it does not."""
    predictor = trainer.context.representation.predictor
    layers, kinked = linear_layers(predictor), isinstance(predictor.activation, nn.ReLU)
    state = {name: value.double() for name, value in network.state_dict().items()}
    rows = trainer.draw(0)
    assert rows is not None or not kinked
    if kinked:
        near = torch.stack([z.abs().amin(1) for z in preactivations(layers, embed(convolutions(state)))]).amin(0)
        rows = rows[near[rows] > KINK]
        trainer.draw = lambda step: rows
    sample = None if rows is None else set(rows.tolist())
    expected, terms = reference_step(state, layers, inputs.double(), sample, order, weights, torch.relu if kinked else gelu)
    gradient, losses = gradient_of_step(trainer)
    assert float((gradient - expected).norm() / expected.norm()) < TOLERANCE
    for name, value in terms.items():
        assert name not in losses or losses[name] == pytest.approx(value, rel=1e-5)
    total = sum(weight * value for weight, value in zip(weights, terms.values(), strict=True))
    assert losses["total"] == pytest.approx(total, rel=1e-5)


CASES = [
    ("A", "cross-filter", CrossFilter(), All()),
    ("A", "in-filter", InFilter(), Uniform(batch=500)),
    ("B", "none", NoSmoother(), RandomLayer()),
    ("B", "cross-filter", CrossFilter(), Magnitude(batch=700, uniform=0.0)),
    ("B", "in-filter", InFilter(), All()),
]


@pytest.mark.parametrize(
    ("shortcut", "order", "smoother", "sampler", "weights"),
    # reconstruction of a sample alone runs no network and compares the sample alone: see below
    [(*case, weights) for case in CASES for weights in EACH if any(weights[1:]) or isinstance(case[3], All)],
)
def test_gradient_equals_equations_1_to_5(
    shortcut: str, order: str, smoother: Smoother, sampler: Sampler, weights: tuple[float, float, float]
) -> None:
    architecture = CifarResNet(depth=8, shortcut=shortcut, width=8, classes=10, size=16)
    network, inputs = resnet(architecture), torch.randn(6, 3, 16, 16)
    predictor = MLP(hidden=40, activation="gelu" if isinstance(sampler, All) else "relu")
    trainer = trainer_of(network, architecture, inputs, predictor=predictor, smoother=smoother, sampler=sampler, losses=objective(weights))
    check(trainer, network, inputs, order, weights)


@pytest.mark.parametrize("sampler", [Magnitude(uniform=1.0), Magnitude(uniform=0.0)], ids=["uniform step", "magnitude step"])
def test_gradient_of_the_real_resnet20(resnet20_weights: Path, small_cifar10: Path, sampler: Sampler) -> None:
    """The paper's step: hidden 160, cross-filter ordering, 4,096 sampled kernels, real images."""
    architecture = CifarResNet(depth=20, weights=str(resnet20_weights))
    network = architecture.build().eval()
    architecture.load(network)
    files = sorted(small_cifar10.glob("train/*/*.webp"))[:: 400 // 8]
    pixels = torch.from_numpy(np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])).permute(0, 3, 1, 2)
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    inputs = (pixels / 255 - mean) / std
    trainer = trainer_of(network, architecture, inputs, predictor=MLP(hidden=160), sampler=sampler)
    check(trainer, network, inputs, "cross-filter", PAPER)


def test_reconstruction_alone_predicts_the_sample_only() -> None:
    """The loss of the fast path is that of predicting everything and selecting the sample, and so is its gradient."""
    architecture = CifarResNet(depth=8, shortcut="B", width=8, size=16)
    network = resnet(architecture)

    def no_inputs(step: int) -> Tensor:
        raise AssertionError("no network runs, so no inputs are needed")

    losses = {"reconstruction": LossTerm(loss=Reconstruction())}
    sampler, predictor = Magnitude(batch=300, uniform=0.0), MLP(hidden=40, activation="gelu")
    trainer = trainer_of(network, architecture, torch.zeros(0), losses=losses, sampler=sampler, predictor=predictor)
    trainer.inputs = no_inputs
    rows = trainer.draw(3)
    state = {name: value.double() for name, value in network.state_dict().items()}
    layers = linear_layers(trainer.context.representation.predictor)
    convs = convolutions(state)
    original, mask = coordinate_order(convs, {name: path_of(weight, "cross-filter") for name, weight in convs})
    predicted = forward_mlp(layers, embed(convs), gelu)
    squares = ((original - predicted) * mask).square().sum(1)
    loss = (squares[rows].sum() / mask[rows].sum()).sqrt()
    loss.backward()
    expected = torch.cat([p.grad.flatten() for pair in layers for p in pair])
    gradient, reported = gradient_of_step(trainer, 3)
    assert float((gradient - expected).norm() / expected.norm()) < TOLERANCE
    assert reported["reconstruction"] == pytest.approx(loss.item(), rel=1e-5)


def test_warmup_switches_a_term_off_and_on() -> None:
    architecture = CifarResNet(depth=8, width=4, size=8)
    network, inputs = resnet(architecture), torch.randn(4, 3, 8, 8)
    losses = {"reconstruction": LossTerm(loss=Reconstruction()), "kd": LossTerm(loss=KnowledgeDistillation(), warmup=2)}
    trainer = trainer_of(network, architecture, inputs, losses=losses)
    seen = []
    for step in range(3):
        trainer.step(step)
        seen.append(set(trainer.flush(step)))
    assert seen == [{"reconstruction", "total"}, {"reconstruction", "total"}, {"reconstruction", "kd", "total"}]


@pytest.mark.parametrize("weights", [PAPER, (1.0, 0.0, 0.0)], ids=["networks", "weights alone"])
def test_gradient_of_all_kernels_piece_by_piece(weights: tuple[float, float, float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nern.training.prediction.AT_ONCE", 100)
    monkeypatch.setattr("nern.training.prediction.PIECE", 300)
    architecture = CifarResNet(depth=8, shortcut="B", width=8, classes=10, size=16)  # with kernels of two sizes
    network, inputs = resnet(architecture), torch.randn(6, 3, 16, 16)
    predictor = MLP(hidden=40, activation="gelu")
    trainer = trainer_of(network, architecture, inputs, predictor=predictor, losses=objective(weights))
    predicted: list[int] = []
    trainer.context.representation.predictor.register_forward_hook(lambda module, given, kernels: predicted.append(len(kernels)))
    check(trainer, network, inputs, "cross-filter", weights)
    assert max(predicted) <= 600 < sum(predicted) / 2  # every piece is predicted forwards and again backwards


def test_kernels_whose_prediction_depends_on_each_other_are_not_cut_into_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nern.training.prediction.AT_ONCE", 100)
    architecture = CifarResNet(depth=8, width=4, size=8)
    for normalisation, whole in (("layer", False), ("batch", True)):
        predictor = MLP(hidden=16, normalisation=normalisation)
        trainer = trainer_of(resnet(architecture), architecture, torch.randn(4, 3, 8, 8), predictor=predictor)
        assert (trainer.prediction.whole() is None) == whole


def test_clipping_scales_the_whole_gradient() -> None:
    architecture = CifarResNet(depth=8, width=4, size=8)
    network, inputs = resnet(architecture), torch.randn(4, 3, 8, 8)
    gradient, _ = gradient_of_step(trainer_of(network, architecture, inputs))
    clipped = trainer_of(network, architecture, inputs)
    clipped.phase = Phase(iterations=10, clip=float(gradient.norm()) / 4)
    clipped.optimizer = SGD(lr=0.1, schedule="constant")
    before = [value.detach().clone().flatten() for _, value in linear_names(clipped.context.representation.predictor)]
    clipped.step(0)
    after = [value.detach().flatten() for _, value in linear_names(clipped.context.representation.predictor)]
    # the first step of SGD with momentum is -lr · gradient
    torch.testing.assert_close(torch.cat(after), torch.cat(before) - (0.1 * gradient / 4).float(), rtol=1e-4, atol=1e-7)


# -- nern's parameters as plain tensors --------------------------------------------------------------------------------


def linear_names(predictor: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Weights and biases of the predictor's linear layers, from inputs to outputs, by their name in the representation."""
    names = ["first", *(f"hidden.{i}" for i in range(len(predictor.hidden))), "last"]
    own = dict(predictor.named_parameters())
    return [(f"predictor.{name}.{part}", own[f"{name}.{part}"]) for name in names for part in ("weight", "bias")]


def linear_layers(predictor: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Independent float64 copies of the same, as (weight, bias) pairs."""
    copies = [value.detach().double().clone().requires_grad_() for _, value in linear_names(predictor)]
    return list(zip(copies[::2], copies[1::2], strict=True))


# -- the paper, written out in float64 ---------------------------------------------------------------------------------


def reference_step(
    state: dict[str, Tensor],
    layers: list[tuple[Tensor, Tensor]],
    inputs: Tensor,
    sample: set[int] | None,
    order: str,
    weights: tuple[float, float, float],
    activation: Callable[[Tensor], Tensor],
) -> tuple[Tensor, dict[str, float]]:
    """Gradient of eq. 2 [parameters] and its unweighted terms, where only kernels in `sample` carry gradient."""
    convs = convolutions(state)
    paths = {name: path_of(weight, order) for name, weight in convs}
    predicted = forward_mlp(layers, embed(convs), activation)
    if sample is not None:
        carries = torch.tensor([row in sample for row in range(len(predicted))])
        predicted = torch.where(carries[:, None], predicted, predicted.detach())
    original, mask = coordinate_order(convs, paths)
    reconstruction = (((original - predicted) * mask).square().sum() / mask.sum()).sqrt()  # eq. 3, as root mean square

    rebuilt, start = dict(state), 0
    for name, weight in convs:
        filters, channels, height, _ = weight.shape
        rows = predicted[start : start + filters * channels]
        middle = rows if height == 3 else rows[:, 4:5]
        scattered: list[Tensor] = [torch.empty(0)] * (filters * channels)
        for place, index in enumerate(paths[name]):
            scattered[index] = middle[place]
        rebuilt[name] = torch.stack(scattered).reshape(weight.shape)
        start += filters * channels

    with torch.no_grad():
        maps, logits = forward_resnet(state, inputs)
    maps_hat, logits_hat = forward_resnet(rebuilt, inputs)
    p = torch.softmax(logits, 1)
    kd = (p * (p.log() - torch.log_softmax(logits_hat, 1))).sum(1).mean()  # eq. 5
    fmd = torch.zeros((), dtype=torch.float64)
    for a, b in zip(maps, maps_hat, strict=True):  # eq. 4, squared
        for i in range(len(inputs)):
            fmd = fmd + (a[i] / (a[i].norm() + 1e-3) - b[i] / (b[i].norm() + 1e-3)).square().sum() / len(inputs)
    (weights[0] * reconstruction + weights[1] * kd + weights[2] * fmd).backward()  # eq. 2
    gradient = torch.cat([parameter.grad.flatten() for pair in layers for parameter in pair])
    return gradient, {"reconstruction": reconstruction.item(), "kd": kd.item(), "fmd": fmd.item()}


def convolutions(state: dict[str, Tensor]) -> list[tuple[str, Tensor]]:
    """Every convolution in the order in which the network's modules are listed."""
    return [(name, value) for name, value in state.items() if value.dim() == 4]


def embed(convs: Sequence[tuple[str, Tensor]]) -> Tensor:
    """Eq. 1 of every coordinate: b = 0.76, N = 40; [rows, 240]."""
    rows = []
    for layer, (_, weight) in enumerate(convs):
        for f in range(weight.shape[0]):
            for c in range(weight.shape[1]):
                rows.append((layer, f, c))
    angles = np.array(rows, dtype=np.float64)[:, :, None] * np.pi * 0.76 ** np.arange(40)
    interleaved = np.stack([np.sin(angles), np.cos(angles)], axis=3)
    return torch.from_numpy(interleaved.reshape(len(rows), 240))


def forward_mlp(layers: list[tuple[Tensor, Tensor]], x: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    for weight, bias in layers[:-1]:
        x = activation(x @ weight.T + bias)
    return x @ layers[-1][0].T + layers[-1][1]


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


@torch.no_grad()
def preactivations(layers: list[tuple[Tensor, Tensor]], x: Tensor) -> list[Tensor]:
    """What the ReLUs see, layer after layer."""
    seen = []
    for weight, bias in layers[:-1]:
        seen.append(x @ weight.T + bias)
        x = torch.relu(seen[-1])
    return seen


def coordinate_order(convs: Sequence[tuple[str, Tensor]], paths: dict[str, list[int]]) -> tuple[Tensor, Tensor]:
    """Original kernels at their coordinates [rows, 9], and which of the nine weights a kernel has [rows, 9]."""
    values, mask = [], []
    for name, weight in convs:
        kernels = weight.flatten(0, 1).flatten(1)
        for index in paths[name]:
            value, has = torch.zeros(9, dtype=torch.float64), torch.zeros(9, dtype=torch.float64)
            at = slice(0, 9) if kernels.shape[1] == 9 else slice(4, 5)
            value[at], has[at] = kernels[index], 1
            values.append(value)
            mask.append(has)
    return torch.stack(values), torch.stack(mask)


def path_of(weight: Tensor, order: str) -> list[int]:
    """At each coordinate of a layer, the original kernel."""
    filters, channels = weight.shape[:2]
    kernels = weight.flatten(0, 1).flatten(1).numpy()
    if order == "none":
        return list(range(filters * channels))
    if order == "cross-filter":
        return greedy(kernels)
    inner = [greedy(kernels[f * channels : (f + 1) * channels]) for f in range(filters)]
    permuted = np.stack([np.concatenate([kernels[f * channels + c] for c in inner[f]]) for f in range(filters)])
    return [f * channels + c for f in greedy(permuted) for c in inner[f]]


def greedy(vectors: np.ndarray) -> list[int]:
    """From vector 0 always to the nearest one not yet visited, by comparing with all."""
    path, away = [0], np.zeros(len(vectors))
    unit = vectors / np.sqrt((vectors**2).sum(1, keepdims=True))
    while len(path) < len(vectors):
        away[path[-1]] = np.inf
        here = path[-1]
        distances = np.abs(vectors - vectors[here])[:, 0] if vectors.shape[1] == 1 else 1 - unit @ unit[here]
        path.append(int(np.argmin(distances + away)))
    return path


def forward_resnet(state: dict[str, Tensor], x: Tensor) -> tuple[list[Tensor], Tensor]:
    """Feature maps after each batch norm and residual sum, before the activation, and logits."""
    maps = []

    def conv_norm(conv: str, norm: str, x: Tensor, stride: int) -> Tensor:
        weight = state[f"{conv}.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        mean, var, gamma, beta = (state[f"{norm}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
        x = F.batch_norm(x, mean, var, gamma, beta, training=False, eps=1e-5)
        maps.append(x)
        return x

    x = conv_norm("conv1", "bn1", x, 1).clamp(min=0)
    for stage in (1, 2, 3):
        block = 0
        while f"layer{stage}.{block}.conv1.weight" in state:
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = conv_norm(f"{name}.conv1", f"{name}.bn1", x, stride).clamp(min=0)
            y = conv_norm(f"{name}.conv2", f"{name}.bn2", y, 1)
            if f"{name}.shortcut.0.weight" in state:
                x = conv_norm(f"{name}.shortcut.0", f"{name}.shortcut.1", x, stride)
            elif stride == 2:
                new = (y.shape[1] - x.shape[1]) // 2
                x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, new, new))
            x = y + x
            maps.append(x)
            x = x.clamp(min=0)
            block += 1
    return maps, x.mean((2, 3)) @ state["linear.weight"].T + state["linear.bias"]
