"""Kinds of outputs: logits of classes, of pixels, numbers, and several of them at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

import attrs
import torch
from torch import Tensor
from torch.nn import functional as F

from nern.errors import ConfigError, DataError
from nern.outputs.metric import Metric
from nern.outputs.metrics import (
    Agreement,
    Divergence,
    MeanIoU,
    MeanSquaredError,
    RelativeDistance,
    Top1,
    Top5,
    relative_squares,
    rows_of,
)
from nern.outputs.nested import described, tensors_of


@attrs.frozen
class OutputKind(ABC):
    """The kind of a network's outputs: how outputs are compared and measured, and which figure chooses a checkpoint."""

    @abstractmethod
    def check(self, outputs: Any, classes: int | None = None) -> None:
        """Check the outputs for a few images before training starts.

        Args:
            classes: number of classes of the task's labels; None where it has none.

        Raises:
            ConfigError: the outputs are of another kind.
            DataError: the task has another number of classes than the network.
        """

    @abstractmethod
    def distance(self, original: Any, reconstructed: Any) -> Tensor:
        """The distance between the outputs of two networks: a scalar, the mean over images, differentiable in `reconstructed`.

        The loss `kd` uses this distance where the outputs are not logits.
        """

    @abstractmethod
    def metrics(self) -> Mapping[str, Metric]:
        """The metrics by name; the first one is the headline."""

    @property
    @abstractmethod
    def choice(self) -> tuple[str, ...]:
        """Names of the metrics that checkpoints are compared by, the most important one first.

        A distance from the original network is the best choice where there is one: it needs no targets, and accuracy is no good
        guide because the original network was mostly trained on the held-out images.
        """

    def training_loss(self, outputs: Any, targets: Any) -> Tensor:
        """The loss that trains an original network: a scalar, the mean over images.

        Raises:
            DataError: networks of this kind cannot be trained by nern, which is the default.
        """
        raise DataError(f"{type(self).__name__} has no training_loss: give architecture.weights, or implement it")

    def check_targets(self, outputs: Any, targets: Any) -> None:
        """Raise DataError where the targets of a batch do not match its outputs."""
        return


@attrs.frozen
class ClassLogits(OutputKind):
    """Logits [b, classes] of a classifier: knowledge distillation, top-1 and top-5, chosen by the divergence from the original.

    The original network was mostly trained on the held-out images, so that top-1 is near 100 % there and differs only in a few
    images. The divergence from the original's predictions depends on every image, and needs no labels.
    """

    def check(self, outputs: Any, classes: int | None = None) -> None:
        if not isinstance(outputs, Tensor) or outputs.dim() != 2:
            raise ConfigError(
                f"the network gives {described(outputs)} where the task needs logits [b, classes]; take a classifier with one output, "
                "or a task whose outputs() says what the network gives"
            )
        if classes and classes != outputs.shape[1]:
            raise DataError(
                f"the task has {classes} classes and the network {outputs.shape[1]} outputs: which output stands for which class is not "
                "known. Name the classes of all outputs in their order with task.classes (a list, or a text file with one folder name in "
                "each line), or set architecture.classes, or another task; task.labels=false takes images without their classes"
            )

    def distance(self, original: Tensor, reconstructed: Tensor) -> Tensor:
        return divergence(original, reconstructed)

    def metrics(self) -> Mapping[str, Metric]:
        return {"top1": Top1(), "top5": Top5(), "agreement": Agreement(), "kl": Divergence()}

    @property
    def choice(self) -> tuple[str, ...]:
        return "kl", "agreement"

    def training_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets)

    def check_targets(self, outputs: Tensor, targets: Tensor) -> None:
        if not isinstance(targets, Tensor) or list(targets.shape) != [len(outputs)] or targets.is_floating_point():
            given = f"{list(targets.shape)} {str(targets.dtype)[6:]}" if isinstance(targets, Tensor) else described(targets)
            raise DataError(f"labels must be [{len(outputs)}] int64, are {given}")
        if len(targets) and int(targets.min()) < 0:
            raise DataError(f"labels must be from 0 to {outputs.shape[1] - 1}, there is {int(targets.min())}")
        if len(targets) and int(targets.max()) >= outputs.shape[1]:
            raise _too_few(int(targets.max()) + 1, outputs)


