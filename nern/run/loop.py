"""The loop over the phases and steps of a run, with reports, evaluations and checkpoints."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

import torch
from torch import nn

from nern.config.experiment import Experiment, Phase
from nern.errors import ConfigError, Interrupted, NernError, TrainingError
from nern.interfaces import Data, Task
from nern.registry.blame import blamed
from nern.registry.registry import Registry
from nern.representation.entropy import code_parameters, is_coded, stored_bits
from nern.run.checkpoint import Checkpoint, belonging
from nern.run.comparisons import Comparisons
from nern.run.evaluation import is_chance, measures_of
from nern.run.folder import RunFolder
from nern.run.interruption import StopRequest
from nern.run.observers import ObserverCalls
from nern.run.original import Original, relative_error, squared_errors
from nern.run.packing import coded_budget, room_for_codes
from nern.run.phases import phase_inputs, start_phase
from nern.run.task_data import check_step
from nern.run.trial import fault_of
from nern.support.contracts import is_own
from nern.support.messages import some
from nern.support.seeding import seeded
from nern.training.coding import start_coding
from nern.training.optimizer_state import expect
from nern.training.step import PhaseTrainer, StepContext, term_runs_networks

log = logging.getLogger("nern")

NOTHING_LEARNED = 0.9  # ‖W − Ŵ‖² / ‖W‖² above which a phase that compares weights has failed; zeros have 1
ENOUGH = 200  # fewest steps after which that is said: who asks for less tries something out


class TrainingLoop:
    """Trains the phases of one run, from the start or from a checkpoint.

    Args:
        open_task: function that opens the images of a task.
        calls: calls the observers of the run.
        began: `time.monotonic()` at the start of the run.
    """

    def __init__(
        self,
        experiment: Experiment,
        registry: Registry,
        original: Original,
        context: StepContext,
        folder: RunFolder,
        calls: ObserverCalls,
        open_task: Callable[[Task], Data],
        checkpoint: Checkpoint | None,
        began: float,
    ) -> None:
        self.experiment, self.registry, self.original, self.context = experiment, registry, original, context
        self.folder, self.calls, self.open_task, self.checkpoint = folder, calls, open_task, checkpoint
        self.began, self.before = began, checkpoint.seconds if checkpoint else 0.0
        self.iteration = checkpoint.iteration if checkpoint else 0
        self.total = sum(phase.iterations for phase in self.experiment.phases)
        self.best = checkpoint.best if checkpoint else None
        self.latest: dict[str, float] | None = None
        self.processes = context.processes
        self.comparisons = Comparisons(experiment, original.network, context.device, open_task)
        self.processes.check(context.representation, {f"phases.{i}.batch": phase.batch for i, phase in enumerate(experiment.phases)})
        if checkpoint:
            with belonging(folder.checkpoint):
                if any(".parametrizations." in name for name in checkpoint.parameters):
                    code_parameters(context.representation)
                own = context.representation.state_dict()
                for name, value in checkpoint.parameters.items():  # load_state_dict would cast numbers of another type in silence
                    expect(name not in own or value.dtype == own[name].dtype, f"'parameters.{name}' is of another type")
                context.representation.load_state_dict(checkpoint.parameters)

    def seconds(self) -> float:
        return self.before + time.monotonic() - self.began

    def run(self, resolved: dict[str, Any], stop: StopRequest) -> None:
        done = self.checkpoint
        if done:
            self._check_lengths(done)
        self.processes.same(self.context.representation.parameters())
        if self.processes.first:
            self.folder.keep_metrics(self.iteration)
            self.calls.nern_run_started(run_dir=self.folder.path, config=resolved, iteration=self.iteration, total=self.total, unit="step")
            self._measure_original()
        for index, phase in enumerate(self.experiment.phases):
            if done and index < done.phase:
                continue
            start = done.step if done and index == done.phase else 0
            budget = self._code(index, phase, stop)
            trainer = start_phase(self.experiment, phase, index, self.context, self.open_task, budget)
            if done and index == done.phase:
                with belonging(self.folder.checkpoint):
                    trainer.load_state_dict(done.optimizers)
            for step in range(start, phase.iterations):
                with self._named_faults(index, phase, trainer, step):
                    trainer.step(step)
                    self.iteration += 1
                    self._after_step(index, phase, trainer, step, stop)
            if self.latest is None:  # resumed at the very end of the phase
                self._evaluate(phase)

    @contextmanager
    def _named_faults(self, index: int, phase: Phase, trainer: PhaseTrainer, step: int) -> Iterator[None]:
        """Where a block, which is a step and what follows it, ends with an error that says nothing of plugins, look for the one at fault.

        Raises:
            ConfigError: one breaks its contract in this step.
        """
        try:
            yield
        except (NernError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            fault = None if blamed(error) else fault_of(
                self.experiment, self.context, self.original.network, index, step, lambda: self._look_at_batch(phase, trainer, step)
            )  # fmt: skip
            if fault is None:
                raise
            raise fault from error

    def _look_at_batch(self, phase: Phase, trainer: PhaseTrainer, step: int) -> None:
        task = phase.inputs or self.experiment.task
        if is_own(task) or not trainer.runs_networks(list(trainer.terms)):
            return
        given = trainer.inputs(step)
        inputs = given[0] if trainer.needs_targets else given
        check_step(task, self.open_task(task), phase.batch, step, inputs, self.original.network, self.context.device)

    def _code(self, index: int, phase: Phase, stop: StopRequest) -> float | None:
        """Start entropy coding where this phase is the first that counts bits; returns how many bits the parameters may take, or None."""
        experiment, representation = self.experiment, self.context.representation
        if not representation.storage.is_coded or not experiment.counts_bits(phase):
            return None
        if not is_coded(representation):
            images = phase_inputs(experiment, phase, index, self.context, self.open_task) if experiment.runs_networks(phase) else None
            room = room_for_codes(experiment, self.original, representation, self.registry)
            with seeded(experiment.seed, "coding"):
                batches, by_layer = experiment.curvature_batches, experiment.curvature == "layers"
                start_coding(self.context, images, batches, room, partial(self._end_if_asked, stop), by_layer)
            self.processes.same(representation.parameters())
            self.best = None  # earlier checkpoints were measured before coding, with numbers that no file can hold
        exact = float(stored_bits(representation, self.original.grid.weights, 0, 0).exact)
        return coded_budget(experiment, self.original, representation, self.registry, exact)

    def _end_if_asked(self, stop: StopRequest) -> None:
        """End the run between steps, where the last checkpoint holds all that it has trained.

        Raises:
            Interrupted: it was asked to stop.
        """
        if self.processes.any(stop.requested):
            self._end()

    def _end(self) -> NoReturn:
        self.processes.wait()
        saved = self.folder.checkpoint
        place = f"checkpoint {saved}" if saved.exists() else "there is no checkpoint yet: it begins again"
        raise Interrupted(f"stopped at step {self.iteration} of {self.total}; continue with --resume ({place})")

    def _after_step(self, index: int, phase: Phase, trainer: PhaseTrainer, step: int, stop: StopRequest) -> None:
        experiment, last = self.experiment, step + 1 == phase.iterations
        evaluate = last or _due(self.iteration, experiment.evaluate_every)
        save = last or _due(self.iteration, experiment.checkpoint_every)
        if _due_in_curve(step, phase.iterations, experiment.curve_points):
            self._add_to_curve(phase)
        due = evaluate or save or _due(self.iteration, experiment.log_every)
        # several processes agree on stopping only when they report, not at every step
        stopping = self.processes.any(stop.requested) if due or self.processes.alone else False
        if not (due or stopping):
            return
        try:
            losses = trainer.flush(step)
            self._check_parameters(phase, step)
        except TrainingError as error:
            good = self.folder.checkpoint
            where = f"the last good checkpoint is {good}" if good.exists() else "there is no checkpoint yet"
            raise TrainingError(f"{error}; {where}. {self._way_out(index)}") from error
        if self.processes.first:
            self._report(phase, losses, trainer.learning_rate())
        if last:
            self._warn_where_nothing_is_learned(index, phase)
        if evaluate:
            self._evaluate(phase)
        if (save or stopping) and self.processes.first:
            self._save(index, trainer, step)
        if stopping and self.iteration < self.total:
            self._end()

    def _way_out(self, index: int) -> str:
        """What to do about numbers that are not finite."""
        phase = self.experiment.phases[index]
        place = "losses" if phase.losses is None else f"phases.{index}.losses"
        compared = [name for name, term in self.experiment.losses_of(phase).items() if term.weight > 0 and term_runs_networks(term)]
        later = f", or let it compare outputs later ({place}.{compared[0]}.warmup)" if compared and index == 0 else ""
        return f"Lower the learning rate or clip the gradient (phases.{index}.clip){later}"

    def _report(self, phase: Phase, losses: dict[str, float], rate: float) -> None:
        self.folder.log(
            {"iteration": self.iteration, "phase": phase.name, "lr": rate, "seconds": round(self.seconds(), 3), "losses": losses}
        )
        self.calls.nern_step(phase=phase.name, iteration=self.iteration, total=self.total, losses=losses, learning_rate=rate)

    def _check_parameters(self, phase: Phase, step: int) -> None:
        """Refuse parameters that are not finite, which a finite loss does not exclude: they must not be saved as a checkpoint."""
        for name, value in self.context.representation.named_parameters():
            if not bool(value.isfinite().all()):
                raise TrainingError(f"the gradient made '{name}' not finite at or before step {step + 1} of phase '{phase.name}'")

    def _measure_original(self) -> None:
        """Measure the original network before training, report it, and warn where it is no better than chance."""
        for split, comparison in (("heldout", self.comparisons.heldout), ("test", self.comparisons.test)):
            if comparison is None:
                continue
            self.calls.nern_measuring(phase="original", iteration=self.iteration, split=split)
            score = comparison.original
            if score is None:
                continue
            compared = {name for name, metric in measures_of(self.experiment).metrics.items() if metric.compares == "targets"}
            metrics = {name: value for name, value in score.metrics().items() if name in compared}
            self.calls.nern_original_measured(split=split, images=score.images, metrics=metrics)
            if is_chance(score, comparison.outputs):
                log.warning(
                    "nern: the original network is right on %.2f %% of %d %s examples, which is no better than chance (%.2f %%): look at "
                    "the classes and their order (task.classes), at mean, std and size of its inputs (architecture.*), and at its weights",
                    score.top1, score.images, "held-out" if split == "heldout" else split, 100 / comparison.outputs,
                )  # fmt: skip

    def _warn_where_nothing_is_learned(self, index: int, phase: Phase) -> None:
        """Say where a phase that compares weights alone ends no nearer to the original's than zeros are, in all layers or in some."""
        alone = self.experiment.compares_weights(phase) and not self.experiment.runs_networks(phase)
        if not (self.processes.first and alone and phase.iterations >= ENOUGH):
            return
        representation, original = self.context.representation.eval(), self.original
        # in the run's arithmetic, which is exact enough here: predicting a large network in float32 takes minutes
        with torch.no_grad(), self.context.arithmetic():
            weights = representation.weights(representation.predict_weights())
        representation.train()
        errors = squared_errors(original.grid, original.state, weights)
        missed = [name for name, (apart, norm) in errors.items() if norm > 0 and apart > NOTHING_LEARNED * norm]
        error = relative_error(errors)
        if error > NOTHING_LEARNED and 2 * len(missed) > len(errors):
            log.warning(
                "nern: phase '%s' has learned nothing: the predicted weights are as far from the original's as zeros would be (‖W − Ŵ‖² is "
                "%.2f ‖W‖²); lower the learning rate (phases.%d.optimizer.lr) or give the phase more steps", phase.name, error, index,
            )  # fmt: skip
        elif missed:
            log.warning(
                "nern: phase '%s' has learned nothing of %s: there the predicted weights are as far from the original's as zeros would be; "
                "%sgive the phase more steps", phase.name, some(missed), self._way_to_learn(index, phase),
            )  # fmt: skip

    def _way_to_learn(self, index: int, phase: Phase) -> str:
        """What helps layers of which a phase learns nothing, besides more steps."""
        if self.registry.name_of(phase.sampler or self.experiment.sampler) == "uniform":
            place = "" if phase.sampler is None else f"phases.{index}."
            return f"a uniform sample holds few kernels of a small layer: draw them by norm ({place}sampler.name=magnitude), or "
        if not self.experiment.scale_layers:
            return "layers with smaller weights than others need scale_layers=true and the loss's balance=1.0; or "
        return ""

    def _evaluate(self, phase: Phase) -> None:
        """Measure on the held-out images, and keep the parameters if they are the best so far."""
        self.latest = {}
        if self.comparisons.heldout is None or not self.processes.first:
            return
        representation, network = self.context.representation, self._reconstructed()
        self.calls.nern_measuring(phase=phase.name, iteration=self.iteration, split="heldout")
        measured = self.comparisons.heldout.score(network, choosing=True)
        self.latest = measured.metrics()
        # while bits are trained, sizes change: earlier checkpoints would be larger or smaller files, so they do not compete
        if self.best is None or is_coded(representation) or measured.key >= tuple(self.best["key"]):
            parameters = {name: value.detach().cpu().clone() for name, value in representation.state_dict().items()}
            self.best = {"iteration": self.iteration, "key": list(measured.key), "metrics": self.latest, "parameters": parameters}
        self.folder.log({"iteration": self.iteration, "phase": phase.name, "heldout": self.latest})
        self.calls.nern_evaluated(phase=phase.name, iteration=self.iteration, split="heldout", metrics=self.latest)

    def _add_to_curve(self, phase: Phase) -> None:
        """Measure on a part of the held-out images, for plots only; checkpoints are not chosen by it."""
        if not self.processes.first or self.comparisons.curve is None:
            return
        figures = self.comparisons.curve.score(self._reconstructed()).metrics()
        self.folder.log({"iteration": self.iteration, "phase": phase.name, "curve": figures})

    def _reconstructed(self) -> nn.Module:
        """The network that a file written now would give."""
        representation = self.context.representation.eval()
        with representation.storage.rounded_while(value for _, value in representation.own_parameters()):
            network = self.original.rebuilt(representation)
        representation.train()
        return network

    def _save(self, index: int, trainer: PhaseTrainer, step: int) -> None:
        parameters = {name: value.detach().cpu() for name, value in self.context.representation.state_dict().items()}
        state = Checkpoint(
            index, step + 1, self.iteration, parameters, trainer.state_dict(), self.best, self.seconds(), self.original.sha256
        )
        state.save(self.folder.checkpoint)
        self.calls.nern_checkpoint_saved(path=self.folder.checkpoint, iteration=self.iteration)

    def _check_lengths(self, done: Checkpoint) -> None:
        lengths = [phase.iterations for phase in self.experiment.phases]
        if done.phase >= len(lengths) or sum(lengths[: done.phase]) != done.iteration - done.step:
            raise ConfigError("phases that have ended cannot change their length on resume")
        if lengths[done.phase] < done.step:
            raise ConfigError(f"phases.{done.phase}.iterations is {lengths[done.phase]}, but {done.step} steps are done already")


def _due_in_curve(step: int, steps: int, points: int) -> bool:
    """Whether the step (from 0) of a phase ends one of its `points` parts of nearly equal length."""
    return (step + 1) * points // steps > step * points // steps


def _due(iteration: int, every: int) -> bool:
    return every > 0 and iteration % every == 0
