"""Every extension point of nern. A plugin implements any of these with `@nern.hookimpl`.

The first twelve hooks *offer components*: each returns a mapping from the name that a configuration uses to an attrs
class that subclasses the interface named in its signature. Names are looked up per extension point; two plugins that
offer the same name are both kept, and a run that wants one of them writes `package:name`.

The others *watch runs*: they are called during a run and return nothing. An implementation may take any subset
of the arguments, so that a hook can grow arguments without breaking plugins that exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pluggy

from nern.interfaces import Architecture, Base, Embedding, Launcher, Loss, Observer, Optimizer, Predictor, Sampler, Smoother, Task
from nern.outputs.metric import Metric

hookspec = pluggy.HookspecMarker("nern")
hookimpl = pluggy.HookimplMarker("nern")


@hookspec
def nern_architectures() -> Mapping[str, type[Architecture]]:  # type: ignore[empty-body]
    """Networks that can be represented: how to build one, load its weights and map its convolutions to coordinates."""


@hookspec
def nern_embeddings() -> Mapping[str, type[Embedding]]:  # type: ignore[empty-body]
    """Maps from integer coordinates [n, 3] to vectors [n, d]."""


@hookspec
def nern_predictors() -> Mapping[str, type[Predictor]]:  # type: ignore[empty-body]
    """Networks from embedded coordinates [n, d] to kernels [n, k²]."""


@hookspec
def nern_bases() -> Mapping[str, type[Base]]:  # type: ignore[empty-body]
    """Kernels that are added to the predicted ones; the file stores them as a part of its own."""


@hookspec
def nern_samplers() -> Mapping[str, type[Sampler]]:  # type: ignore[empty-body]
    """Choices of the kernels that carry gradient in a step."""


@hookspec
def nern_smoothers() -> Mapping[str, type[Smoother]]:  # type: ignore[empty-body]
    """Orders of a layer's kernels, and the bits that storing an order takes."""


@hookspec
def nern_losses() -> Mapping[str, type[Loss]]:  # type: ignore[empty-body]
    """Scalars that compare the reconstructed network with the original one."""


@hookspec
def nern_tasks() -> Mapping[str, type[Task]]:  # type: ignore[empty-body]
    """Sources of images: training inputs, held-out set and test set."""


@hookspec
def nern_metrics() -> Mapping[str, type[Metric]]:  # type: ignore[empty-body]
    """Figures that measure a network's outputs on held-out and test images."""


@hookspec
def nern_optimizers() -> Mapping[str, type[Optimizer]]:  # type: ignore[empty-body]
    """Optimisers of the predictor, with their schedules."""


@hookspec
def nern_observers() -> Mapping[str, type[Observer]]:  # type: ignore[empty-body]
    """Observers that a configuration can switch on; their methods implement the hooks below."""


@hookspec
def nern_launchers() -> Mapping[str, type[Launcher]]:  # type: ignore[empty-body]
    """Places where the runs of a sweep are started."""


@hookspec
def nern_run_started(run_dir: Path, config: dict[str, Any], iteration: int, total: int, unit: str) -> None:
    """A run starts, or continues, at `iteration` of `total`; `config` is the resolved configuration.

    `unit` says what is counted: "step", or "epoch" while the original network is trained.
    """


@hookspec
def nern_ordering(done: int, total: int) -> None:
    """Kernels are being ordered, before the run starts: `done` of `total`. It is not called where the cache has the order."""


@hookspec
def nern_original_measured(split: str, images: int, metrics: dict[str, float]) -> None:
    """The original network was measured on `split` ("heldout" or "test") before the first step; percentages in [0, 100]."""


@hookspec
def nern_step(phase: str, iteration: int, total: int, losses: dict[str, float], learning_rate: float) -> None:
    """Losses after `iteration` of `total` steps, every `log_every` steps; `losses` holds unweighted terms and `total`."""


@hookspec
def nern_measuring(phase: str, iteration: int, split: str) -> None:
    """A network is about to run on every image of `split` ("heldout" or "test"), which may take a while."""


@hookspec
def nern_evaluated(phase: str, iteration: int, split: str, metrics: dict[str, float]) -> None:
    """The reconstructed network was measured on `split` ("heldout" or "test"); percentages are in [0, 100]."""


@hookspec
def nern_checkpoint_saved(path: Path, iteration: int) -> None:
    """A checkpoint is safely on disk."""


@hookspec
def nern_run_finished(run_dir: Path, result: dict[str, Any] | None, error: BaseException | None) -> None:
    """A run ended: with its result, or with the error that stopped it."""
