"""The quick parts of the contract checks, run once with a run's own components before its first step."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nern.config.experiment import Experiment, phase_place
from nern.contracts import ContractError, at_work, broken, described_value, is_own, raised
from nern.errors import ConfigError
from nern.interfaces import Architecture, Kernels, Loss, Smoother, Task
from nern.kernels.coordinates import LayerMapping
from nern.kernels.orders import LayerOrder
from nern.networks.feature_maps import sums_among
from nern.options import located
from nern.outputs.kinds import OutputKind
from nern.outputs.metric import Measures, Metric
from nern.outputs.nested import call, map_tensors, tensors_of
from nern.representation.entropy import StoredBits
from nern.run.evaluation import figure_of
from nern.support.messages import first_line
from nern.support.seeding import derive
from nern.training.processes import problem_with_loss
from nern.training.step import PhaseTrainer, StepContext, problem_with_draw, problem_with_factor

#: Most kernels of a layer that a smoother is tried on: any smoother orders so few kernels quickly.
SMALL_LAYER = 1024


def check_components(
    experiment: Experiment, context: StepContext, network: nn.Module, others_alone: bool = False
) -> Iterator[ContractError]:
    """Check the contracts of the components that make the representation; yields one error for each component that breaks its own.

    Args:
        context: the context of training.
        network: the original network.
        others_alone: whether nern's own components are left out.
    """
    representation, rows = context.representation, torch.arange(min(4, context.kernels.grid.rows), device=context.device)
    return _problems([
        ("architecture", "architecture", experiment.architecture, _architecture, (experiment.architecture, context, network), ()),
        ("embedding", "embedding", experiment.embedding, _embedding, (context, rows), (representation.embedding,)),
        ("predictor", "predictor", experiment.predictor, _predictor, (context, rows), (representation.predictor,)),
        ("base", "base", experiment.base, _base, (context, rows), (representation.base,)),
        ("smoother", "smoother", experiment.smoother, _smoother, (experiment.smoother, context, network), ()),
    ], others_alone)  # fmt: skip


def check_phase(
    experiment: Experiment, context: StepContext, index: int, step: int = 0, others_alone: bool = False
) -> Iterator[ContractError]:
    """Check the contracts of the sampler and the optimiser at a step of one phase; yields errors like `check_components`."""
    phase, own = experiment.phases[index], phase_place(experiment, index)
    sampler, optimizer = phase.sampler or experiment.sampler, phase.optimizer or experiment.optimizer
    places = ["sampler" if phase.sampler is None else f"{own}.sampler", "optimizer" if phase.optimizer is None else f"{own}.optimizer"]
    return _problems([
        (places[0], "sampler", sampler, _sampler, (sampler, context, derive(context.seed, "sampler", index), step), ()),
        (places[1], "optimizer", optimizer, _optimizer, (optimizer, context, phase.iterations), ()),
    ], others_alone)  # fmt: skip


def check_architecture(architecture: Architecture, network: nn.Module) -> Iterator[ContractError]:
    """What the architecture of a plugin says about its network, before anything is made of that."""
    if is_own(architecture):
        return iter(())
    return _problems([("architecture", "architecture", architecture, _mapped, (architecture, network), ())])


def check_measures(task: Task, metrics: Mapping[str, Metric] | None) -> None:
    """Look at what a task says about its outputs, and at metrics.

    Raises:
        ConfigError: they are no kind of outputs, or no metrics.
    """
    with at_work(task, "task"):
        kind: Any = task.outputs()
    if not isinstance(kind, OutputKind):
        example = "such as nern.toolkit.outputs.ClassLogits()"
        raise broken(task, "task", f"outputs() must give a kind of outputs, {example}, gave {described_value(kind)}")
    with at_work(task, "task", kind):
        own: Any = kind.metrics()
        choice: Any = kind.choice
    if not isinstance(own, Mapping) or not own or not all(isinstance(metric, Metric) for metric in own.values()):
        raise broken(task, "task", f"metrics() of its outputs() must give names of metrics with their nern.Metric, gave {own!r}", kind)
    if not isinstance(choice, (tuple, list)) or not choice or not set(choice) <= set(own):
        raise broken(task, "task", f"'choice' of its outputs() must name some of its metrics ({', '.join(own)}), is {choice!r}", kind)
    for metric in {**own, **(metrics or {})}.values():
        for name, allowed in (("compares", ("targets", "original")), ("better", ("higher", "lower"))):
            with at_work(metric, "metric"):
                value: Any = getattr(metric, name)
            if value not in allowed:
                raise broken(metric, "metric", f"'{name}' must be {' or '.join(map(repr, allowed))}, is {value!r}")


def check_metrics(measures: Measures, measured: Sequence[tuple[Any, Any, Any]], task: Task) -> Iterator[ContractError]:
    """Take every figure of a few images.

    Args:
        measured: inputs, targets (or None) and outputs of a batch of each split.
        task: whose outputs they are.
    """
    return _problems([
        ("task", "task", task, _own_metric, (name, metric, outputs, targets), (task.outputs(),))
        if is_own(metric)
        else (f"metrics.{name}", "metric", metric, _metric, (metric, outputs, targets), ())
        for name, metric in measures.metrics.items()
        for _, targets, outputs in measured
        if not is_own(metric) or not is_own(task)
    ])  # fmt: skip


def check_losses(trainer: PhaseTrainer, given: Any, place: str, task: Task) -> Iterator[ContractError]:
    """What the losses of a phase do with a few inputs.

    Args:
        given: a batch as the phase draws it, a pair with its targets where a loss needs them; None where no loss runs the networks.
        place: of the losses in the configuration.
        task: whose outputs nern's own losses compare as it says.
    """
    batch, targets = given if trainer.needs_targets and given is not None else (given, None)
    sides: dict[str, tuple[Any, Any]] = {}

    def looked_at(name: str) -> str | None:
        if "outputs" not in sides and "weights" not in sides:
            sides.update(trainer.compared([*trainer.terms], None if batch is not None else trainer.rows(0), batch))
        term, loss = trainer.terms[name]
        if term.loss.needs == "bits":  # which a representation has only once its parameters are coded
            bits = torch.tensor(1000.0, device=trainer.context.device)
            sides["bits"] = (StoredBits(bits.clone().requires_grad_(), bits, trainer.context.kernels.grid.weights),) * 2
        return _loss(term.loss, loss, sides[term.loss.needs], targets, trainer.context.device)

    return _problems([
        ("task", "task", task, looked_at, (name,), (trainer.context.outputs,))
        if is_own(term.loss)
        else (f"{place}.{name}", "loss", term.loss, looked_at, (name,), (loss,))
        for name, (term, loss) in trainer.terms.items()
        if not is_own(term.loss) or (not is_own(task) and term.loss.needs in ("logits", "outputs"))
    ])  # fmt: skip


def check_state(trainer: PhaseTrainer) -> Iterator[ContractError]:
    """Whether a checkpoint can hold what samplers and losses keep between steps."""
    return _problems([
        (kind, kind, component, _state, (made,), (made,)) for component, kind, made in trainer.keeping() if not is_own(component)
    ])  # fmt: skip


Check = tuple[str, str, Any, Callable[..., "str | None"], tuple[Any, ...], tuple[Any, ...]]


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
        found = [*check_phase(experiment, context, index, step, True), *check_components(experiment, context, network, True)]
    except ContractError as error:
        return error
    finally:
        context.representation.train()
    return found[0] if found else None


def _problems(checks: Sequence[Check], others_alone: bool = False) -> Iterator[ContractError]:
    """The errors of checks: each has its place in the configuration, the extension point, the component, what looks at it with
    which arguments, and what the component has made.
    """
    for place, kind, component, check, arguments, made in checks:
        cause: Exception | None = None
        if others_alone and is_own(component):
            continue
        try:
            with located(place), torch.random.fork_rng():
                problem = check(*arguments)
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
            mistake = broken(component, kind, problem, *made)
            mistake.__cause__ = cause
            yield mistake


def check_order(order: Any, filters: int, channels: int) -> str | None:
    """Says what is wrong with the order of a layer; None where it is right."""
    if not isinstance(order, LayerOrder):
        return f"order() must give a LayerOrder, gave {described_value(order)}"
    indices, count = order.indices(), filters * channels
    if indices.dtype != torch.int64 or list(indices.shape) != [count]:
        return f"order() must give [{count}] int64, gave {described_value(indices)}"
    if not torch.equal(indices.sort().values, torch.arange(count)):
        return f"order() must give every kernel from 0 to {count - 1} once, and gives others"
    return None


def _mapped(architecture: Any, network: nn.Module) -> str | None:
    layers, state, seen = architecture.layers(network), network.state_dict(), set()
    problem = _listed("layers()", layers, LayerMapping, "nern.LayerMapping")
    if problem:
        return problem
    if not layers:
        return "layers() must map at least one weight: there is nothing to represent"
    for layer in layers:
        if layer.parameter not in state:
            return f"layers() maps '{layer.parameter}', which is no parameter of the network"
        if tuple(state[layer.parameter].shape) != tuple(layer.shape):
            had = list(state[layer.parameter].shape)
            return f"layers() maps '{layer.parameter}' with shape {list(layer.shape)}, and the network's has {had}"
        if layer.parameter in seen:
            return f"layers() maps '{layer.parameter}' twice"
        seen.add(layer.parameter)
    features = architecture.features(network)
    problem = _listed("features()", features, str, "names")
    if problem:
        return problem
    try:
        sums_among(network, features)
    except ConfigError as error:
        return f"features() names what is not there: {error}"
    inputs = architecture.example_inputs(2)
    if not tensors_of(inputs):
        return f"example_inputs() must give tensors, gave {described_value(inputs)}"
    try:
        with torch.no_grad():
            call(network, inputs)
    except Exception as error:
        given = ", ".join(map(described_value, tensors_of(inputs)))
        return f"example_inputs() must give inputs that the network takes, gave {given} ({first_line(error)})"
    return None


def _listed(what: str, value: Any, of: type, called: str) -> str | None:
    """Says what is wrong with what must be a list of things of one type; None where nothing is."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return f"{what} must give a list of {called}, gave {described_value(value)}"
    other = next((item for item in value if not isinstance(item, of)), None)
    return None if other is None else f"{what} must give a list of {called}, gave {described_value(other)} in it"


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
            return f"coordinates() must give [kernels, 3] int64, gave {described_value(stored)}"
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
    wrong = _wrong_numbers(vectors, wanted, "forward(coordinates)")
    if wrong is None and not _alike(representation.embedding(coordinates), vectors):
        wrong = "forward(coordinates) must give the same vectors again, and gives others: the file would hold another network"
    return wrong


