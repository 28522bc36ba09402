"""How long a step of a phase takes here: from some steps, or from parts of one where whole steps take too long to try."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import attrs
import torch

from nern.config.experiment import Experiment, Phase
from nern.interfaces import Data, Task
from nern.outputs.nested import tensors_of
from nern.run.phases import phase_inputs, start_phase
from nern.training.step import PhaseTrainer, StepContext

STEPS = 3  # that are tried, the first of which prepares things and is not counted
BATCHES = (2, 8)  # images of the first steps on a CPU, from which a step on many is extrapolated
KERNELS = 2048  # whose prediction is timed before all are predicted


def step_time(
    experiment: Experiment, phase: Phase, index: int, context: StepContext, open_task: Callable[[Task], Data], allowed: float
) -> tuple[float, str]:
    """Seconds that a step of a phase takes, and from what that was worked out; nothing where whole steps were tried.

    Steps on few images come first, and whole ones only where `allowed` seconds are enough for them. Where predicting all
    kernels alone takes as long, a few are predicted, and the networks run with the original weights in their place.

    Args:
        context: whose representation the steps change.
        allowed: seconds; what is tried takes about so long, whatever the network.
    """
    began = time.perf_counter()
    measured: dict[int, float] = {}
    on_few = experiment.runs_networks(phase) and context.device.type == "cpu"
    if on_few and _seconds_of_all_kernels(context, gradient=False) > allowed / 4:
        return _from_parts(experiment, phase, index, context, open_task)
    for batch in [*(size for size in BATCHES if on_few and size < phase.batch), phase.batch]:
        left = allowed - (time.perf_counter() - began)
        if len(measured) == len(BATCHES) and STEPS * _extrapolated(measured, batch) > left:
            return _extrapolated(measured, phase.batch), f"steps on {_listed(measured)} images in place of {phase.batch}"
        trainer = start_phase(experiment, attrs.evolve(phase, batch=batch), index, context, open_task)
        for step in range(STEPS):
            seconds = _seconds(lambda trainer=trainer, step=step: trainer.step(step))  # type: ignore[misc]
            measured[batch] = seconds if step < 2 else min(seconds, measured[batch])
            if seconds > allowed - (time.perf_counter() - began):
                break
    return measured[phase.batch], ""


def _from_parts(
    experiment: Experiment, phase: Phase, index: int, context: StepContext, open_task: Callable[[Task], Data]
) -> tuple[float, str]:
    """A step as the sum of its largest parts: the prediction of all kernels, and both networks forwards and backwards."""
    trainer = start_phase(experiment, phase, index, context, open_task)
    drawn, groups, rows = trainer.draw(0), context.representation.groups, context.representation.grid.rows
    carrying = rows if drawn is None else len(drawn if groups is None else groups.rows(drawn))  # kernels with gradient
    predicting = carrying / rows * _seconds_of_all_kernels(context, gradient=True)
    predicting += 0.0 if drawn is None else _seconds_of_all_kernels(context, gradient=False)
    running = {}
    for batch in sorted({min(size, phase.batch) for size in BATCHES}):
        inputs = phase_inputs(experiment, attrs.evolve(phase, batch=batch), index, context, open_task)(0)
        inputs = inputs[0] if trainer.needs_targets else inputs
        running[batch] = min(_seconds(lambda inputs=inputs: _run_networks(trainer, inputs)) for _ in range(2))  # type: ignore[misc]
    few = f"predicting {min(KERNELS, rows):,} of {rows:,} kernels"
    how = f"{few} and running the networks on " + (
        f"{_listed(running)} images in place of {phase.batch}" if phase.batch > max(running) else "its images"
    )
    return predicting + _extrapolated(running, phase.batch), how


def _run_networks(trainer: PhaseTrainer, inputs: object) -> None:
    """Both networks on some inputs, the reconstructed one with the original weights and backwards, too."""
    context = trainer.context
    features = any(term.loss.needs == "features" for term, _ in trainer.terms.values())
    flat = torch.cat([kernels.reshape(-1) for kernels in context.kernels.by_layer()]).requires_grad_()
    context.networks.original(inputs, features)
    outputs = context.networks.reconstructed(inputs, context.representation.weights(flat), features)
    parts = [value for value in (*tensors_of(outputs.logits), *outputs.features) if value.is_floating_point()]
    torch.stack([value.float().square().mean() for value in parts]).sum().backward()  # type: ignore[no-untyped-call]
    context.networks.release()


def _seconds_of_all_kernels(context: StepContext, gradient: bool) -> float:
    """How long predicting all kernels takes, with or without its backward pass, from predicting some."""
    representation = context.representation
    if getattr(representation.predictor, "whole", None) is not None:
        return _seconds(representation.predict_weights)
    rows = representation.first_rows(KERNELS)

    def predict() -> None:
        with torch.set_grad_enabled(gradient), context.arithmetic():
            predicted = representation.predict(rows)
        if gradient:
            torch.autograd.grad(predicted.float().square().sum(), [value for value in representation.parameters() if value.requires_grad])

    predict()
    return _seconds(predict) * representation.grid.rows / len(rows)


def _extrapolated(measured: Mapping[int, float], batch: int) -> float:
    """Seconds on `batch` images: on a line through the last two times, never falling; the time itself where there is one."""
    (first, before), (last, after) = (sorted(measured.items()) * 2)[-2:] if len(measured) == 1 else sorted(measured.items())[-2:]
    return after if first == last else after + max(0.0, after - before) / (last - first) * (batch - last)


def _listed(measured: Mapping[int, float]) -> str:
    return " and ".join(map(str, measured))


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