@attrs.frozen
class PixelLogits(OutputKind):
    """Logits [b, classes, h, w] of a segmentation network; targets are classes [b, h, w] int64, `ignore` for none."""

    ignore: int = 255
    """The target of pixels that are not counted."""

    def check(self, outputs: Any, classes: int | None = None) -> None:
        if not isinstance(outputs, Tensor) or outputs.dim() < 3:
            raise ConfigError(f"the network gives {described(outputs)} where the task needs logits [b, classes, h, w]")
        if (classes or 0) > outputs.shape[1]:
            raise _too_few(classes, outputs)

    def distance(self, original: Tensor, reconstructed: Tensor) -> Tensor:
        return divergence(original, reconstructed)

    def metrics(self) -> Mapping[str, Metric]:
        return {"miou": MeanIoU(ignore=self.ignore), "agreement": Agreement(), "kl": Divergence()}

    @property
    def choice(self) -> tuple[str, ...]:
        return "kl", "agreement"

    def training_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets, ignore_index=self.ignore)

    def check_targets(self, outputs: Tensor, targets: Tensor) -> None:
        counted = targets[targets != self.ignore]
        if targets.shape[0] != outputs.shape[0] or targets[0].numel() != outputs[0, 0].numel():
            raise DataError(f"targets have shape {list(targets.shape)}, the network's outputs {list(outputs.shape)}")
        if counted.numel() and int(counted.max()) >= outputs.shape[1]:
            raise _too_few(int(counted.max()) + 1, outputs)


@attrs.frozen
class Numbers(OutputKind):
    """Numbers of any shape [b, ...], as in regression: mean squared error, chosen by the distance from the original's numbers."""

    def check(self, outputs: Any, classes: int | None = None) -> None:
        if not isinstance(outputs, Tensor) or not outputs.is_floating_point() or outputs.dim() < 1:
            raise ConfigError(f"the network gives {described(outputs)} where the task needs numbers [b, ...]")

    def distance(self, original: Tensor, reconstructed: Tensor) -> Tensor:
        return F.mse_loss(reconstructed, original)

    def metrics(self) -> Mapping[str, Metric]:
        return {"mse": MeanSquaredError(), "mse_original": MeanSquaredError(to="original")}

    @property
    def choice(self) -> tuple[str, ...]:
        return ("mse_original",)

    def training_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(outputs, targets.to(outputs.dtype).reshape(outputs.shape))

    def check_targets(self, outputs: Any, targets: Any) -> None:
        if not isinstance(targets, Tensor) or len(targets) != len(outputs) or targets.numel() != outputs.numel():
            given = list(targets.shape) if isinstance(targets, Tensor) else described(targets)
            raise DataError(f"targets must have as many numbers as the network's outputs {list(outputs.shape)}, are {given}")


@attrs.frozen
class Parts(OutputKind):
    """A tuple or dictionary of outputs, each with its own kind.

    Targets are a tuple or dictionary with the same positions or keys. Parts without targets have no figures that need targets.
    Distances are added; figures are called `part/metric`.
    """

    kinds: Mapping[Any, OutputKind]
    """The kind of each part, by key or position; parts that are missing here are ignored."""

    def check(self, outputs: Any, classes: int | None = None) -> None:
        for key, kind in self.kinds.items():
            try:
                kind.check(outputs[key])
            except (KeyError, IndexError, TypeError) as error:
                raise ConfigError(f"the network gives {described(outputs)}, which has no part '{key}'") from error
            except ConfigError as error:
                raise ConfigError(f"part '{key}' of the network's outputs: {error}") from error

    def distance(self, original: Any, reconstructed: Any) -> Tensor:
        return torch.stack([kind.distance(original[key], reconstructed[key]) for key, kind in self.kinds.items()]).sum()

    def metrics(self) -> Mapping[str, Metric]:
        return {f"{key}/{name}": PartMetric(key, metric) for key, kind in self.kinds.items() for name, metric in kind.metrics().items()}

    @property
    def choice(self) -> tuple[str, ...]:
        return tuple(f"{key}/{kind.choice[0]}" for key, kind in self.kinds.items())

    def training_loss(self, outputs: Any, targets: Any) -> Tensor:
        return torch.stack([kind.training_loss(outputs[key], targets[key]) for key, kind in self.kinds.items()]).sum()

    def check_targets(self, outputs: Any, targets: Any) -> None:
        for key, kind in self.kinds.items():
            part = target_of(targets, key)
            if part is not None:
                kind.check_targets(outputs[key], part)