def _predictor(context: StepContext, rows: Tensor) -> str | None:
    representation = context.representation
    groups = representation.groups
    rows = rows if groups is None else groups.rows(torch.zeros(1, dtype=torch.int64, device=rows.device))
    coordinates = representation.table.coordinates(rows)
    if not _alike(representation.embedding(coordinates), representation.embedding(coordinates)):
        return None  # which the embedding is to blame for
    kernels: Any = representation.predict(rows)
    wrong = _wrong_numbers(kernels, [len(rows), context.kernels.grid.outputs], "forward(embedded)")
    if wrong is None:
        with torch.no_grad():
            again = representation.predict(rows)
        if not _alike(again, kernels):
            wrong = "forward(embedded) must give the same kernels again in eval mode, and gives others: the file would hold another network"
    return wrong or _unused(context)


def _alike(again: Tensor, before: Tensor) -> bool:
    """Whether two results of the same thing are equal, as far as a device computes the same twice."""
    return torch.allclose(again, before, rtol=1e-3, atol=1e-6 * max(1.0, float(before.detach().abs().max())))


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
    order = smoother.order(kernels)
    problem = check_order(order, layer.filters, layer.channels)
    if problem is None and not torch.equal(kernels, before):
        problem = "order() changes the kernels that it is given"
    return problem and f"{problem} ('{layer.parameter}')"


