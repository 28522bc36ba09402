"""Assembles a run from an experiment, and fits, evaluates, reconstructs, saves and resumes it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Literal

import attrs
import torch
from torch import nn

from nern.artifact.artifact import Artifact, Bytes
from nern.artifact.reading import load
from nern.config.experiment import Experiment
from nern.config.loading import load_experiment
from nern.config.overrides import parse_override
from nern.config.structuring import unstructure
from nern.errors import ConfigError, Interrupted, TrainingError
from nern.interfaces import Data
from nern.registry.blame import blamed
from nern.registry.registry import Registry
from nern.representation.representation import Representation
from nern.run.assembly import Assembly
from nern.run.checkpoint import Checkpoint
from nern.run.checks import check_run
from nern.run.devices import choose_device, choose_dtype, fast_float32
from nern.run.evaluation import Comparison, measures_of
from nern.run.finishing import finish
from nern.run.folder import RunFolder
from nern.run.interruption import StopRequest
from nern.run.loop import TrainingLoop
from nern.run.observers import ObserverCalls
from nern.run.original import Original, OriginalSource
from nern.run.own_network import OwnNetwork
from nern.run.packing import like_at_the_end, pack, without_zeros
from nern.run.phases import tune
from nern.run.plan import Plan, make_plan
from nern.run.pretraining import pretrain_in_run
from nern.run.results import Evaluation, Result
from nern.run.starting import start
from nern.run.thread_count import chosen_threads, work_of_step
from nern.support.memory import keep_freed_memory
from nern.support.showing import Shown
from nern.support.threads import with_threads
from nern.training.processes import Processes, processes
from nern.training.step import StepContext

log = logging.getLogger("nern")


class Engine(Shown):
    """One run of one experiment.

    Args:
        experiment: a checked configuration.
        registry: where its components came from.
    """

    def __init__(self, experiment: Experiment, registry: Registry) -> None:
        self.experiment, self.registry = experiment, registry
        self.run = RunFolder(Path(experiment.output))
        self.source = OriginalSource(experiment, self.run)
        self.device = choose_device(experiment.device)
        self.dtype = choose_dtype(experiment.precision, self.device)
        self.result: Result | None = None
        self._artifact: Artifact | None = None
        self._original: Original | None = None
        self._assembly = Assembly(experiment, registry, self.device, self.dtype)
        self._open = self._assembly.open_task
        self._calls = ObserverCalls(registry)
        self.processes = Processes()
        self._held = ExitStack()  # holds the lock of the run folder during a run

    def __repr__(self) -> str:
        experiment, architecture = self.experiment, self.experiment.architecture
        name = getattr(architecture, "network", None) or getattr(architecture, "model", None) or type(architecture).__name__
        steps = sum(phase.iterations for phase in experiment.phases)
        hidden = getattr(experiment.predictor, "hidden", None)
        what = type(experiment.predictor).__name__ + (f" of hidden size {hidden}" if hidden else "")
        state = repr(self.result) if self.result else "fitted" if self._artifact else "not fitted yet"
        return f"Engine: {name} by {what}, {steps:,} steps, in {self.run.path}\n{state}"

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
        return cls(*load_experiment(reference, overrides, registry))

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
        folder.must_exist()
        if not isinstance(overrides, Mapping):
            overrides = dict(parse_override(text) for text in overrides)
        engine = cls(*load_experiment(folder.config, {**overrides, "output": str(run_dir)}, disabled=disabled, plugins=plugins))
        if folder.artifact.exists():
            engine._artifact = load(folder.artifact, engine.registry)
            engine._artifact.built_by(engine.experiment.architecture)
        return engine

    @classmethod
    def from_model(
        cls,
        model: nn.Module,
        data: Any = None,
        overrides: Mapping[str, Any] | Sequence[str] = (),
        *,
        recipe: str = "fast",
        test: Any = None,
        output: str | Path | None = None,
        registry: Registry | None = None,
        **options: Any,
    ) -> Engine:
        """An engine on any network in memory; see `nern.represent` for data and options.

        Args:
            overrides: dotted paths to values of the configuration, which take precedence over the recipe's.

        Raises:
            ConfigError: the network, the recipe or an override is impossible.
            DataError: the data are of no known kind, or the network cannot take them.
        """
        own = OwnNetwork(model, data, test, recipe, **options)
        return cls(*own.experiment(overrides, registry, output))

    # -- what a user does ----------------------------------------------------------------------------------------

    def check(self) -> None:
        """Refuse what `fit` would refuse without looking at images; nothing is written or trained.

        Raises:
            NernError: one line for every mistake, with its place: the classes are those that `fit` raises.
        """
        with self._calls.joined_by(self.experiment.observers):
            check_run(self.experiment, self.source, self._context, registry=self.registry)

    def fit(self, resume: bool = False) -> Result:
        """Train every phase, choose a checkpoint on the held-out images, measure it once on the test set.

        Args:
            resume: continue from the run directory's last checkpoint; phases that have not ended may be longer now.

        Raises:
            ConfigError: the run directory holds another run, or an option is impossible for the network.
            DataError: weights or images are missing, or do not match each other.
            PluginError: a component or package that the run needs is not installed.
            TrainingError: a loss is not finite, or the run directory cannot be written.
            Interrupted: Ctrl-C or SIGTERM; a checkpoint was written.
        """
        with processes(self.device) as self.processes, ExitStack() as self._held:
            observers = self.experiment.observers if self.processes.first else {}
            with self._calls.joined_by(observers):
                return self._watched_fit(resume)

    def _watched_fit(self, resume: bool) -> Result:
        error: BaseException | None = None
        try:
            with StopRequest() as stop:
                self.result = self._fit(resume, stop)
            return self.result
        except BaseException as problem:
            error, reason = problem, blamed(problem)
            if reason is not None:
                error = TrainingError(f"{reason}; {self.run.way_on()}")
            elif isinstance(problem, OSError):
                error = self.run.explained(problem)
            if error is problem:
                raise
            raise error from problem
        finally:
            if self.processes.first:
                result = self.result.to_dict() if self.result else None
                self._calls.nern_run_finished(run_dir=self.run.path, result=result, error=error)

    def evaluate(self, split: Literal["heldout", "test"] = "test") -> Evaluation:
        """Measure the fitted (or loaded) representation and the original network on the test or held-out images, in float32.

        Raises:
            ConfigError: nothing is fitted or loaded yet.
            DataError: the images are missing, or the weights are not those that the run started from.
        """
        rebuilt, network = self._fitted(), None
        if self._original is not None or self.source.available:
            network = self.source.load()[0]
            rebuilt.check_original(network)
        task = self.experiment.task
        with with_threads(self.experiment.threads):
            comparison = Comparison(network, self._open(task), split, self.device, task.outputs(), measures_of(self.experiment))
            reconstructed = comparison.score(rebuilt.reconstruct().float())
            return Evaluation(comparison.original, reconstructed)

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
        """The fitted (or loaded) representation with everything else that its file holds."""
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
        return self.source.load()[0]

    def plan(self) -> Plan:
        """Plan the run: what is represented and copied, the bytes, and the time that `fit` takes. The original network is measured.

        Raises:
            ConfigError, DataError: as `fit` does for a network or data that are impossible.
        """
        with with_threads(self.experiment.threads):
            check_run(self.experiment, self.source, self._context, self._open, registry=self.registry, predicts=False)
            original = self.prepared(roughly=True)
            context = self._context(original)
            artifact = self.untrained(original, context.representation)
            return make_plan(self.experiment, original, context, artifact, self._open)

    def prepared(self, roughly: bool = False) -> Original:
        """The original network, with the order of its kernels.

        Args:
            roughly: order the kernels only by the first weight of each. This is enough for sizes and times; a real ordering could
                take minutes.
        """
        with with_threads(self.experiment.threads):
            if roughly:
                network, dtypes = self.source.load()
                return Original.of(network, dtypes, self.experiment, self.registry, roughly=True)
            return self._prepare()

    def untrained(self, original: Original, representation: Representation | None = None) -> Artifact:
        """An untrained artifact with the same parts as that of `fit`. Its file is as large as the trained one, or a little larger.

        With entropy-coded numbers the size depends on the training.
        """
        experiment = self.experiment
        if representation is None:
            representation = self._context(original).representation
        if experiment.storage != "entropy":
            without_zeros(representation.predictor)  # its biases begin as zeros, of which a file would hold only the places
        figures = like_at_the_end(measures_of(experiment).metrics, chosen=experiment.evaluate_every > 0)
        return pack(experiment, original, representation.eval(), self.registry, figures)

    def tune(self, representation: Representation, steps: int, after: Callable[[], None]) -> None:
        """Train a representation further, in place, as in the last phase; `after` is called after every step."""
        with with_threads(self.experiment.threads):
            context = self._context(self._prepare(), representation.to(self.device).train())
            tune(self.experiment, context, self._open, steps, after)
        representation.eval()

    def _fitted(self) -> Artifact:
        if self._artifact is None:
            raise ConfigError(f"there is no representation in {self.run.path} yet: fit() makes one, nern train --resume finishes a run")
        return self._artifact

    # -- assembling ----------------------------------------------------------------------------------------------

    def _prepare(self, stop: StopRequest | None = None) -> Original:
        """Load the network, find its kernels, order them."""
        network, dtypes = self.source.load()

        def report(done: int, total: int) -> None:
            self._calls.nern_ordering(done=done, total=total)
            if stop is not None and stop.requested:
                raise Interrupted(f"stopped while ordering the kernels; continue with --resume ({self.run.path})")

        self._original = Original.of(network, dtypes, self.experiment, self.registry, report)
        return self._original

    def _context(self, original: Original, representation: Representation | None = None) -> StepContext:
        return self._assembly.context(original, self.processes, representation)

    def _checked(self, resume: bool) -> Experiment:
        """The experiment, if nothing speaks against it, with its number of threads where that is to be one."""
        tried = check_run(self.experiment, self.source, self._context, self._open, registry=self.registry)
        experiment = self.experiment
        if experiment.threads or self.device.type != "cpu" or self.processes.size > 1:
            return experiment
        if resume and self.run.config.is_file():  # other threads would give other bits
            return attrs.evolve(experiment, threads=self.run.threads())
        work = work_of_step(experiment, *tried)
        threads = chosen_threads(work)
        if threads is not None:
            log.warning(
                "nern: one CPU thread, since a step of %.2g billion multiply-adds is too small to be divided; threads=%d takes all",
                work / 1e9, torch.get_num_threads(),
            )  # fmt: skip
        return attrs.evolve(experiment, threads=threads)

    # -- fitting -------------------------------------------------------------------------------------------------

    def _fit(self, resume: bool, stop: StopRequest) -> Result:
        began = time.monotonic()
        if self.device.type == "cpu":
            keep_freed_memory()
        if self.processes.first:
            check = partial(self._checked, resume)
            with with_threads(self.experiment.threads):
                self.experiment = start(self.experiment, self.registry, self.run, check, resume, self._held)
        with with_threads(self.experiment.threads):
            return self._trained(resume, stop, began)

    def _trained(self, resume: bool, stop: StopRequest, began: float) -> Result:
        experiment = self.experiment
        if self.processes.first and not self.source.available:
            pretrain_in_run(self.source, self._open(experiment.task), self._calls, self.registry, self.device, stop)
        self.processes.wait()
        with self.processes.first_goes_first():
            original = self._prepare(stop)
        checkpoint = Checkpoint.load(self.run.checkpoint) if resume and self.run.checkpoint.exists() else None
        if checkpoint is not None and checkpoint.originals != original.sha256:
            raise ConfigError(f"{self.run.path} was started with other original weights; give those, or start a new run with output=DIR")
        context = self._context(original)
        loop = TrainingLoop(experiment, self.registry, original, context, self.run, self._calls, self._open, checkpoint, began)
        with fast_float32(self.device):
            loop.run(unstructure(experiment, self.registry), stop)
        result = None
        if self.processes.first:
            self._artifact, result = finish(loop, self.dtype)
        result = self.processes.all_objects(result)[0]
        assert result is not None
        if not self.processes.first:
            self._artifact = load(self.run.artifact, self.registry)
        return result
