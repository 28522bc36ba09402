"""Phases of a run as their trainers: what they draw at random depends on the seed, the phase and the step alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import attrs
import torch
from torch import Tensor

from nern.config.experiment import Experiment, Phase, phase_place
from nern.errors import ConfigError, DataError
from nern.interfaces import Data, Task
from nern.support.contracts import at_work
from nern.support.seeding import derive, generator, seeded
from nern.training.step import PhaseTrainer, StepContext


def start_phase(
    experiment: Experiment,
    phase: Phase,
    index: int,
    context: StepContext,
    open_task: Callable[[Task], Data],
    budget: float | None = None,
) -> PhaseTrainer:
    """Make the trainer of a phase.

    Args:
        index: position of the phase; every random draw depends on it.
        open_task: function that opens the images of a task; called only when a loss first needs images.
        budget: bits that coded parameters should take; None where no size was asked for.

    Raises:
        ConfigError: an option of one of its components is impossible for this network; the message names its path.
    """
    with seeded(experiment.seed, "phase", index):
        return PhaseTrainer(
            context, phase, experiment.losses_of(phase), phase.sampler or experiment.sampler,
            phase.optimizer or experiment.optimizer, phase_inputs(experiment, phase, index, context, open_task), index,
            budget, phase_place(experiment, index),
        )  # fmt: skip


def phase_inputs(
    experiment: Experiment, phase: Phase, index: int, context: StepContext, open_task: Callable[[Task], Data]
) -> Callable[[int], Any]:
    """The training inputs of a phase: a function from the step number to a batch on the device, with targets where a loss needs them."""
    seed = derive(experiment.seed, "inputs", index)
    losses = experiment.losses if phase.losses is None else phase.losses
    wanted = [name for name, term in losses.items() if term.weight > 0 and term.loss.needs_targets]

    @cache
    def batches() -> Callable[[int], Any]:  # opened when a loss first needs images: some phases run no network
        with seeded(seed, "opened"):  # a resumed run opens them at another step
            return opened()

    def opened() -> Callable[[int], Any]:
        source = open_task(phase.inputs or experiment.task)
        if wanted:
            if type(source).pairs is Data.pairs and not source.gives_targets:
                raise DataError(
                    f"loss '{wanted[0]}' needs targets, and the task gives none with its training inputs; take another task or another loss"
                )
            return source.pairs(phase.batch, seed, context.device)
        draw = source.inputs(phase.batch, seed, context.device)
        return (lambda step: draw(step)[0]) if source.gives_targets else draw

    def images(step: int) -> Any:
        with at_work(phase.inputs or experiment.task, "task"):
            drawn = batches()(step)
        if not phase.mix:
            return drawn
        if not isinstance(drawn, Tensor):
            raise ConfigError(f"phases.{index}.mix: only images without targets can be mixed; set it to 0")
        return mixed(drawn, phase.mix, generator(seed, "mix", step))

    return images


def mixed(images: Tensor, part: float, source: torch.Generator) -> Tensor:
    """Replace some images of a batch [b, ...] by mixtures of two images in random proportion (Beyer et al. 2022, sec. 3.2)."""
    count = round(part * len(images))
    proportions = torch.rand(count, *(1 for _ in images.shape[1:]), generator=source).to(images.device)
    others = images[torch.randperm(len(images), generator=source)[:count].to(images.device)]
    return torch.cat([images[:count] * proportions + others * (1 - proportions), images[count:]])


def tune(
    experiment: Experiment,
    context: StepContext,
    open_task: Callable[[Task], Data],
    steps: int,
    after: Callable[[], None],
) -> None:
    """Train the representation of `context` further, as in the last phase.

    Args:
        open_task: function that opens the images of a task.
        after: called after every step.
    """
    phase = attrs.evolve(experiment.phases[-1], iterations=steps)
    trainer = start_phase(experiment, phase, len(experiment.phases), context, open_task)
    for step in range(steps):
        trainer.step(step)
        after()
    trainer.flush(steps - 1)