def _optimizer(optimizer: Any, context: StepContext, total: int) -> str | None:
    parameters = [(name, value) for name, value in context.representation.named_parameters() if value.requires_grad]
    if not parameters:  # the start of the phase reports this mistake
        return None
    for step in (0, total - 1):
        problem = problem_with_factor(optimizer.factor(step, total))
        if problem:
            return problem
    return problem_with_optimizers(optimizer.start(parameters), parameters)


def problem_with_optimizers(started: Any, parameters: Sequence[tuple[str, nn.Parameter]]) -> str | None:
    """Says what is wrong with the result of `Optimizer.start` for named parameters; None where it is right."""
    if not isinstance(started, list) or not started or not all(isinstance(one, torch.optim.Optimizer) for one in started):
        return f"start() must return a list of torch optimisers, returned {described_value(started)}"
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


def _sampler(sampler: Any, context: StepContext, seed: int, step: int) -> str | None:
    kernels, groups = context.kernels, context.representation.groups
    norms, layers = kernels.norms(), kernels.table.layers()
    count = len(norms) if groups is None else len(groups.sizes)
    given = (norms, layers) if groups is None else (groups.norms(norms), layers[groups.starts])
    before = [value.clone() for value in given]
    draw = sampler.start(*given, seed)
    if not callable(draw):
        return f"start() must give a function of the step, gave {described_value(draw)}"
    if not all(map(torch.equal, before, given)):
        return "start() changes the norms or layers that it is given"
    if hasattr(draw, "observe") and not (hasattr(draw, "state_dict") and hasattr(draw, "load_state_dict")):
        return "start() gives an object with observe(), which must have state_dict() and load_state_dict(): a resumed run would differ"
    first = draw(step)
    problem = problem_with_draw(first.cpu() if isinstance(first, Tensor) and not first.is_meta else first, count)
    if problem or first is None:
        return problem
    return (
        None
        if torch.equal(draw(step), first)
        else "the same step must draw the same rows again, and draws others: a resumed run would differ"
    )


