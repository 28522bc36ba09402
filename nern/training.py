"""One step and one phase of training (Ashkenazi et al. 2023, sec. 3.2): sample, predict, run what losses need, step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from nern.config import LossTerm, Phase
from nern.distributed import Processes
from nern.errors import TrainingError
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
        context = LossContext(parts.kernels.grid, parts.kernels.original, parts.networks, inputs)
        self.terms = {name: (term, term.loss.start(context)) for name, term in losses.items() if term.weight > 0}
        self.draw: Draw = sampler.start(parts.kernels.norms(), parts.kernels.table.layers(), derive(parts.seed, "sampler", index))
        self.parameters = [(name, value) for name, value in parts.representation.named_parameters() if value.requires_grad]
        self.optimizers = optimizer.start(self.parameters)
        self._rates = [[group["lr"] for group in started.param_groups] for started in self.optimizers]
        self._history: list[dict[str, Tensor]] = []

    def step(self, step: int) -> None:
        """One step of gradient descent."""
        active = {name: pair for name, pair in self.terms.items() if step >= pair[0].warmup}
        terms = self.losses(step, active)
        total = torch.stack([active[name][0].weight * value for name, value in terms.items()]).sum()
        total.backward()  # type: ignore[no-untyped-call]
        self.parts.processes.sum_gradients([value for _, value in self.parameters])
        if self.phase.clip is not None:
            nn.utils.clip_grad_norm_([value for _, value in self.parameters], self.phase.clip)
        for started, rates in zip(self.optimizers, self._rates, strict=True):
            for group, rate in zip(started.param_groups, rates, strict=True):
                group["lr"] = rate * self.optimizer.factor(step, self.phase.iterations)
            started.step()
            started.zero_grad(set_to_none=True)
        self._history.append({**{name: value.detach() for name, value in terms.items()}, "total": total.detach()})

    def losses(self, step: int, active: dict[str, tuple[LossTerm, Any]]) -> dict[str, Tensor]:
        """The unweighted terms of eq. 2 at one step, differentiable in the predictor's parameters.

        Where several processes share a step, these are this process's parts of the terms, which add up to them.
        """
        parts, rows = self.parts, self.draw(step)
        needs = {term.loss.needs for term, _ in active.values()}
        outputs = self._predict(rows)
        if needs <= {"weights"}:  # no network runs, and kernels outside the sample need no prediction
            compared: dict[str, tuple[Any, Any]] = {"weights": (parts.kernels.original(rows), parts.kernels.predicted(outputs, rows))}
            images = 0
        else:
            everything = self._complete(outputs, rows)
            features = "features" in needs
            batch = self.inputs(step)
            images, inputs = len(batch), batch[parts.processes.share(len(batch))]
            original = parts.networks.original(inputs, features)
            reconstructed = parts.networks.reconstructed(inputs, parts.representation.weights(everything), features)
            compared = {
                "weights": (parts.kernels.original(), parts.kernels.predicted(everything)),
                "logits": (original.logits, reconstructed.logits),
                "features": (original.features, reconstructed.features),
            }
        return {name: parts.processes.part(term.loss, loss, compared[term.loss.needs], images) for name, (term, loss) in active.items()}

    def _predict(self, rows: Tensor | None) -> Tensor:
        """Predicted kernels of some rows, or of all; every process predicts its part of them."""
        parts = self.parts
        with torch.autocast(parts.device.type, torch.bfloat16, enabled=parts.dtype == torch.bfloat16):
            if parts.processes.size == 1:
                return parts.representation.predict(rows)
            rows = torch.arange(parts.kernels.grid.rows, device=parts.device) if rows is None else rows
            return parts.processes.gather(parts.representation.predict(rows[parts.processes.share(len(rows))]), len(rows))

    @torch.no_grad()
    def _everything(self) -> Tensor:
        """Predictions for every row, without gradient."""
        if self.parts.processes.size > 1:
            return self._predict(None)
        with torch.autocast(self.parts.device.type, torch.bfloat16, enabled=self.parts.dtype == torch.bfloat16):
            return self.parts.representation.predict_all()

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
        values = iter(self.parts.processes.sum(torch.stack([value for losses in history for value in losses.values()])).tolist())
        reported: dict[str, float] = {}
        for back, losses in enumerate(history):
            reported = dict(zip(losses, values, strict=False))
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
