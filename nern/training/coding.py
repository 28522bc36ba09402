"""Starts training with the number format `entropy`: chooses steps by the loss's curvature, and rounds to integers with error feedback.

The Fisher information measures how much an error in a parameter matters: the mean squared gradient of the network's loss on labels
drawn from its own predictions, which needs no labels of the data (Kunstner et al. 2019). The steps of a parameter are a product of
factors by axis, fitted to the inverse square root of the information's diagonal, so that all steps cost about the same accuracy.
Integers are rounded one after the other, and the following ones compensate the error of each (Frantar et al. 2022, GPTQ), where the
second moments of a filter's gradients take the place of the Hessian.

All of this holds for the images on which it is measured. Where these are noise, only the mean information of a layer still holds for
photographs: a layer then has a single step, and integers are rounded to the nearest.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.nn import functional as F

from nern.outputs.kinds import ClassLogits, OutputKind
from nern.outputs.nested import count, map_tensors, part
from nern.representation.entropy import STEP_GRID, code_parameters, fitted_levels, outer_sum
from nern.representation.laplace import LARGEST, bits
from nern.support.seeding import generator
from nern.training.step import StepContext

log = logging.getLogger("nern")

IMAGES = 64  # images of a batch whose gradients are computed at the same time
DAMPING = 0.02  # damping that is added to the diagonal, relative to its mean
REACH = 0.4  # largest distance of a latent from its integer at the start
BITS = 1.5  # bits per weight where no size was asked for
VECTOR_ERROR = 5e-5  # mean rise of the loss that the step of a vector may cause, in nats
NOISE = 0.1  # noise added to outputs that are no logits of classes, relative to their spread
FIRST = 2  # batches after which the time of all is worked out
LONG = 60.0  # seconds of all batches, above which they are announced
ROOM = 0.9 * LARGEST  # largest integer at the start: error feedback and training may make it larger
LARGEST_MATRIX = 5000  # most entries of a filter for which errors are fed back


@attrs.frozen(eq=False)
class Curvature:
    """The curvature of the loss in one parameter, which says how much errors in it matter."""

    diagonal: Tensor  # mean squared gradient of an image's loss, in the parameter's shape
    matrix: Tensor | None  # second moments [n, n] of the gradients of a filter with n entries, averaged over filters


def start_coding(
    context: StepContext,
    inputs: Callable[[int], Tensor] | None,
    batches: int,
    budget: float | None,
    between: Callable[[], None] = lambda: None,
    by_layer: bool = False,
) -> None:
    """Turn the representation's parameters into coded ones, with their initial steps and integers.

    Args:
        inputs: function from a step number to images; None where the phase runs no network: then all errors count equally.
        batches: number of image batches on which the curvature is measured.
        budget: total bits that all parameters should take; None for 1.5 per represented weight.
        between: is called after each of these batches, and may raise what ends the run.
        by_layer: whether all errors in a layer count equally: its curvature is the mean over the layer, and no error is fed back.
    """
    representation = context.representation
    named = {name: value for name, value in representation.named_parameters() if value.is_floating_point() and value.numel()}
    curvatures = measure(context, named, inputs, batches, between)
    if by_layer:
        curvatures = {name: averaged(curvature) for name, curvature in curvatures.items()}
    values = {name: value.detach().float().cpu() for name, value in named.items()}
    wanted = budget or BITS * context.kernels.grid.weights
    code_parameters(representation, {name: tuple(part) for name, part in start_values(values, curvatures, wanted).items()})  # type: ignore[misc]


def measure(
    context: StepContext,
    named: Mapping[str, Tensor],
    inputs: Callable[[int], Tensor] | None,
    batches: int,
    between: Callable[[], None] = lambda: None,
) -> dict[str, Curvature]:
    """The curvature of every parameter, by name; see `start_coding` for the arguments."""
    if inputs is None or not batches:
        return {name: Curvature(torch.ones(value.shape), None) for name, value in named.items()}
    representation, parameters = context.representation, list(named.values())
    diagonals = [torch.zeros_like(value) for value in parameters]
    matrices: list[Tensor | None] = [None] * len(parameters)
    warm = max(1, batches // 10)  # the first batches only measure the scale of each filter
    counted, began = 0, time.monotonic()
    for step in range(batches):
        if step == FIRST and batches * (time.monotonic() - began) / FIRST > LONG:
            minutes = batches * (time.monotonic() - began) / FIRST / 60
            log.warning(
                "nern: before the first step with bits, %d batches are run to see how much each number matters, which takes about "
                "%.0f minutes here; curvature_batches=%d is a tenth", batches, minutes, max(1, batches // 10),
            )  # fmt: skip
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
        between()
    return {
        name: Curvature(diagonal.cpu(), matrix if matrix is None else (matrix / max(counted, 1)).cpu())
        for name, diagonal, matrix in zip(named, diagonals, matrices, strict=True)
    }


def averaged(curvature: Curvature) -> Curvature:
    """The mean curvature of a parameter, in the place of every entry's own, and without second moments."""
    return Curvature(torch.full_like(curvature.diagonal, float(curvature.diagonal.double().mean())), None)


