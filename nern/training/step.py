"""One step and one phase of training (Ashkenazi et al. 2023, sec. 3.2): sample, predict, run what the losses need, add up, step."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from nern.config.experiment import LossTerm, Phase
from nern.errors import ConfigError, TrainingError
from nern.interfaces import Draw, LossContext, Optimizer, Sampler
from nern.networks.pair import NetworkPair
from nern.options import located
from nern.outputs.kinds import ClassLogits, OutputKind
from nern.outputs.nested import count, part
from nern.representation.entropy import stored_bits
from nern.representation.original_kernels import OriginalKernels
from nern.representation.representation import Representation
from nern.support.contracts import at_work, broken, described_value, is_own
from nern.support.seeding import derive, seeded
from nern.training.component_contracts import problem_with_draw, problem_with_factor
from nern.training.cuda_graphs import CudaGraphs, Replayer
from nern.training.optimizer_state import check_optimizer
from nern.training.prediction import Prediction, arithmetic
from nern.training.processes import Processes


@attrs.frozen
class StepContext:
    """What the steps of every phase work on."""

    representation: Representation
    kernels: OriginalKernels
    networks: NetworkPair
    device: torch.device
    dtype: torch.dtype  # dtype in which the predictor computes
    seed: int
    processes: Processes = Processes()  # the processes that share the work of a step
    graphs: bool = False  # whether a GPU records steps and replays them
    outputs: OutputKind = ClassLogits()  # the kind of outputs of the networks

    def arithmetic(self) -> torch.autocast:
        """A context in which the predictor computes in `dtype`."""
        return arithmetic(self.device, self.dtype)


class PhaseTrainer:
    """One phase of training, with its losses, sampler, inputs and optimisers.

    Args:
        inputs: function from the step number to a batch of inputs, or to inputs and targets where a loss needs targets.
        index: position of the phase among the phases; every random draw depends on it.
        budget: bits that the coded parameters should take, where a size was asked for.
        place: what a configuration calls the phase, for messages about its options.

    Raises:
        ConfigError: an option of a loss, the sampler or the optimiser is impossible for this network; names its path.
    """

    def __init__(
        self,
        context: StepContext,
        phase: Phase,
        losses: dict[str, LossTerm],
        sampler: Sampler,
        optimizer: Optimizer,
        inputs: Callable[[int], Any],
        index: int,
        budget: float | None = None,
        place: str = "phase",
    ) -> None:
        self.context, self.phase, self.inputs, self._place = context, phase, inputs, place
        self.sampler, self.optimizer = sampler, optimizer
        self.index, self.seed, self.at = index, derive(context.seed, "rounding", index), 0
        kernels = context.kernels
        known = LossContext(kernels.grid, kernels.original, context.networks, context.outputs, phase.iterations, budget)
        self.terms = {name: (term, self._started(name, term, known)) for name, term in losses.items() if term.weight > 0}
        with located("sampler" if phase.sampler is None else f"{place}.sampler"):
            self.draw: Draw = sampler.start(*self._drawn_from(), derive(context.seed, "sampler", index))
        self.observe: Callable[[int, Tensor, Tensor], None] | None = getattr(self.draw, "observe", None)
        self.prediction = Prediction(context.representation, kernels, context.processes, context.device, context.dtype)
        self._errors: Tensor | None = None
        self.parameters = [(name, value) for name, value in context.representation.named_parameters() if value.requires_grad]
        if not self.parameters:
            raise ConfigError("neither the embedding nor the predictor has parameters: nothing can be trained; choose others")
        with located("optimizer" if phase.optimizer is None else f"{place}.optimizer"):
            self.optimizers = optimizer.start(self.parameters)
        self._rates = [[group["lr"] for group in started.param_groups] for started in self.optimizers]
        self.needs_targets = any(term.loss.needs_targets for term, _ in self.terms.values())
        # Steps are told apart by the networks and kernels that they need
        counted = any(term.loss.needs == "bits" for term, _ in self.terms.values())
        self._with_closure = [needs_closure(optimizer, started) for started in self.optimizers]
        alike = not counted and self.observe is None and not any(self._with_closure)  # every step does the same work
        recorded = context.device.type == "cuda" and context.graphs and context.processes.alone and alike
        self.replayer = Replayer([value for _, value in self.parameters], CudaGraphs() if recorded else None)
        self._history: list[tuple[tuple[str, ...], Tensor]] = []  # names and values of the terms of the steps since the last report

    def _started(self, name: str, term: LossTerm, context: LossContext) -> Callable[[Any, Any], Tensor]:
        with located(f"losses.{name}" if self.phase.losses is None else f"{self._place}.losses.{name}"), at_work(term.loss, "loss"):
            loss: Any = term.loss.start(context)
        if not callable(loss):
            raise broken(term.loss, "loss", f"start() must give a function of (original, reconstructed), gave {described_value(loss)}")
        return loss  # type: ignore[no-any-return]

    def step(self, step: int) -> None:
        """One step of gradient descent.

        Whatever a component draws from global generators in it follows from the run's seed, the phase and the step alone.
        """
        with seeded(self.context.seed, "step", self.index, step):
            self._step(step)

    def _step(self, step: int) -> None:
        self.at = step
        active = tuple(name for name, (term, _) in self.terms.items() if step >= term.warmup)
        drawn, rows = self._drawn(step)
        given = self.inputs(step) if self.runs_networks(active) else None
        leaves, nesting = pytree.tree_flatten(given if self.needs_targets and given is not None else (given, None))

        constants = {place: leaf for place, leaf in enumerate(leaves) if not isinstance(leaf, Tensor)}

        def backward(rows: Tensor | None, *tensors: Tensor | None) -> Tensor:
            complete = [constants.get(place, tensor) for place, tensor in enumerate(tensors)]
            return self._backward(active, rows, *pytree.tree_unflatten(complete, nesting))

        tensors = [None if place in constants else leaf for place, leaf in enumerate(leaves)]

        def evaluate() -> Tensor:
            values = self.replayer((active, str(nesting), repr(constants)), backward, rows, *tensors)
            self._prepare_gradients()
            return values

        values = self._descend(step, evaluate)
        if self.observe is not None:
            with at_work(self.sampler, "sampler", self.draw):
                self.observe(step, *self._observed(drawn))
        self._history.append(((*active, "total"), values))

    def rows(self, step: int) -> Tensor | None:
        """The kernels that carry gradient in a step [m] int64, or None for all."""
        return self._drawn(step)[1]

    def _drawn(self, step: int) -> tuple[Tensor | None, Tensor | None]:
        """What the sampler draws in a step, kernels or groups of them, and the kernels that these are."""
        drawn, groups = self.draw(step), self.context.representation.groups
        if drawn is None:
            return None, None
        if not is_own(self.sampler):
            problem = problem_with_draw(drawn, len(self.context.kernels.rows) if groups is None else len(groups.sizes))
            if problem:
                raise broken(self.sampler, "sampler", f"{problem} (step {step})", self.draw)
        return drawn, drawn if groups is None else groups.rows(drawn)

    def _drawn_from(self) -> tuple[Tensor, Tensor]:
        """Norms and layers of the things that a sampler draws: kernels, or whole groups where the predictor wants them."""
        kernels, groups = self.context.kernels, self.context.representation.groups
        norms, layers = kernels.norms(), kernels.table.layers()
        return (norms, layers) if groups is None else (groups.norms(norms), layers[groups.starts])

    def _observed(self, drawn: Tensor | None) -> tuple[Tensor, Tensor]:
        """The kernels or groups that were drawn in this step, and the mean squared error of each before the step."""
        errors, groups = self._errors, self.context.representation.groups
        assert errors is not None
        if drawn is None:
            count = len(self.context.kernels.rows) if groups is None else len(groups.sizes)
            drawn = torch.arange(count, device=errors.device)
        return drawn, errors if groups is None else groups.means(errors, drawn)

    @torch.no_grad()
    def _kernel_errors(self, predicted: Tensor, rows: Tensor | None) -> Tensor:
        """Mean squared error of every kernel in the sample [m] float32."""
        original, kernels = self.context.kernels.original(rows), self.context.kernels.predicted(predicted.detach(), rows)
        squares: Tensor = (kernels.values - original.values).float().square().sum(1) / original.count.clamp_min(1)
        return squares

    def runs_networks(self, active: Sequence[str]) -> bool:
        """Whether any of these terms compares outputs of the networks."""
        return any(term_runs_networks(self.terms[name][0]) for name in active)

    def _backward(self, active: Sequence[str], rows: Tensor | None, batch: Any, targets: Any) -> Tensor:
        """Compute the gradient of the objective; returns its terms and their weighted sum [terms + 1]."""
        representation = self.context.representation
        with representation.storage.rounded_while(value for _, value in representation.own_parameters()):
            terms = self.losses(active, rows, batch, targets)
            total = torch.stack([self.terms[name][0].weight * value for name, value in terms.items()]).sum()
            total.backward()  # type: ignore[no-untyped-call]
        self.context.networks.release()
        return torch.stack([*(value.detach() for value in terms.values()), total.detach()])

    def losses(self, active: Sequence[str], rows: Tensor | None, batch: Any, targets: Any = None) -> dict[str, Tensor]:
        """The unweighted terms of eq. 2, differentiable in the predictor's parameters.

        Where several processes share a step, these are the parts of this process, which add up to the terms.

        Args:
            active: names of the terms.
            rows: kernels that carry gradient [m] int64, or None for all.
            batch: inputs, such as images [b, c, h, w]; None where no active term runs the networks.
            targets: of the inputs; None where no active term needs them.
        """
        compared, images = self.compared(active, rows, batch), 0 if batch is None else count(batch)
        if any(self.terms[name][0].loss.needs == "bits" for name in active):
            bits = stored_bits(self.context.representation, self.context.kernels.grid.weights, self.seed, self.at)
            compared["bits"] = bits, bits
        terms = {}
        for name in active:
            term, loss = self.terms[name]
            given = (compared[term.loss.needs], images, targets) if term.loss.needs_targets else (compared[term.loss.needs], images)
            terms[name] = self.context.processes.part(term.loss, loss, *given)
        return terms

    def compared(self, active: Sequence[str], rows: Tensor | None, batch: Any) -> dict[str, tuple[Any, Any]]:
        """Both sides of what these terms compare, by what they need; see `losses`."""
        at_once = rows is None and self.observe is None  # a sampler that observes errors needs kernels
        whole = self.prediction.whole() if at_once else None
        predicted = self.prediction.of(rows) if whole is None else whole
        if self.observe is not None:
            self._errors = self._kernel_errors(predicted, rows)
        return self._compared_weights(predicted, rows) if batch is None else self._compared_outputs(active, predicted, rows, batch)

    def _compared_weights(self, predicted: Tensor, rows: Tensor | None) -> dict[str, tuple[Any, Any]]:
        """Both sides of the comparison where no network runs; kernels outside the sample are then not predicted."""
        kernels = self.context.kernels
        flat = predicted.dim() == 1
        return {"weights": (kernels.original(rows), kernels.of_weights(predicted) if flat else kernels.predicted(predicted, rows))}

    def _compared_outputs(self, active: Sequence[str], predicted: Tensor, rows: Tensor | None, batch: Any) -> dict[str, tuple[Any, Any]]:
        """Run both networks; returns both sides of every comparison that an active term needs."""
        context, needs = self.context, {self.terms[name][0].loss.needs for name in active}
        everything = self.prediction.completed(predicted, rows)
        inputs, features = part(batch, context.processes.share(count(batch))), "features" in needs
        original = context.networks.original(inputs, features)
        reconstructed = context.networks.reconstructed(inputs, context.representation.weights(everything), features)
        weights = (context.kernels.original(), context.kernels.of_weights(everything)) if "weights" in needs else (None, None)
        return {
            "weights": weights,
            "logits": (original.logits, reconstructed.logits),
            "outputs": (original.logits, reconstructed.logits),
            "features": (original.features, reconstructed.features),
        }

    def _prepare_gradients(self) -> None:
        """Add the gradients of all processes, and clip them."""
        parameters = [value for _, value in self.parameters]
        self.context.processes.sum_gradients(parameters)
        if self.phase.clip is not None:
            nn.utils.clip_grad_norm_(parameters, self.phase.clip)

    def _descend(self, step: int, evaluate: Callable[[], Tensor]) -> Tensor:
        """Let every optimiser make a step with this step's learning rate; returns the losses before the step.

        Args:
            evaluate: computes the gradients of the parameters and returns the losses, the total last. An optimiser that takes a
                closure may call it several times; kernels and inputs stay the same.
        """
        values = evaluate()
        for started, rates, closure in zip(self.optimizers, self._rates, self._with_closure, strict=True):
            for group, rate in zip(started.param_groups, rates, strict=True):
                group["lr"] = rate * self._factor(step)
            with at_work(self.optimizer, "optimizer", started):
                if closure:
                    started.step(lambda: float(evaluate()[-1]))
                else:
                    started.step()
        for started in self.optimizers:
            started.zero_grad(set_to_none=True)
        return values

    def _factor(self, step: int) -> float:
        """The multiple of the first learning rate in a step."""
        factor = self.optimizer.factor(step, self.phase.iterations)
        problem = problem_with_factor(factor)
        if problem:
            raise broken(self.optimizer, "optimizer", f"{problem} at step {step}")
        return factor

    # -- reports and state ---------------------------------------------------------------------------------------

    def flush(self, last: int) -> dict[str, float]:
        """Check the losses of every step since the last call, and return those of the latest step `last`.

        Raises:
            TrainingError: a loss was not finite; names step and term.
        """
        history, self._history = self._history, []
        if not history:
            return {}
        values = iter(self.context.processes.sum(torch.cat([values for _, values in history])).tolist())
        reported: dict[str, float] = {}
        for back, (names, _) in enumerate(history):
            reported = dict(zip(names, values, strict=False))
            for name, value in reported.items():
                if not math.isfinite(value):
                    step = last - len(history) + 1 + back
                    raise TrainingError(f"loss '{name}' is {value} at step {step + 1} of phase '{self.phase.name}'")
        return reported

    def learning_rate(self) -> float:
        rate: float = self.optimizers[0].param_groups[0]["lr"]
        return rate

    def state_dict(self) -> list[dict[str, Any]]:
        with at_work(self.optimizer, "optimizer"):
            states = [started.state_dict() for started in self.optimizers]
        for component, kind, kept in self.keeping():
            with at_work(component, kind, kept):
                states.append(kept.state_dict())
        return states

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Load the state from a checkpoint.

        Raises:
            ValueError: the state does not belong to these optimisers.
        """
        kept = self._kept()
        if len(kept) != len(states):
            raise ValueError(f"it holds {len(states)} states, this phase has {len(kept)}")
        copies = [(name, nn.Parameter(value.detach().clone())) for name, value in self.parameters]
        for fresh, state in zip(self.optimizer.start(copies), states, strict=False):  # optimisers come before losses
            check_optimizer(fresh, state, needs_closure(self.optimizer, fresh))
        for one, state in zip(kept, states, strict=True):
            one.load_state_dict(state)

    def _kept(self) -> list[Any]:
        """What has a state that a run resumes from: the optimisers, and losses and samplers that keep something between steps."""
        return [*self.optimizers, *(kept for _, _, kept in self.keeping())]

    def keeping(self) -> list[tuple[Any, str, Any]]:
        """Losses and the sampler that keep something between steps: the component, its extension point, and what keeps it."""
        started = [*((term.loss, "loss", loss) for term, loss in self.terms.values()), (self.sampler, "sampler", self.draw)]
        return [(component, kind, kept) for component, kind, kept in started if hasattr(kept, "load_state_dict")]


def needs_closure(component: Optimizer, started: torch.optim.Optimizer) -> bool:
    """Whether an optimiser's `step` takes a function that evaluates the objective again."""
    closure = inspect.signature(started.step).parameters.get("closure")
    return component.needs_closure or (closure is not None and closure.default is inspect.Parameter.empty)


def term_runs_networks(term: LossTerm) -> bool:
    """Whether a loss compares outputs of the networks."""
    return term.loss.needs in ("logits", "outputs", "features")
