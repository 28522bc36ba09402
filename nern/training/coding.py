"""The start of training with the number format `entropy`: steps from the network's curvature, integers from rounding with feedback.

How much a parameter's error matters is measured by the Fisher information: the squared gradient of the network's loss on labels
that are drawn from its own predictions, so that no label of the data is looked at (Kunstner et al. 2019). The steps of a
parameter are the product over its axes that is nearest to the inverse root of its diagonal: every step then costs about the
same accuracy. Integers are chosen one after the other, and what rounding one of them costs is made up for by those that follow
(Frantar et al. 2022, GPTQ), under the matrix of second moments of the gradients of a filter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.nn import functional as F

from nern.outputs.kinds import ClassLogits, OutputKind
from nern.outputs.nested import count, map_tensors, part
from nern.representation.entropy import code_parameters, fitted_levels, outer_sum
from nern.representation.laplace import bits
from nern.support.seeding import generator
from nern.training.step import StepContext

IMAGES = 64  # of a batch that gradients are taken of together
DAMPING = 0.02  # of the diagonal, relative to its mean
REACH = 0.4  # how far a latent may stand from its integer at the start
BITS = 1.5  # a weight, where no size is asked for
VECTOR_ERROR = 5e-5  # mean error in the loss that the step of a vector may cost, in nats
NOISE = 0.1  # added to outputs that are no logits of classes, relative to their spread
LARGEST_MATRIX = 5000  # entries of a filter up to which rounding is fed back


@attrs.frozen(eq=False)
class Curvature:
    """How much errors of one parameter matter."""

    diagonal: Tensor  # of the parameter's shape: mean squared gradient of an image's loss
    matrix: Tensor | None  # [n, n] for a parameter [filters, ...] with n entries in a filter, averaged over filters


def start_coding(context: StepContext, inputs: Callable[[int], Tensor] | None, batches: int, budget: float | None) -> None:
    """Turn the representation's parameters into coded ones, with steps and integers that training starts from.

    Args:
        inputs: function from a step number to images; None where the phase runs no network, and all errors count alike.
        batches: of images to measure the curvature on.
        budget: bits that all parameters should come to; None for 1.5 for each represented weight.
    """
    representation = context.representation
    named = {name: value for name, value in representation.named_parameters() if value.is_floating_point() and value.numel()}
    curvatures = measure(context, named, inputs, batches)
    values = {name: value.detach().float().cpu() for name, value in named.items()}
    wanted = budget or BITS * context.kernels.grid.weights
    code_parameters(representation, {name: tuple(part) for name, part in start_values(values, curvatures, wanted).items()})  # type: ignore[misc]


def measure(
    context: StepContext, named: Mapping[str, Tensor], inputs: Callable[[int], Tensor] | None, batches: int
) -> dict[str, Curvature]:
    """The curvature of every parameter, by name."""
    if inputs is None or not batches:
        return {name: Curvature(torch.ones(value.shape), None) for name, value in named.items()}
    representation, parameters = context.representation, list(named.values())
    diagonals = [torch.zeros_like(value) for value in parameters]
    matrices: list[Tensor | None] = [None] * len(parameters)
    warm = max(1, batches // 10)  # first batches, which give the filters' levels
    counted = 0
    for step in range(batches):
        images = part(inputs(step), slice(0, IMAGES))
        with torch.autocast(context.device.type, enabled=False):
            weights = representation.weights(representation.predict())
        outputs = context.networks.reconstructed(images, weights).logits
        loss = probed(context.outputs, outputs, generator(context.seed, "labels", step))
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        for index, gradient in enumerate(gradients):
            if gradient is None:
                continue
            diagonals[index] += count(images) * gradient.square() / batches
            if gradient.dim() < 2 or gradient[0].numel() > LARGEST_MATRIX or step < warm:
                continue
            level = diagonals[index].flatten(1).sum(1)
            rows = gradient.flatten(1) / level.clamp_min(float(level.mean()) * 1e-3 + 1e-30).sqrt().unsqueeze(1)
            if matrices[index] is None:
                matrices[index] = rows.new_zeros(rows.shape[1], rows.shape[1])
            matrices[index].addmm_(rows.T, rows)  # type: ignore[union-attr]
        counted += step >= warm
    return {
        name: Curvature(diagonal.cpu(), matrix if matrix is None else (matrix / max(counted, 1)).cpu())
        for name, diagonal, matrix in zip(named, diagonals, matrices, strict=True)
    }


def probed(kind: OutputKind, outputs: Any, source: torch.Generator) -> Tensor:
    """A loss whose mean squared gradient is the curvature.

    For a classifier, that of labels drawn from its own predictions; for other outputs, the distance to outputs that some noise
    was added to.
    """
    if isinstance(kind, ClassLogits):
        labels = torch.multinomial(outputs.detach().softmax(1).cpu(), 1, generator=source).squeeze(1)
        return F.cross_entropy(outputs, labels.to(outputs.device))

    def moved(value: Tensor) -> Tensor:
        noise = torch.randn(value.shape, generator=source).to(value.device)
        return value.detach() + NOISE * value.detach().std() * noise if value.is_floating_point() else value.detach()

    distance: Tensor = kind.distance(map_tensors(moved, outputs), outputs)
    return distance


def start_values(
    values: Mapping[str, Tensor], curvatures: Mapping[str, Curvature], wanted: float
) -> dict[str, tuple[Tensor, list[Tensor]]]:
    """Latents and logarithms of the steps by axis, for parameters that come to `wanted` bits together."""
    usual = sum(float(value.abs().mean()) for value in values.values()) / max(1, len(values))
    vectors = {
        name: _alone(value, curvatures[name].diagonal, usual) for name, value in values.items() if _stands_alone(value, curvatures[name])
    }
    shapes = {name: step_shape(curvatures[name].diagonal) for name in values if name not in vectors}
    for_vectors = sum(_size(latent.round()) for latent, _ in vectors.values())

    def nearest(scale: float) -> float:
        return for_vectors + sum(_size((values[name] / _steps(shape, scale)).round()) for name, shape in shapes.items())

    low, high = -20.0, 20.0
    for _ in range(24):
        scale = (low + high) / 2
        low, high = (scale, high) if nearest(scale) > wanted else (low, scale)
    scale = min(scale, _all_zero(values, shapes))  # a size that cannot be reached asks for no larger steps than these
    matrices = {}
    entries = max(1, sum(values[name].numel() for name in shapes))
    for _ in range(3):  # feedback spends some more bits
        matrices = {name: _fed_back(values[name], _steps(shape, scale), curvatures[name].matrix) for name, shape in shapes.items()}
        size = for_vectors + sum(_size(integers) for integers, _ in matrices.values())
        if abs(size / wanted - 1) < 0.01:
            break
        scale += math.log(2) * (size - wanted) / entries
    started = {}
    for name in values:
        if name in vectors:
            started[name] = vectors[name]
        else:
            integers, latent = matrices[name]
            parts = shapes[name]
            started[name] = (integers + (latent - integers).clamp(-REACH, REACH), [parts[0] + scale, *parts[1:]])
    return started


def step_shape(diagonal: Tensor) -> list[Tensor]:
    """Logarithms of steps by axis, up to a common scale: half of the additive fit of the curvature's logarithm, negated."""
    curvature = diagonal.double() + 0.01 * float(diagonal.double().mean()) + 1e-30
    logarithm = curvature.log()
    mean, axes = logarithm.mean(), range(logarithm.dim())
    parts = [logarithm.mean([other for other in axes if other != axis]) - mean for axis in axes]
    return [(-0.5 * (part + mean if axis == 0 else part)).float() for axis, part in enumerate(parts)]


