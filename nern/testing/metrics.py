"""Checks a metric, and a kind of outputs."""

from __future__ import annotations

from typing import Any

import torch

from nern.outputs.component_contracts import problem_with_metric, problem_with_outputs
from nern.outputs.kinds import OutputKind
from nern.outputs.metric import Metric, figure_of
from nern.outputs.nested import count, map_tensors, part, tensors_of
from nern.support.contracts import ContractError
from nern.support.seeding import generator
from nern.testing.assertions import expect, expect_none
from nern.testing.options import check_options


def check_metric(metric: Metric, outputs: Any = None, reference: Any = None) -> None:
    """Check that the figure is one number, does not depend on how images are split into batches, and that nothing is changed.

    Args:
        outputs: outputs of a network; by default logits [12, 10].
        reference: what they are compared with: targets, or another network's outputs.
    """
    check_options("metric", metric)
    _check_figure(metric, outputs, reference)


def _check_figure(metric: Metric, outputs: Any, reference: Any) -> None:
    expect_none(problem_with_metric(metric))
    if outputs is None:
        outputs = torch.randn(12, 10, generator=generator(0, "outputs"))
        reference = torch.randint(10, (12,), generator=generator(0, "targets"))
        if metric.compares == "original" or not _takes(metric, outputs, reference):
            reference = outputs + 0.3 * torch.randn(12, 10, generator=generator(0, "original"))
    images = count(outputs)
    before = [value.clone() for value in tensors_of([outputs, reference])]

    def measured(size: int) -> float | None:
        slices = [slice(start, start + size) for start in range(0, images, size)]
        batches = [metric.batch(part(outputs, chosen), part(reference, chosen)) for chosen in slices]
        try:
            return figure_of(metric, batches)
        except ContractError as error:
            raise AssertionError(str(error)) from error

    whole = measured(images)
    again = measured(images)
    expect(whole == again or (whole != whole and again != again), "the figure of the same outputs differs from call to call")
    for size in (5, 1):
        cut = measured(size)
        expect(
            (whole is None) == (cut is None) and (whole is None or cut is None or abs(whole - cut) <= 1e-6 * max(1.0, abs(whole))),
            f"the figure is {whole} for all images at once and {cut} in batches of {size}: total() must not depend on the batches",
        )
    after = tensors_of([outputs, reference])
    expect(all(torch.equal(a, b) for a, b in zip(before, after, strict=True)), "the metric changes its arguments")


def check_outputs(kind: OutputKind, outputs: Any, targets: Any = None) -> None:
    """Check that the distance is zero with a finite gradient where two networks agree, and that the metrics and their choice are valid.

    Args:
        outputs: a network's outputs for a few images.
        targets: the images' targets, where the task has targets.
    """
    kind.check(outputs)
    noise = iter(range(1000))
    other = map_tensors(
        lambda value: (
            (value + 0.3 * torch.randn(value.shape, generator=generator(0, next(noise)))).requires_grad_()
            if value.is_floating_point()
            else value
        ),
        outputs,
    )
    apart = kind.distance(outputs, other)
    expect(apart.dim() == 0 and bool(apart.isfinite()), "distance() must be a finite scalar")
    expect(apart.requires_grad, "distance() is not differentiable in the reconstructed outputs")
    apart.backward()  # type: ignore[no-untyped-call]
    equal, apart = float(kind.distance(outputs, outputs)), apart.detach()
    expect(equal <= float(apart) and abs(equal) < 1e-5, f"distance() is {equal:.4g} where both sides agree")
    images = count(outputs)
    parts = [kind.distance(part(outputs, slice(i, i + 1)), part(other, slice(i, i + 1))) for i in range(images)]
    mean = float(torch.stack(parts).detach().double().mean())
    expect(abs(mean - float(apart)) <= 1e-4 * max(1.0, abs(mean)), "distance() must be the mean over images")
    expect_none(problem_with_outputs(kind))
    detached = map_tensors(lambda value: value.detach(), other)
    for metric in kind.metrics().values():
        reference = targets if metric.compares == "targets" else outputs
        if reference is not None:
            _check_figure(metric, detached, reference)
    if targets is not None:
        kind.check_targets(outputs, targets)


def _takes(metric: Metric, outputs: Any, reference: Any) -> bool:
    try:
        metric.batch(outputs, reference)
    except Exception:
        return False
    return True
