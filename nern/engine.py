"""Assembles a run from an experiment and owns its life: fit, evaluate, reconstruct, save, resume."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn

from nern import artifact, config
from nern.artifact import Artifact, Bytes
from nern.checkpoint import Checkpoint
from nern.config import Experiment, Phase
from nern.devices import choose_device, choose_dtype, fast_float32
from nern.distributed import Processes, processes
from nern.errors import ConfigError, DataError, Interrupted
from nern.evaluation import Score, predict, score, with_weights
from nern.fitting import Fitting, start_phase
from nern.interfaces import Data, Task
from nern.networks import NetworkPair
from nern.pretraining import pretrain
from nern.random import seeded
from nern.registry import Registry
from nern.representation import KernelSet, Representation
from nern.results import Evaluation, Result
from nern.runs import RunFolder, StopRequest, environment
from nern.smoothness import grid_smoothness
from nern.storage import Storage
from nern.subject import Subject
from nern.training import Parts
from nern.trial import check_logits
from nern.weights import load_weights


class Engine:
    """One run of one experiment.

    Args:
        experiment: a checked configuration.
        registry: where its components came from.
    """

    def __init__(self, experiment: Experiment, registry: Registry) -> None:
        self.experiment, self.registry = experiment, registry
        self.run = RunFolder(Path(experiment.output))
        if experiment.threads:
            torch.set_num_threads(experiment.threads)
        self.device = choose_device(experiment.device)
        self.dtype = choose_dtype(experiment.precision, self.device)
        self.result: Result | None = None
        self._artifact: Artifact | None = None
        self._subject: Subject | None = None
        self._data: dict[int, Data] = {}
        self.processes = Processes()

    @classmethod
    def from_yaml(
        cls, reference: str | Path, overrides: Mapping[str, Any] | Sequence[str] = (), registry: Registry | None = None
    ) -> Engine:
        """An engine from a YAML file or the name of a preset.

        Args:
            overrides: dotted paths to values (`{"predictor.hidden": 140}`), or strings `key.sub=value`.

        Raises:
            ConfigError: one line for every mistake, with its path in the file.
        """
        return cls(*config.load_experiment(reference, overrides, registry))

    @classmethod
    def from_run(
        cls,
        run_dir: str | Path,
        overrides: Mapping[str, Any] | Sequence[str] = (),
        *,
        plugins: Sequence[str] = (),
        disabled: Sequence[str] = (),
    ) -> Engine:
        """An engine on a run directory, wherever it lies now; its artifact is loaded if the run has one.

        Args:
            plugins: local plugins to use besides those that the run's configuration names.
            disabled: plugins to leave out.

        Raises:
            ConfigError: the folder holds no run.
        """
        folder = RunFolder(Path(run_dir))
        folder.require()
        if not isinstance(overrides, Mapping):
            overrides = dict(config.parse_override(text) for text in overrides)
        engine = cls(*config.load_experiment(folder.config, {**overrides, "output": str(run_dir)}, disabled=disabled, plugins=plugins))
        if folder.artifact.exists():
            engine._artifact = artifact.load(folder.artifact, engine.registry)
        return engine

    # -- what a user does ----------------------------------------------------------------------------------------

    def fit(self, resume: bool = False) -> Result:
        """Train every phase, choose a checkpoint on the held-out images, measure it once on the test set.

        Args:
            resume: go on from the run directory's last checkpoint; phases that have not ended may be longer now.

        Raises:
            ConfigError: the run directory holds another run.
            DataError: weights or images are missing or do not fit.
            TrainingError: a loss is not finite, or the run directory cannot be written.
            Interrupted: Ctrl-C or SIGTERM; a checkpoint was written.
        """
        with processes(self.device) as self.processes:
            observers = self.experiment.observers if self.processes.first else {}
            with self.registry.watchers.joined_by(observers):
                return self._watched_fit(resume)

    def _watched_fit(self, resume: bool) -> Result:
        error: BaseException | None = None
        try:
            with StopRequest() as stop:
                self.result = self._fit(resume, stop)
            return self.result
        except OSError as problem:
            error = self.run.explained(problem)
            raise error from problem
        except BaseException as problem:
            error = problem
            raise
        finally:
            if self.processes.first:
                result = self.result.to_dict() if self.result else None
                self.registry.watchers.nern_run_finished(run_dir=self.run.path, result=result, error=error)

    def evaluate(self) -> Evaluation:
        """Measure the fitted (or loaded) representation and the original network on the test set, in float32.

        Raises:
            ConfigError: nothing is fitted or loaded yet.
            DataError: the test images are missing, or the weights are not those that the run started from.
        """
        rebuilt = self._fitted()
        data = self._open(self.experiment.task)
        logits, labels = predict(rebuilt.reconstruct().float(), data, "test", self.device)
        has_original = self.experiment.architecture.has_weights or self.run.original.exists() or self._subject is not None
        if not has_original:
            return Evaluation(None, score(logits, labels))
        subject = self._subject
        network = subject.network if subject else self._original_network()[0]
        rebuilt.check_original(network)
        found, _ = predict(network, data, "test", self.device)
        return Evaluation(score(found, labels, found), score(logits, labels, found))

    def reconstruct(self) -> nn.Module:
        """The reconstructed network, in eval mode, with the original state dict's names, shapes and dtypes."""
        return self._fitted().reconstruct()

    def save(self, path: str | Path) -> Bytes:
        """Write the representation as one file; returns the bytes of its parts."""
        return self._fitted().save(path)

    @property
    def representation(self) -> Representation:
        """The fitted (or loaded) representation."""
        return self._fitted().representation

    @property
    def artifact(self) -> Artifact:
        """The fitted (or loaded) representation with everything that belongs into its file."""
        return self._fitted()

    @property
    def data(self) -> Data:
        """The task's images."""
        return self._open(self.experiment.task)

    def original(self) -> nn.Module:
        """The original network.

        Raises:
            DataError: its weights are not there any more.
        """
        return self._original_network()[0]

    def tune(self, representation: Representation, steps: int, after: Callable[[], None]) -> None:
        """Train a representation further, in place, as the last phase does; `after` is called behind every step."""
        experiment = self.experiment
        phase = attrs.evolve(experiment.phases[-1], iterations=steps)
        parts = self._parts(self._prepare(), representation.to(self.device).train())
        trainer = start_phase(experiment, phase, len(experiment.phases), parts, self._open)
        for step in range(steps):
            trainer.step(step)
            after()
        trainer.flush(steps - 1)
        representation.eval()

    def _fitted(self) -> Artifact:
        if self._artifact is None:
            raise ConfigError(f"there is no representation in {self.run.path} yet: fit() makes one, nern train --resume finishes a run")
        return self._artifact

    # -- assembling ----------------------------------------------------------------------------------------------

    def _open(self, task: Task) -> Data:
        if id(task) not in self._data:
            preprocessing = self.experiment.architecture.preprocessing()
            self._data[id(task)] = task.open(preprocessing, self.experiment.heldout, self.experiment.seed)
        return self._data[id(task)]

    def _original_network(self) -> tuple[nn.Module, dict[str, torch.dtype]]:
        """The original network on the CPU, from its weights or from the run's own pretraining."""
        network = self._fresh_network().eval()
        if self.experiment.architecture.has_weights:
            return network, self.experiment.architecture.load(network)
        return network, load_weights(network, self.run.original)

    def _fresh_network(self) -> nn.Module:
        with seeded(self.experiment.seed, "original"):
            return self.experiment.architecture.build()

    def _check_inputs(self) -> None:
        """Look at images and original weights before anything is written or trained.

        Raises:
            ConfigError: there is neither a weights file nor a way to train the original network.
            DataError: weights or images are missing, or do not fit each other.
        """
        experiment = self.experiment
        tasks = [experiment.task, *(phase.inputs for phase in experiment.phases if phase.inputs is not None)]
        classes = max(self._open(task).classes or 0 for task in tasks)
        if experiment.architecture.has_weights:
            network = self._original_network()[0]
        elif experiment.pretrain is not None or self.run.original.exists():
            network = self._fresh_network().eval()
        else:
            raise ConfigError("architecture.weights is missing: name the file with the original weights, or add a 'pretrain' section")
        with torch.no_grad():
            logits = network(torch.zeros(1, *experiment.architecture.preprocessing().size))
        check_logits(logits)
        outputs = logits.shape[1]
        for phase in experiment.phases:
            self._check_images(phase)
        if classes > outputs:
            raise DataError(f"the task has {classes} classes and the network {outputs}; set architecture.classes or another task")

    def _check_images(self, phase: Phase) -> None:
        """Raise DataError where a phase runs the networks and there are no training images for it."""
        losses = self.experiment.losses if phase.losses is None else phase.losses
        runs = any(term.weight > 0 and term.loss.needs != "weights" for term in losses.values())
        if runs and "train" not in self._open(phase.inputs or self.experiment.task).splits:
            raise DataError(
                f"phase '{phase.name}' runs the networks, but the task has no training images; "
                "set inputs={name: uniform-noise} in the phase, or leave out the losses that look at images"
            )

    def _pretrain(self, stop: StopRequest) -> None:
        """Train the original network where there are no weights; leaves it in the run directory."""
        experiment = self.experiment
        if experiment.architecture.has_weights or self.run.original.exists():
            return
        assert experiment.pretrain is not None
        network = self._fresh_network()
        epochs = experiment.pretrain.epochs

        def report(epoch: int, loss: float) -> bool:
            self.registry.watchers.nern_step(
                phase="pretrain", iteration=epoch, total=epochs, losses={"cross-entropy": loss}, learning_rate=0.0
            )
            return stop.requested

        started = self.registry.watchers.nern_run_started
        started(run_dir=self.run.path, config=config.unstructure(experiment, self.registry), iteration=0, total=epochs)
        layers = list(experiment.architecture.layers(network))
        complete = pretrain(
            network, layers, self._open(experiment.task), experiment.pretrain,
            seed=experiment.seed, device=self.device, checkpoint=self.run.pretraining, report=report,
        )  # fmt: skip
        if not complete:
            raise Interrupted(f"stopped while training the original network; go on with --resume ({self.run.path})")
        self.run.write_original(network)

    def _prepare(self, stop: StopRequest | None = None) -> Subject:
        """Load the network, find its kernels, order them."""
        network, dtypes = self._original_network()

        def report(done: int, total: int) -> None:
            self.registry.watchers.nern_ordering(done=done, total=total)
            if stop is not None and stop.requested:
                raise Interrupted(f"stopped while ordering the kernels; go on with --resume ({self.run.path})")

        self._subject = Subject.of(network, dtypes, self.experiment, self.registry, report)
        return self._subject

    def _represent(self, subject: Subject, kernels: KernelSet) -> Representation:
        """A representation with fresh weights."""
        experiment = self.experiment
        with seeded(experiment.seed, "predictor"):
            representation = artifact.assemble(subject.grid, subject.orders, experiment.embedding, experiment.predictor).to(self.device)
            rows = torch.randperm(subject.grid.rows, dtype=torch.int32)[:4096].long().to(self.device)
            with torch.no_grad():
                embedded = representation.embedding(representation.table.coordinates(rows))
            if experiment.scale_layers:
                representation.scale(kernels.scales())
            experiment.predictor.initialise(representation.predictor, embedded, kernels.real(representation.scales))
        representation.keep_zeros(subject.masks() if experiment.keep_zeros else {})
        representation.storage = Storage(experiment.storage)
        return representation

    def _parts(self, subject: Subject, representation: Representation | None = None) -> Parts:
        """What training works on, with fresh weights where there is no representation yet."""
        experiment = self.experiment
        masks = subject.masks() if experiment.keep_zeros else {}
        kernels = KernelSet(subject.grid, subject.state, subject.orders, self.device, masks)
        representation = representation or self._represent(subject, kernels)
        features = experiment.architecture.features(subject.network)
        networks = NetworkPair(subject.network, features, device=self.device, dtype=self.dtype)
        return Parts(representation, kernels, networks, self.device, self.dtype, experiment.seed, self.processes, experiment.cuda_graphs)

    # -- fitting -------------------------------------------------------------------------------------------------

    def _fit(self, resume: bool, stop: StopRequest) -> Result:
        began = time.monotonic()
        experiment = self.experiment
        resolved = config.unstructure(experiment, self.registry)
        if self.processes.first:
            self.run.check(resolved, resume, self.registry)
            self._check_inputs()
            self.run.open(config.to_yaml(experiment, self.registry))
            self._pretrain(stop)
        self.processes.wait()
        with self.processes.first_goes_first():
            subject = self._prepare(stop)
        checkpoint = Checkpoint.load(self.run.checkpoint) if resume and self.run.checkpoint.exists() else None
        if checkpoint is not None and checkpoint.originals != subject.sha256:
            raise ConfigError(f"{self.run.path} was started with other original weights; give those, or start a new run with output=DIR")
        parts = self._parts(subject)
        fitting = Fitting(experiment, subject, parts, self.run, self.registry.watchers, self._open, checkpoint, began)
        with fast_float32(self.device):
            fitting.run(resolved, stop)
        result = self._finish(subject, parts.representation, fitting) if self.processes.first else None
        result = self.processes.all_objects(result)[0]
        assert result is not None
        if not self.processes.first:
            self._artifact = artifact.load(self.run.artifact, self.registry)
        return result

    def _finish(self, subject: Subject, representation: Representation, fitting: Fitting) -> Result:
        """Measure the final and the chosen checkpoint on the test set, once, and write artifact and result."""
        experiment = self.experiment
        data = self._open(experiment.task)
        representation.eval()
        final = {name: value.detach().clone() for name, value in representation.state_dict().items()}
        chosen = fitting.best["parameters"] if fitting.best else final
        another = fitting.best is not None and fitting.best["iteration"] != fitting.iteration
        records: dict[str, Any] = {
            "final": {"iteration": fitting.iteration, "heldout": fitting.latest},
            "chosen": {"iteration": fitting.best["iteration"], "heldout": fitting.best["metrics"]} if fitting.best and another else None,
        }
        original: Score | None = None
        tested = "test" in data.splits
        if tested:
            original_logits, labels = predict(subject.network, data, "test", self.device)
            original = score(original_logits, labels, original_logits)
        for name, parameters in (("final", final), ("chosen", chosen)):
            representation.load_state_dict(parameters)
            representation.round()
            if records[name] is None:
                records[name] = records["final"]
            elif tested:
                logits, labels = predict(with_weights(subject.network, representation.reconstruct()), data, "test", self.device)
                records[name]["test"] = score(logits, labels, original_logits).metrics()
                hook = self.registry.watchers.nern_evaluated
                hook(phase=name, iteration=records[name]["iteration"], split="test", metrics=records[name]["test"])
        notes = {"task": _without_paths(config.unstructure(experiment.task, self.registry)), "checkpoints": records}
        self._artifact = Artifact(
            representation, experiment.architecture, experiment.embedding, experiment.predictor,
            subject.network.cpu(), subject.dtypes, self.registry, subject.sha256, notes,
        )  # fmt: skip
        sizes = self._artifact.save(self.run.artifact)
        before, after = (grid_smoothness(subject.grid, subject.state, orders) for orders in (None, subject.orders))
        result = Result(
            original_top1=original.top1 if original else None,
            reconstructed_top1=records["chosen"].get("test", {}).get("top1"),
            seconds=round(fitting.seconds(), 3),
            iterations=fitting.iteration,
            bytes=sizes,
            run_dir=str(self.run.path),
            artifact=str(self.run.artifact),
            checkpoints=records,
            smoothness={"before": before, "after": after},
            seed=experiment.seed,
            environment=environment(self.device, self.dtype),
        )
        self.run.write_result(result.to_dict())
        return result


def _without_paths(task: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in task.items() if name != "root"}