def _metric(metric: Metric, outputs: Any, targets: Any) -> str | None:
    reference = targets if metric.compares == "targets" else outputs
    if reference is None:
        return None
    outputs, reference = (map_tensors(torch.clone, value) for value in (outputs, reference))
    before = [value.clone() for value in tensors_of([outputs, reference])]
    figure_of(metric, [metric.batch(outputs, reference)])
    same = all(torch.equal(a, b) or not torch.equal(a, a) for a, b in zip(before, tensors_of([outputs, reference]), strict=True))
    return None if same else "batch() changes the outputs that it is given, which other figures are taken of"


def _own_metric(name: str, metric: Metric, outputs: Any, targets: Any) -> str | None:
    """Whether one of nern's metrics can take what a task gives."""
    try:
        return _metric(metric, outputs, targets)
    except Exception as error:
        given = ", ".join(map(described_value, tensors_of(targets))) or described_value(targets)
        return f"outputs() has the metric '{name}', which cannot take its targets {given}: {first_line(error)}"


def _loss(component: Loss, loss: Any, sides: tuple[Any, Any], targets: Any, device: torch.device) -> str | None:
    original, reconstructed = (_values(side) for side in sides)
    before = [value.detach().clone() for value in [*original, *reconstructed]]
    value = loss(*sides, targets) if component.needs_targets else loss(*sides)
    problem = problem_with_loss(value)
    if problem:
        return problem
    if value.device.type != device.type:
        return f"__call__() must return a tensor on {device.type}, returned one on {value.device.type}"
    after = [*_values(sides[0]), *_values(sides[1])]
    if len(after) != len(before) or not all(torch.equal(a, b) for a, b in zip(before, after, strict=True)):
        return "__call__() changes what it is given, which other losses are given, too"
    if not bool(value.isfinite()):
        return f"__call__() must return a finite number, returned {float(value.detach())}"
    wanted = [side for side in reconstructed if side.requires_grad]
    if not value.requires_grad or not wanted:
        return "__call__() must be differentiable in what was reconstructed, and no gradient reaches it"
    gradients = [one for one in torch.autograd.grad(value, wanted, allow_unused=True, retain_graph=True) if one is not None]
    if not gradients:
        return "__call__() must be differentiable in what was reconstructed, and no gradient reaches it"
    if not all(bool(one.isfinite().all()) for one in gradients):
        return "__call__() must have a finite gradient, and has another"
    return None


def _values(side: Any) -> list[Tensor]:
    """The tensors of one side of a comparison."""
    if isinstance(side, StoredBits):
        return [side.total]
    return [side.values] if isinstance(side, Kernels) else tensors_of(side)


def _state(made: Any) -> str | None:
    """Write what is kept between steps and read it as a resumed run would."""
    content = io.BytesIO()
    try:
        torch.save(made.state_dict(), content)
        content.seek(0)
        torch.load(content, weights_only=True)
    except (AttributeError, TypeError, pickle.PickleError) as error:
        allowed = "state_dict() must hold tensors, numbers, text, lists and dictionaries alone, and no checkpoint can hold this"
        return f"{allowed}: {first_line(error)}"
    return None


def _wrong_numbers(value: Any, shape: list[int], what: str) -> str | None:
    if not isinstance(value, Tensor) or list(value.shape) != shape or not value.is_floating_point():
        return f"{what} must give {shape} float32, gave {described_value(value)}"
    return None if bool(value.isfinite().all()) else f"{what} must give finite numbers, and gives others"
