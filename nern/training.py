"""One step and one phase of training (Ashkenazi et al. 2023, sec. 3.2): sample, predict, run what losses need, step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from nern.config import LossTerm, Phase
from nern.distributed import Processes
from nern.errors import TrainingError
from nern.graphs import CudaGraphs, Replayer
from nern.interfaces import Draw, LossContext, Optimizer, Sampler
from nern.networks import NetworkPair
from nern.random import derive
from nern.representation import KernelSet, Representation


@attrs.frozen
class Parts:
    """What training works on, whatever the phase."""

    representation: Representation
    kernels: KernelSet
    networks: NetworkPair
    device: torch.device
    dtype: torch.dtype  # of the predictor's arithmetic
    seed: int
    processes: Processes = Processes()  # that share the work of a step
    graphs: bool = False  # whether a GPU records a step and replays it


class PhaseTrainer:
    """One phase: its losses, sampler, inputs and optimisers.

    Args:
        inputs: function from the step number to a batch of normalised inputs [b, c, h, w].
        index: position of the phase, a part of every random draw's place.
    """

    def __init__(
        self,
        parts: Parts,
        phase: Phase,
        losses: dict[str, LossTerm],
        sampler: Sampler,
        optimizer: Optimizer,
        inputs: Callable[[int], Tensor],
        index: int,
    ) -> None:
        self.parts, self.phase, self.optimizer = parts, phase, optimizer
        self.inputs = inputs
        context = LossContext(parts.kernels.grid, parts.kernels.original, parts.networks)
        self.terms = {name: (term, term.loss.start(context)) for name, term in losses.items() if term.weight > 0}
        self.draw: Draw = sampler.start(parts.kernels.norms(), parts.kernels.table.layers(), derive(parts.seed, "sampler", index))
        self.parameters = [(name, value) for name, value in parts.representation.named_parameters() if value.requires_grad]
        self.optimizers = optimizer.start(self.parameters)
        self._rates = [[group["lr"] for group in started.param_groups] for started in self.optimizers]
        recorded = parts.device.type == "cuda" and parts.graphs and parts.processes.size == 1
        self.replayer = Replayer([value for _, value in self.parameters], CudaGraphs() if recorded else None)
        self._history: list[tuple[tuple[str, ...], Tensor]] = []  # names and values of a step's terms

    def step(self, step: int) -> None:
        """One step of gradient descent."""
        active = tuple(name for name, (term, _) in self.terms.items() if step >= term.warmup)
        rows = self.draw(step)
        batch = self.inputs(step) if self.runs_networks(active) else None
        values = self.replayer(active, lambda *inputs: self._backward(active, *inputs), rows, batch)
        self.parts.processes.sum_gradients([value for _, value in self.parameters])
        if self.phase.clip is not None:
            nn.utils.clip_grad_norm_([value for _, value in self.parameters], self.phase.clip)
        for started, rates in zip(self.optimizers, self._rates, strict=True):
            for group, rate in zip(started.param_groups, rates, strict=True):
                group["lr"] = rate * self.optimizer.factor(step, self.phase.iterations)
            started.step()
            started.zero_grad(set_to_none=True)
        self._history.append(((*active, "total"), values))

    def runs_networks(self, active: Sequence[str]) -> bool:
        """Whether any of these terms looks at what the networks give."""
        return any(self.terms[name][0].loss.needs != "weights" for name in active)

    def _backward(self, active: Sequence[str], rows: Tensor | None, batch: Tensor | None) -> Tensor:
        """The terms and their weighted sum [terms + 1], after the gradient of the sum was taken."""
        representation = self.parts.representation
        with representation.storage.seen_by(representation.parameters()):
            terms = self.losses(active, rows, batch)
            total = torch.stack([self.terms[name][0].weight * value for name, value in terms.items()]).sum()
            total.backward()  # type: ignore[no-untyped-call]
        return torch.stack([*(value.detach() for value in terms.values()), total.detach()])

    def losses(self, active: Sequence[str], rows: Tensor | None, batch: Tensor | None) -> dict[str, Tensor]:
        """The unweighted terms of eq. 2, differentiable in the predictor's parameters.

        Where several processes share a step, these are this process's parts of the terms, which add up to them.

        Args:
            active: names of the terms.
            rows: kernels that carry gradient [m] int64, or None for all.
            batch: inputs [b, c, h, w]; None where no active term runs the networks.
        """
        parts = self.parts
        needs = {self.terms[name][0].loss.needs for name in active}
        outputs = self._predict(rows)
        if batch is None:  # no network runs, and kernels outside the sample need no prediction
            compared: dict[str, tuple[Any, Any]] = {"weights": (parts.kernels.original(rows), parts.kernels.predicted(outputs, rows))}
            images = 0
        else:
            everything = self._complete(outputs, rows)
            features = "features" in needs
            images, inputs = len(batch), batch[parts.processes.share(len(batch))]
            original = parts.networks.original(inputs, features)
            reconstructed = parts.networks.reconstructed(inputs, parts.representation.weights(everything), features)
            compared = {
                "weights": (parts.kernels.original(), parts.kernels.predicted(everything)) if "weights" in needs else (None, None),
                "logits": (original.logits, reconstructed.logits),
                "features": (original.features, reconstructed.features),
            }
        found = {}
        for name in active:
            term, loss = self.terms[name]
            found[name] = parts.processes.part(term.loss, loss, compared[term.loss.needs], images)
        return found

    def _predict(self, rows: Tensor | None) -> Tensor:
        """Predicted kernels of some rows, or of all; every process predicts its part of them."""
        parts = self.parts
        with self._arithmetic():
            if parts.processes.size == 1:
                return parts.representation.predict(rows)
            rows = torch.arange(parts.kernels.grid.rows, device=parts.device) if rows is None else rows
            return parts.processes.gather(parts.representation.predict(rows[parts.processes.share(len(rows))]), len(rows))

    @torch.no_grad()
    def _everything(self) -> Tensor:
        """Predictions for every row, without gradient."""
        if self.parts.processes.size > 1:
            return self._predict(None)
        with self._arithmetic():
            return self.parts.representation.predict_all()

    def _arithmetic(self) -> torch.autocast:
        """Of the predictor."""
        return torch.autocast(self.parts.device.type, torch.bfloat16, enabled=self.parts.dtype == torch.bfloat16)

    def _complete(self, outputs: Tensor, rows: Tensor | None) -> Tensor:
        """Predictions for every row [rows, k²], of which only those of the sample carry gradient."""
        if rows is None:
            return outputs
        everything = self._everything()
        # a kernel that was drawn twice is the same kernel: the gradient of the networks reaches it once
        at = torch.arange(len(everything), device=rows.device)
        at[rows] = torch.arange(len(everything), len(everything) + len(rows), device=rows.device)
        return torch.cat([everything, outputs]).index_select(0, at)

    # -- reports and state ---------------------------------------------------------------------------------------

    def flush(self, last: int) -> dict[str, float]:
        """Losses of step `last`, the latest one, after checking every step since the last call.

        Raises:
            TrainingError: a loss was not finite; names step and term.
        """
        history, self._history = self._history, []
        if not history:
            return {}
        values = iter(self.parts.processes.sum(torch.cat([values for _, values in history])).tolist())
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
        return [started.state_dict() for started in self.optimizers]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        for started, state in zip(self.optimizers, states, strict=True):
            started.load_state_dict(state)
