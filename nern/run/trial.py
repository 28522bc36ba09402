"""Tries a run's own components before its first step: which check of a contract is made at which moment, and on what.

The contracts themselves stand in `component_contracts` of nern.representation, nern.training and nern.outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import attrs
import torch
from torch import nn

from nern.config.experiment import Experiment, phase_place
from nern.errors import ConfigError
from nern.interfaces import Architecture, Optimizer, Sampler, Smoother, Task
from nern.options import located
from nern.outputs.component_contracts import problem_with_figure, problem_with_metric, problem_with_outputs, problem_with_targets
from nern.outputs.metric import Measures, Metric
from nern.representation.component_contracts import (
    problem_with_base,
    problem_with_coordinates,
    problem_with_embedding,
    problem_with_example_inputs,
    problem_with_features,
    problem_with_layers,
    problem_with_mapping,
    problem_with_predictor,
    problem_with_second_call,
    problem_with_smoother,
)
from nern.representation.entropy import StoredBits
from nern.support.contracts import ContractError, at_work, broken, is_own, meddling, raised
from nern.support.seeding import derive
from nern.support.settings import kept
from nern.training.component_contracts import (
    problem_with_comparison,
    problem_with_factor,
    problem_with_optimizers,
    problem_with_sampler,
    problem_with_state,
)
from nern.training.step import PhaseTrainer, StepContext

#: Most kernels of a layer that a smoother is tried on: any smoother orders so few kernels quickly.
SMALL_LAYER = 1024


@attrs.frozen
class Check:
    """One look at a component."""

    place: str  # in the configuration
    kind: str  # extension point
    component: Any
    look: Callable[[], str | None]  # says what is wrong, or raises it
    made: Any = None  # what the component has made, which may have the method at fault


def check_components(
    experiment: Experiment, context: StepContext, network: nn.Module, others_alone: bool = False
) -> Iterator[ContractError]:
    """Check the contracts of the components that make the representation; yields one error for each component that breaks its own.

    Args:
        context: the context of training.
        network: the original network.
        others_alone: whether nern's own components are left out.
    """
    representation, architecture, smoother = context.representation, experiment.architecture, experiment.smoother
    rows = torch.arange(min(4, context.kernels.grid.rows), device=context.device)
    embedding, predictor, base = (
        partial(look, representation, rows) for look in (problem_with_embedding, problem_with_predictor, problem_with_base)
    )
    return _errors([
        Check("architecture", "architecture", architecture, partial(_look_at_kernels, architecture, context, network)),
        Check("embedding", "embedding", experiment.embedding, embedding, representation.embedding),
        Check("predictor", "predictor", experiment.predictor, predictor, representation.predictor),
        Check("base", "base", experiment.base, base, representation.base),
        Check("smoother", "smoother", smoother, partial(_look_at_order, smoother, context, network)),
    ], others_alone)  # fmt: skip


def check_phase(
    experiment: Experiment, context: StepContext, index: int, step: int = 0, others_alone: bool = False
) -> Iterator[ContractError]:
    """Check the contracts of the sampler and the optimiser at a step of one phase; yields errors like `check_components`."""
    phase, own = experiment.phases[index], phase_place(experiment, index)
    sampler, optimizer = phase.sampler or experiment.sampler, phase.optimizer or experiment.optimizer
    places = ["sampler" if phase.sampler is None else f"{own}.sampler", "optimizer" if phase.optimizer is None else f"{own}.optimizer"]
    seed = derive(context.seed, "sampler", index)
    return _errors([
        Check(places[0], "sampler", sampler, partial(_look_at_draw, sampler, context, seed, step)),
        Check(places[1], "optimizer", optimizer, partial(_look_at_optimizer, optimizer, context, phase.iterations)),
    ], others_alone)  # fmt: skip


def check_architecture(architecture: Architecture, network: nn.Module) -> Iterator[ContractError]:
    """Check what the architecture of a plugin says about its network, before anything is made of that."""
    checks = [Check("architecture", "architecture", architecture, partial(_look_at_network, architecture, network))]
    return _errors(checks, others_alone=True)


def check_measures(task: Task, metrics: Mapping[str, Metric] | None) -> None:
    """Look at what a task says about its outputs, and at metrics.

    Raises:
        ConfigError: they are no kind of outputs, or no metrics.
    """
    with at_work(task, "task"):
        kind: Any = task.outputs()
    with at_work(task, "task", kind):
        problem = problem_with_outputs(kind)
    if problem:
        raise broken(task, "task", problem, kind)
    for metric in {**kind.metrics(), **(metrics or {})}.values():
        with at_work(metric, "metric"):
            problem = problem_with_metric(metric)
        if problem:
            raise broken(metric, "metric", problem)


def check_metrics(measures: Measures, measured: Sequence[tuple[Any, Any, Any]], task: Task) -> Iterator[ContractError]:
    """Take every figure of a few images.

    Args:
        measured: inputs, targets (or None) and outputs of a batch of each split.
        task: whose outputs they are.
    """
    return _errors([
        Check("task", "task", task, partial(problem_with_targets, name, metric, outputs, targets), task.outputs())
        if is_own(metric)
        else Check(f"metrics.{name}", "metric", metric, partial(problem_with_figure, metric, outputs, targets))
        for name, metric in measures.metrics.items()
        for _, targets, outputs in measured
        if not is_own(metric) or not is_own(task)
    ])  # fmt: skip


def check_losses(trainer: PhaseTrainer, given: Any, place: str, task: Task) -> Iterator[ContractError]:
    """Check what the losses of a phase do with a few inputs.

    Args:
        given: a batch as the phase draws it, a pair with its targets where a loss needs them; None where no loss runs the networks.
        place: of the losses in the configuration.
        task: whose outputs nern's own losses compare as it says.
    """
    batch, targets = given if trainer.needs_targets and given is not None else (given, None)
    sides: dict[str, tuple[Any, Any]] = {}

    def look(name: str) -> str | None:
        if "outputs" not in sides and "weights" not in sides:
            sides.update(trainer.compared([*trainer.terms], None if batch is not None else trainer.rows(0), batch))
        term, loss = trainer.terms[name]
        if term.loss.needs == "bits":  # which a representation has only once its parameters are coded
            bits = torch.tensor(1000.0, device=trainer.context.device)
            sides["bits"] = (StoredBits(bits.clone().requires_grad_(), bits, trainer.context.kernels.grid.weights),) * 2
        further = (targets,) if term.loss.needs_targets else ()
        return problem_with_comparison(loss, sides[term.loss.needs], trainer.context.device, *further)

    return _errors([
        Check("task", "task", task, partial(look, name), trainer.context.outputs)
        if is_own(term.loss)
        else Check(f"{place}.{name}", "loss", term.loss, partial(look, name), loss)
        for name, (term, loss) in trainer.terms.items()
        if not is_own(term.loss) or (not is_own(task) and term.loss.needs in ("logits", "outputs"))
    ])  # fmt: skip


def check_state(trainer: PhaseTrainer) -> Iterator[ContractError]:
    """Check whether a checkpoint can hold what samplers and losses of plugins keep between steps."""
    checks = [Check(kind, kind, component, partial(problem_with_state, keeper), keeper) for component, kind, keeper in trainer.keeping()]
    return _errors(checks, others_alone=True)


def fault_of(
    experiment: Experiment, context: StepContext, network: nn.Module, index: int, step: int, batch: Callable[[], None]
) -> ContractError | None:
    """The first component that breaks its contract in a step that went wrong.

    Args:
        network: the original network.
        index: of the phase.
        batch: looks at the inputs of the step, and raises what is wrong with them.
    """
    try:
        batch()
        context.representation.eval()
        errors = [*check_phase(experiment, context, index, step, True), *check_components(experiment, context, network, True)]
    except ContractError as error:
        return error
    finally:
        context.representation.train()
    return errors[0] if errors else None


def _errors(checks: Sequence[Check], others_alone: bool = False) -> Iterator[ContractError]:
    for check in checks:
        cause: Exception | None = None
        if others_alone and is_own(check.component):
            continue
        try:
            with located(check.place), torch.random.fork_rng(), kept() as changed:
                problem = check.look()
            problem = meddling(changed) if changed else problem
        except ContractError as error:
            yield error
            continue
        except ConfigError as error:
            yield ContractError(str(error))
            continue
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            problem, cause = raised(error), error
        if problem is not None:
            mistake = broken(check.component, check.kind, problem, *([] if check.made is None else [check.made]))
            mistake.__cause__ = cause
            yield mistake


def _look_at_network(architecture: Architecture, network: nn.Module) -> str | None:
    return (
        problem_with_layers(architecture.layers(network), network)
        or problem_with_features(architecture.features(network), network)
        or problem_with_example_inputs(architecture.example_inputs(2), network)
    )


def _look_at_kernels(architecture: Architecture, context: StepContext, network: nn.Module) -> str | None:
    layers, state = list(architecture.layers(network)), network.state_dict()
    problem = problem_with_second_call(layers, architecture.layers(network))
    for layer in layers:
        problem = problem or problem_with_mapping(layer, state[layer.parameter])
    stored = context.kernels.table.stored
    return problem or (None if stored is None else problem_with_coordinates(stored))


def _look_at_order(smoother: Smoother, context: StepContext, network: nn.Module) -> str | None:
    """Order the smallest layer, unless that layer is large."""
    layer = min(context.kernels.grid.layers, key=lambda layer: layer.count)
    if layer.count > SMALL_LAYER:
        return None
    kernels = layer.split(network.state_dict()[layer.parameter].float()).reshape(layer.filters, layer.channels, -1).clone()
    problem = problem_with_smoother(smoother, kernels)
    return problem and f"{problem} ('{layer.parameter}')"


def _look_at_draw(sampler: Sampler, context: StepContext, seed: int, step: int) -> str | None:
    kernels, groups = context.kernels, context.representation.groups
    norms, layers = kernels.norms(), kernels.table.layers()
    given = (norms, layers) if groups is None else (groups.norms(norms), layers[groups.starts])
    return problem_with_sampler(sampler, *given, seed, step)


def _look_at_optimizer(optimizer: Optimizer, context: StepContext, total: int) -> str | None:
    parameters = [(name, value) for name, value in context.representation.named_parameters() if value.requires_grad]
    if not parameters:  # the start of the phase reports this mistake
        return None
    problem = problem_with_factor(optimizer.factor(0, total)) or problem_with_factor(optimizer.factor(total - 1, total))
    return problem or problem_with_optimizers(optimizer.start(parameters), parameters)