def probed(kind: OutputKind, outputs: Any, source: torch.Generator) -> Tensor:
    """A random loss whose mean squared gradient is the curvature.

    For a classifier, the cross entropy of labels drawn from its own predictions; for other outputs, the distance to the same
    outputs with added noise.
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
    """Latents and logarithms of the steps by axis, such that all parameters together take `wanted` bits."""
    usual = sum(float(value.abs().mean()) for value in values.values()) / max(1, len(values))
    vectors = {
        name: _alone(value, curvatures[name].diagonal, usual) for name, value in values.items() if _stands_alone(value, curvatures[name])
    }
    shapes = {name: step_shape(curvatures[name].diagonal) for name in values if name not in vectors}
    for_vectors = sum(_size(latent.round()) for latent, _ in vectors.values())

    def factors(name: str, scale: float) -> list[Tensor]:
        wanted = _factors(values[name], shapes[name], scale)
        # The file holds rounded logarithms of steps: rounded after the integers are chosen, a single step would scale its whole layer
        return wanted if curvatures[name].matrix is not None else [(part / STEP_GRID).round() * STEP_GRID for part in wanted]

    def steps(name: str, scale: float) -> Tensor:
        return outer_sum(factors(name, scale)).exp()

    def nearest(scale: float) -> float:
        return for_vectors + sum(_size((values[name] / steps(name, scale)).round()) for name in shapes)

    low, high = -20.0, 20.0
    for _ in range(24):
        scale = (low + high) / 2
        low, high = (scale, high) if nearest(scale) > wanted else (low, scale)
    scale = min(scale, _all_zero(values, shapes))  # the largest steps, also where the wanted size cannot be reached
    matrices = {}
    entries = max(1, sum(values[name].numel() for name in shapes))
    for _ in range(3):  # error feedback costs some more bits
        matrices = {name: _fed_back(values[name], steps(name, scale), curvatures[name].matrix) for name in shapes}
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
            started[name] = (integers + (latent - integers).clamp(-REACH, REACH), factors(name, scale))
    return started


def step_shape(diagonal: Tensor) -> list[Tensor]:
    """Logarithms of steps by axis, up to a common factor: minus half of the additive fit to the logarithm of the curvature."""
    curvature = diagonal.double() + 0.01 * float(diagonal.double().mean()) + 1e-30
    logarithm = curvature.log()
    mean, axes = logarithm.mean(), range(logarithm.dim())
    parts = [logarithm.mean([other for other in axes if other != axis]) - mean for axis in axes]
    return [(-0.5 * (part + mean if axis == 0 else part)).float() for axis, part in enumerate(parts)]


def _factors(value: Tensor, shape: list[Tensor], scale: float) -> list[Tensor]:
    """Logarithms of the steps by axis, multiplied by a common factor; larger in filters whose integers could not be coded otherwise."""
    wanted = [shape[0] + scale, *shape[1:]]
    most = (value.abs() / outer_sum(wanted).exp()).flatten(1).amax(1)
    return [wanted[0] + (most / ROOM).clamp_min(1).log(), *wanted[1:]]


def _all_zero(values: Mapping[str, Tensor], shapes: Mapping[str, list[Tensor]]) -> float:
    """Logarithm of a factor of the steps at which every integer is zero."""
    return max(
        (math.log(4 * float(values[name].abs().max()) + 1e-30) - float(outer_sum(shape).min()) for name, shape in shapes.items()),
        default=0.0,
    )


def _size(integers: Tensor) -> float:
    """Bits of integers under the distribution that is fitted to them."""
    return float(bits(integers.float(), outer_sum(fitted_levels(integers)).expand(integers.shape)))


def _stands_alone(value: Tensor, curvature: Curvature) -> bool:
    """Whether a parameter's step is chosen regardless of the wanted size: that of a vector, or of a parameter without any gradient yet."""
    return value.dim() < 2 or not bool(curvature.diagonal.any())


def _alone(value: Tensor, diagonal: Tensor, usual: float) -> tuple[Tensor, list[Tensor]]:
    """Latents and logarithms of the steps of such a parameter: one step, at most a quarter of its mean absolute value.

    Parameters that are all zero, as biases often are at the start, tell nothing about their later values: `usual` is used as their mean.
    """
    step = math.sqrt(VECTOR_ERROR / (float(diagonal.mean()) + 1e-9))
    step = max(1e-6, min(step, (float(value.abs().mean()) or usual) / 4))
    rest = [torch.zeros(size) for size in value.shape[1:]]
    return value / step, [torch.full((value.shape[0] if rest else 1,), math.log(step)), *rest]


def _fed_back(value: Tensor, steps: Tensor, matrix: Tensor | None) -> tuple[Tensor, Tensor]:
    """Round with error feedback: returns the integers and the latents that they were rounded from, [filters, ...] each."""
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
