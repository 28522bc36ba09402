"""The quick parts of the contract checks, run once with a run's own components before its first step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nern.config.experiment import Experiment, phase_place
from nern.errors import ConfigError
from nern.interfaces import Smoother
from nern.kernels.orders import LayerOrder
from nern.options import located
from nern.registry.hook_errors import place_of
from nern.registry.registry import Registry
from nern.support.seeding import derive
from nern.training.step import StepContext

#: Most kernels of a layer that a smoother is tried on: any smoother orders so few kernels quickly.
SMALL_LAYER = 1024


def check_components(experiment: Experiment, registry: Registry, context: StepContext, network: nn.Module) -> Iterator[ConfigError]:
    """Check the contracts of the components that make the representation; yields one error for each component that breaks its own.

    Args:
        context: the context of training.
        network: the original network.
    """
    rows = torch.arange(min(4, context.kernels.grid.rows), device=context.device)
    return _problems(registry, [
        ("architecture", "architecture", experiment.architecture, _architecture, (experiment.architecture, context, network)),
        ("embedding", "embedding", experiment.embedding, _embedding, (context, rows)),
        ("predictor", "predictor", experiment.predictor, _predictor, (context, rows)),
        ("base", "base", experiment.base, _base, (context, rows)),
        ("smoother", "smoother", experiment.smoother, _smoother, (experiment.smoother, context, network)),
    ])  # fmt: skip


def check_phase(experiment: Experiment, registry: Registry, context: StepContext, index: int) -> Iterator[ConfigError]:
    """Check the contracts of the sampler and the optimiser of one phase; yields errors like `check_components`."""
    phase, own = experiment.phases[index], phase_place(experiment, index)
    sampler, optimizer = phase.sampler or experiment.sampler, phase.optimizer or experiment.optimizer
    places = ["sampler" if phase.sampler is None else f"{own}.sampler", "optimizer" if phase.optimizer is None else f"{own}.optimizer"]
    return _problems(registry, [
        (places[0], "sampler", sampler, _sampler, (sampler, context, derive(context.seed, "sampler", index))),
        (places[1], "optimizer", optimizer, _optimizer, (optimizer, context)),
    ])  # fmt: skip


def _problems(
    registry: Registry, checks: Sequence[tuple[str, str, Any, Callable[..., str | None], tuple[Any, ...]]]
) -> Iterator[ConfigError]:
    owners = {entry.cls: f"{entry.package}:{entry.name}" for entry in registry.entries()}
    for place, kind, component, check, arguments in checks:
        name = owners.get(type(component), type(component).__name__)
        cause: Exception | None = None
        try:
            with located(place):
                problem = check(*arguments)
        except ConfigError as error:
            yield error
            continue
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0]
            problem, cause = f"raised {type(error).__name__}: {reason}{place_of(error)}", error
        if problem is not None:
            mistake = ConfigError(f"component {name} ({kind}): {problem}")
            mistake.__cause__ = cause
            yield mistake


def check_order(order: Any, filters: int, channels: int) -> str | None:
    """Says what is wrong with the order of a layer; None where it is right."""
    if not isinstance(order, LayerOrder):
        return f"order() must give a LayerOrder, gave {_of(order)}"
    indices, count = order.indices(), filters * channels
    if indices.dtype != torch.int64 or list(indices.shape) != [count]:
        return f"order() must give [{count}] int64, gave {_of(indices)}"
    if not torch.equal(indices.sort().values, torch.arange(count)):
        return f"order() must give every kernel from 0 to {count - 1} once, and gives others"
    return None


def _architecture(architecture: Any, context: StepContext, network: nn.Module) -> str | None:
    layers = list(architecture.layers(network))
    again = [(layer.parameter, tuple(layer.shape), layer.layer) for layer in architecture.layers(network)]
    if again != [(layer.parameter, tuple(layer.shape), layer.layer) for layer in layers]:
        return "layers() gives other layers, or another order, when it is called again"
    state = network.state_dict()
    for layer in layers:
        weight = state[layer.parameter]
        if tuple(weight.shape) != tuple(layer.shape):
            return f"the mapping of '{layer.parameter}' says shape {list(layer.shape)}, the weight has {list(weight.shape)}"
        kernels = layer.split(weight)
        if list(kernels.shape) != [layer.count, *layer.kernel]:
            return f"split() of '{layer.parameter}' must give {[layer.count, *layer.kernel]}, gave {list(kernels.shape)}"
        if not torch.equal(layer.join(kernels), weight):
            return f"join() of '{layer.parameter}' must give back what split() was given, and gives another weight"
    stored = context.kernels.table.stored
    if stored is not None:
        if stored.dtype != torch.int64 or stored.dim() != 2 or stored.shape[1] < 3:
            return f"coordinates() must give [kernels, 3] int64, gave {_of(stored)}"
        if len(torch.unique(stored, dim=0)) != len(stored):
            return "coordinates() must differ from kernel to kernel, and two kernels have the same"
    return None


def _embedding(context: StepContext, rows: Tensor) -> str | None:
    representation = context.representation
    coordinates = representation.table.coordinates(rows)
    before = coordinates.clone()
    vectors: Any = representation.embedding(coordinates)
    wanted = [len(rows), int(representation.embedding.dim)]  # type: ignore[arg-type]
    if not torch.equal(coordinates, before):
        return "forward() changes the coordinates that it is given"
    return _wrong_numbers(vectors, wanted, "forward(coordinates)")


def _predictor(context: StepContext, rows: Tensor) -> str | None:
    representation = context.representation
    groups = representation.groups
    rows = rows if groups is None else groups.rows(torch.zeros(1, dtype=torch.int64, device=rows.device))
    with torch.random.fork_rng():
        kernels: Any = representation.predict(rows)
        wrong = _wrong_numbers(kernels, [len(rows), context.kernels.grid.outputs], "forward(embedded)")
        return wrong or _unused(context)


def _unused(context: StepContext) -> str | None:
    """Find a trained parameter of the predictor on which no kernel depends. First a few kernels of each layer are tried, then all."""
    representation = context.representation
    trained = {name: value for name, value in representation.predictor.named_parameters() if value.requires_grad}
    table, groups = representation.table, representation.groups
    if groups is None:
        some = table.starts
    else:
        first = groups.of(table.starts)
        some = groups.rows(first)
    for rows in (some, None):
        if not trained:
            return None
        kernels = representation.predict(rows)
        if not kernels.requires_grad:
            return "no gradient reaches its parameters: forward(embedded) must be differentiable in them"
        gradients = torch.autograd.grad(kernels.sum(), list(trained.values()), allow_unused=True)
        trained = {name: value for (name, value), gradient in zip(trained.items(), gradients, strict=True) if gradient is None}
    unused = next(iter(trained), None)
    return unused and (
        f"no kernel depends on parameter '{unused}', which every file would hold: use it in forward(), "
        "or make it no parameter that is trained (requires_grad_(False))"
    )


def _smoother(smoother: Smoother, context: StepContext, network: nn.Module) -> str | None:
    """Check the order of the smallest layer, unless that layer is large."""
    layer = min(context.kernels.grid.layers, key=lambda layer: layer.count)
    if layer.count > SMALL_LAYER:
        return None
    kernels = layer.split(network.state_dict()[layer.parameter].float()).reshape(layer.filters, layer.channels, -1).clone()
    before = kernels.clone()
    with torch.random.fork_rng():
        order = smoother.order(kernels)
    problem = check_order(order, layer.filters, layer.channels)
    if problem is None and not torch.equal(kernels, before):
        problem = "order() changes the kernels that it is given"
    return problem and f"{problem} ('{layer.parameter}')"


def _optimizer(optimizer: Any, context: StepContext) -> str | None:
    parameters = [(name, value) for name, value in context.representation.named_parameters() if value.requires_grad]
    if not parameters:  # the start of the phase reports this mistake
        return None
    with torch.random.fork_rng():
        return problem_with_optimizers(optimizer.start(parameters), parameters)


def problem_with_optimizers(started: Any, parameters: Sequence[tuple[str, nn.Parameter]]) -> str | None:
    """Says what is wrong with the result of `Optimizer.start` for named parameters; None where it is right."""
    if not isinstance(started, list) or not started or not all(isinstance(one, torch.optim.Optimizer) for one in started):
        return f"start() must return a list of torch optimisers, returned {_of(started)}"
    names = {id(value): name for name, value in parameters}
    stepped = [id(value) for one in started for group in one.param_groups for value in group["params"]]
    for key in stepped:
        if key not in names:
            return "start() must hand on the parameters that it is given, and steps another one"
    for key, name in names.items():
        times = stepped.count(key)
        if times != 1:
            return f"start() must hand every parameter to exactly one optimiser, once: '{name}' is stepped {times} times"
    return None


def _base(context: StepContext, rows: Tensor) -> str | None:
    representation = context.representation
    if representation.base is None:
        return None
    with torch.no_grad():
        added = representation.base(rows)
        wrong = _wrong_numbers(added, [len(rows), context.kernels.grid.outputs], "forward(rows)")
        if wrong is None and not torch.allclose(representation.base(rows[-1:]), added[-1:], rtol=1e-3, atol=1e-6):
            return "forward(rows) must give a row the same among any others, and gives others"
    return wrong


def _sampler(sampler: Any, context: StepContext, seed: int) -> str | None:
    kernels, groups = context.kernels, context.representation.groups
    norms, layers = kernels.norms(), kernels.table.layers()
    count = len(norms) if groups is None else len(groups.sizes)
    draw = sampler.start(*((norms, layers) if groups is None else (groups.norms(norms), layers[groups.starts])), seed)
    first = draw(0)
    if first is None:
        return None
    if not isinstance(first, Tensor) or first.dtype != torch.int64 or first.dim() != 1:
        return f"a step must draw [m] int64 or None, drew {_of(first)}"
    if not len(first):
        return "a step must draw at least one kernel, drew none"
    if int(first.min()) < 0 or int(first.max()) >= count:
        return f"a step must draw rows from 0 to {count - 1}, drew {int(first.min())} to {int(first.max())}"
    return (
        None if torch.equal(draw(0), first) else "the same step must draw the same rows again, and draws others: a resumed run would differ"
    )


def _wrong_numbers(value: Any, shape: list[int], what: str) -> str | None:
    if not isinstance(value, Tensor) or list(value.shape) != shape or not value.is_floating_point():
        return f"{what} must give {shape} float32, gave {_of(value)}"
    return None if bool(value.isfinite().all()) else f"{what} must give finite numbers, and gives others"


def _of(value: Any) -> str:
    return f"{list(value.shape)} {str(value.dtype).removeprefix('torch.')}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