@attrs.frozen
class PartMetric(Metric):
    """A metric of one part of a network's outputs."""

    key: Any
    """Key or position of the part."""
    metric: Metric

    @property
    def compares(self) -> Literal["targets", "original"]:
        return self.metric.compares

    @property
    def better(self) -> Literal["higher", "lower"]:
        return self.metric.better

    def batch(self, outputs: Any, reference: Any) -> Any:
        part = target_of(reference, self.key)
        return None if part is None else self.metric.batch(outputs[self.key], part)

    def total(self, batches: Any) -> float | None:
        return self.metric.total(batches)


@attrs.frozen
class AnyOutputs(OutputKind):
    """Tensors in any nesting, about which nothing is known; measured by each tensor's relative squared distance from the original's."""

    def check(self, outputs: Any, classes: int | None = None) -> None:
        if not any(value.is_floating_point() for value in tensors_of(outputs)):
            raise ConfigError(f"the network gives {described(outputs)}, in which there is no tensor of floating-point numbers to compare")
        first, *others = tensors_of(outputs)
        compared = [first, *(value for value in others if value.is_floating_point())]
        lengths = {len(value) if value.dim() else None for value in compared}
        if None in lengths or len(lengths) > 1:
            shapes = ", ".join(str(list(value.shape)) for value in compared)
            raise ConfigError(
                f"the network gives {described(outputs)}; each tensor in it must have one entry for each example, and these have the "
                f"shapes {shapes}; let forward return only what belongs to the examples"
            )

    def distance(self, original: Any, reconstructed: Any) -> Tensor:
        pairs = zip(tensors_of(original), tensors_of(reconstructed), strict=True)
        terms = [relative_squares(a, b) for a, b in pairs if a.is_floating_point()]
        return torch.stack([term.mean() for term in terms]).sum()

    def metrics(self) -> Mapping[str, Metric]:
        return {"distance": RelativeDistance()}

    @property
    def choice(self) -> tuple[str, ...]:
        return ("distance",)


@attrs.frozen
class Measured(OutputKind):
    """A kind of outputs with an additional figure as its headline; the choice of checkpoints is not changed."""

    kind: OutputKind
    """The kind of outputs without the figure."""
    name: str
    """Name of the figure."""
    metric: Metric
    """The metric of the figure."""

    def check(self, outputs: Any, classes: int | None = None) -> None:
        self.kind.check(outputs, classes)

    def distance(self, original: Any, reconstructed: Any) -> Tensor:
        return self.kind.distance(original, reconstructed)

    def metrics(self) -> Mapping[str, Metric]:
        return {self.name: self.metric, **self.kind.metrics()}

    @property
    def choice(self) -> tuple[str, ...]:
        return self.kind.choice

    def training_loss(self, outputs: Any, targets: Any) -> Tensor:
        return self.kind.training_loss(outputs, targets)

    def check_targets(self, outputs: Any, targets: Any) -> None:
        self.kind.check_targets(outputs, targets)


def target_of(targets: Any, key: Any) -> Any:
    """The targets of one part, or None where there are none.

    Raises:
        DataError: the targets are no tuple and no dictionary.
    """
    if isinstance(targets, Mapping):
        return targets.get(key)
    if isinstance(targets, (tuple, list)):
        return targets[key] if key < len(targets) else None
    raise DataError(f"the task's targets are {described(targets)} where outputs have parts: give a tuple or dictionary of the same keys")


def divergence(original: Tensor, reconstructed: Tensor) -> Tensor:
    """Mean KL(original ‖ reconstructed) of logits [b, classes, ...] over images and pixels, in nats."""
    target, predicted = (F.log_softmax(rows_of(values), dim=1) for values in (original, reconstructed))
    return F.kl_div(predicted, target, reduction="batchmean", log_target=True)


def kind_of_outputs(outputs: Any) -> OutputKind:
    """The kind of outputs where nobody names one: logits for a single tensor [b, classes], otherwise `AnyOutputs`."""
    return ClassLogits() if isinstance(outputs, Tensor) and outputs.dim() == 2 else AnyOutputs()


def _too_few(classes: int | None, outputs: Tensor) -> DataError:
    return DataError(f"the task has {classes} classes and the network {outputs.shape[1]}; set architecture.classes or another task")
