"""`nern.represent`: represents any network in one call."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from nern.engine import Engine
from nern.outputs.metric import Metric
from nern.own.target import Target
from nern.registry.registry import Registry
from nern.run.own_network import OwnNetwork
from nern.run.results import Result

log = logging.getLogger("nern")


def represent(
    model: nn.Module,
    data: Any = None,
    *,
    recipe: str = "fast",
    steps: float = 1.0,
    target: Target | None = None,
    test: Any = None,
    layers: str | Sequence[str] = "all",
    metric: Callable[[Any, Any], Any] | Metric | None = None,
    size: Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    resize: int | None = None,
    build: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    output: str | Path | None = None,
    resume: bool = False,
    quiet: bool = False,
    registry: Registry | None = None,
) -> Result:
    """Represent a network by a small predictor: measures it, prints the plan, trains, chooses a checkpoint, and measures again.

    Args:
        model: any module with convolutions or linear layers; it is left as it is.
        data: inputs for the network, as a DataLoader, a Dataset, a tensor, a pair (inputs, labels) or batches; a folder of images;
            or None for noise. Inputs of a network with several arguments are a tuple of tensors, or a dictionary of tensors by
            the names of the arguments. Labels are used for measuring only. A tenth of the data is held out to choose the checkpoint, and
            another tenth is used for one measurement at the end.
        recipe: the part of the experiment without network and data: `fast`, `quick`, `small`, `paper` or `data-free`.
        steps: length of the run as a multiple of the recipe's: 0.1 to try things out.
        target: `nern.TargetBytes(100_000)` or `nern.TargetDrop(points=1.0)` finds the size of the predictor.
        test: examples for the measurement at the end, in the same forms as `data`; by default a part of `data`.
        layers: `all` for convolutions and linear layers, `convolutions` for these alone, or patterns of parameter names.
        metric: function of outputs and labels of a batch to a number, or to one number for each example; it is the headline, and
            higher is better. A `nern.Metric` may say that lower is better.
        size: shape of one input; needed where there is no data.
        mean, std: of the channels of images in [0, 1], for a folder or for bytes (uint8).
        resize: shorter side of a folder's photographs before the centre crop, in pixels.
        build, arguments: a reference `package.module:Class` and the arguments that build the network in another process, where nern
            cannot find them out from the model.
        overrides: values of the configuration by dotted path, such as `{"predictor.hidden": 64}`.
        output: the run's folder; by default a new one in `runs/`.
        resume: whether to continue the run in `output`.
        quiet: whether to leave out the printed plan.

    Returns:
        The result, with accuracies and bytes; `result.save("mine.nern")` writes the one file to keep.

    Raises:
        ConfigError: the network or an option is impossible.
        DataError: the data are of no known kind, or the network cannot take them.
    """

    own = OwnNetwork(model, data, test, recipe, layers, metric, size, mean, std, resize, build, arguments, steps)
    return run(own, overrides, target=target, output=output, resume=resume, quiet=quiet, registry=registry)


def run(
    own: OwnNetwork,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    *,
    target: Target | None = None,
    output: str | Path | None = None,
    resume: bool = False,
    quiet: bool = False,
    registry: Registry | None = None,
) -> Result:
    """Represent a network and data that are already described as an `OwnNetwork`."""
    engine = prepared(own, overrides, target=target, output=output, quiet=quiet, registry=registry)
    if not (quiet or resume):
        say(str(engine.plan()))
    result = engine.fit(resume=resume)
    if not quiet:
        if target is not None:
            say(target.verdict(result))
        say(result.summary())
    if result.bytes.total > result.bytes.original:
        log.warning("nern: the representation is larger than the network (%s): keep the network as it is", result.bytes.change)
    return result


def prepared(
    own: OwnNetwork,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    *,
    target: Target | None = None,
    output: str | Path | None = None,
    quiet: bool = False,
    registry: Registry | None = None,
) -> Engine:
    """The engine that `run` fits, with the size that reaches the target."""
    experiment, registry = own.experiment(overrides, registry, output)
    if target is not None:
        experiment = target.experiment(experiment, registry, (lambda line: None) if quiet else say)
    return Engine(experiment, registry)


def say(line: str) -> None:
    """Print a message for the user on stderr."""
    print(line, file=sys.stderr, flush=True)