def _steps(shape: list[Tensor], scale: float) -> Tensor:
    return outer_sum([shape[0] + scale, *shape[1:]]).exp()


def _all_zero(values: Mapping[str, Tensor], shapes: Mapping[str, list[Tensor]]) -> float:
    """A scale at which every integer is zero."""
    return max(
        (math.log(4 * float(values[name].abs().max()) + 1e-30) - float(outer_sum(shape).min()) for name, shape in shapes.items()),
        default=0.0,
    )


def _size(integers: Tensor) -> float:
    """Bits of some integers under a distribution that fits them."""
    return float(bits(integers.float(), outer_sum(fitted_levels(integers)).expand(integers.shape)))


def _stands_alone(value: Tensor, curvature: Curvature) -> bool:
    """Whether the step of a parameter does not follow from the size asked for: a vector, or what the loss does not feel yet."""
    return value.dim() < 2 or not bool(curvature.diagonal.any())


def _alone(value: Tensor, diagonal: Tensor, usual: float) -> tuple[Tensor, list[Tensor]]:
    """Latents and logarithms of the steps of such a parameter: one step, of a quarter of its mean size at most.

    Zeros, as biases often start, say nothing of the size that they will have: they take the `usual` size of parameters.
    """
    step = math.sqrt(VECTOR_ERROR / (float(diagonal.mean()) + 1e-9))
    step = max(1e-6, min(step, (float(value.abs().mean()) or usual) / 4))
    rest = [torch.zeros(size) for size in value.shape[1:]]
    return value / step, [torch.full((value.shape[0] if rest else 1,), math.log(step)), *rest]


def _fed_back(value: Tensor, steps: Tensor, matrix: Tensor | None) -> tuple[Tensor, Tensor]:
    """Integers, and the latents that they were rounded from: [filters, ...] each."""
    if matrix is None or not bool(matrix.any()):
        latent = value / steps
        return latent.round(), latent
    rest, sizes = value.flatten(1).clone(), steps.expand(value.shape).flatten(1)
    damped = matrix + DAMPING * matrix.diagonal().mean() * torch.eye(len(matrix))
    order = damped.diagonal().argsort(descending=True)
    rest, sizes = rest[:, order], sizes[:, order]
    inverse = torch.linalg.inv(damped[order][:, order].double())
    upper = torch.linalg.cholesky((inverse + inverse.T) / 2, upper=True).float()
    latent, integers = torch.empty_like(rest), torch.empty_like(rest)
    for column in range(rest.shape[1]):
        latent[:, column] = rest[:, column] / sizes[:, column]
        integers[:, column] = latent[:, column].round()
        error = (rest[:, column] - integers[:, column] * sizes[:, column]) / upper[column, column]
        rest[:, column + 1 :] -= error.unsqueeze(1) * upper[column, column + 1 :]
    back = order.argsort()
    return integers[:, back].reshape(value.shape), latent[:, back].reshape(value.shape)
