"""Original networks trained from scratch and kept as weights files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import attrs

from nern import config
from nern.config import Experiment, Pretrain
from nern.coordinates import KernelGrid
from nern.devices import choose_device
from nern.errors import ArtifactError, ConfigError, Interrupted
from nern.evaluation import Score, predict, score
from nern.pretraining import pretrain
from nern.random import derive, seeded
from nern.registry import Registry
from nern.runs import StopRequest
from nern.smoothness import grid_smoothness
from nern.standalone import write_state_dict


@attrs.frozen
class Trained:
    """An original network that was trained."""

    file: str
    score: Score | None  # on the test set; None where there is none
    smoothness: float  # eq. 6 over the represented layers
    factor: float  # of eq. 6 in the training loss
    epochs: int
    seconds: float  # of this call

    def to_dict(self) -> dict[str, Any]:
        return {**attrs.asdict(self), "top1": self.score.top1 if self.score else None}


def train_original(experiment: Experiment, registry: Registry, path: Path) -> Trained:
    """Train the experiment's network by its `pretrain` section and write the weights.

    A checkpoint beside the file is written after every epoch; the same call goes on from it.

    Raises:
        ConfigError: the file is there already or has an ending of another kind.
        DataError: the task cannot train a classifier.
        ArtifactError: the file or its checkpoint cannot be written.
        Interrupted: Ctrl-C or SIGTERM, after a checkpoint.
    """
    began, options = time.monotonic(), experiment.pretrain or Pretrain()
    if path.exists():
        raise ConfigError(f"{path} is there already; name another file with -o, or remove it")
    if path.suffix not in (".safetensors", ".pt", ".pth"):
        raise ConfigError(f"{path}: the file must end in .safetensors, .pt or .pth")
    if not path.absolute().parent.is_dir():
        raise ArtifactError(f"cannot write {path}: there is no folder {path.absolute().parent}")
    device = choose_device(experiment.device)
    data = experiment.task.open(experiment.architecture.preprocessing(), experiment.heldout, experiment.seed)
    with seeded(experiment.seed, "original"):
        network = experiment.architecture.build()
    layers = list(experiment.architecture.layers(network))
    checkpoint, watchers = checkpoint_of(path, experiment, registry), registry.watchers
    folder, total = path.absolute().parent, options.epochs
    error: BaseException | None = None
    with watchers.joined_by(experiment.observers), StopRequest() as stop:
        watchers.nern_run_started(run_dir=folder, config=config.unstructure(experiment, registry), iteration=0, total=total)

        def report(epoch: int, loss: float) -> bool:
            losses = {"cross-entropy": loss}
            watchers.nern_step(phase="pretrain", iteration=epoch, total=total, losses=losses, learning_rate=0.0)
            return stop.requested

        try:
            complete = pretrain(network, layers, data, options, seed=experiment.seed, device=device, checkpoint=checkpoint, report=report)
            if not complete:
                raise Interrupted(f"stopped while training; the same command goes on (checkpoint {checkpoint})")
        except OSError as problem:
            error = ArtifactError(f"cannot write {checkpoint} ({problem.strerror}); free space or name another file with -o")
            raise error from problem
        except BaseException as problem:
            error = problem
            raise
        finally:
            watchers.nern_run_finished(run_dir=folder, result=None, error=error)
    network.cpu()
    write_state_dict(network.state_dict(), path)
    checkpoint.unlink(missing_ok=True)
    found = None
    if "test" in data.splits:
        logits, labels = predict(network, data, "test", device)
        found = score(logits, labels)
    grid = KernelGrid(tuple(layers), experiment.small_kernels)
    smoothness = grid_smoothness(grid, dict(network.cpu().state_dict()))
    return Trained(str(path), found, smoothness, options.smoothness, options.epochs, round(time.monotonic() - began, 3))


def checkpoint_of(path: Path, experiment: Experiment, registry: Registry) -> Path:
    """Where training for `path` keeps its checkpoint: another experiment has another one, so none is gone on with by mistake."""
    resolved = config.unstructure(experiment, registry)
    parts = [resolved[key] for key in ("architecture", "task", "pretrain", "heldout", "seed")]
    return path.with_name(f"{path.stem}-{derive(0, *parts):016x}.checkpoint")
