"""What a plugin author implements.

A *component* is an attrs class whose fields are its options (see `nern.option`). It is cheap to make and holds no
state; its one method of substance builds or starts the thing that does the work. Everything random a component does
inside `build` may use torch's global generator, which the engine seeds; work inside a run takes its randomness from
the `seed` it is given and the step number, so that a resumed run draws what an uninterrupted one would.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import attrs
import torch
from torch import Tensor, nn

from nern.errors import DataError
from nern.launching import Launcher as Launcher
from nern.options import OptionError, above, at_least, located, option
from nern.outputs.kinds import ClassLogits, OutputKind
from nern.outputs.metric import Metric as Metric
from nern.support.showing import Shown

if TYPE_CHECKING:
    from nern.kernels.coordinates import KernelGrid, LayerMapping
    from nern.kernels.orders import LayerOrder
    from nern.networks.pair import NetworkPair


@functools.cache
def _constants(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Both as [1, c, 1, 1], uploaded once: an upload waits for the device."""
    means, stds = (torch.tensor(values, device=device).view(1, -1, 1, 1) for values in (mean, std))
    return means, stds


def check_mean(mean: Sequence[float]) -> None:
    """Raise OptionError where the means of an image's channels are no means of values in [0, 1]."""
    if not all(-1 <= value <= 1 for value in mean):
        raise OptionError("mean", f"must be of values in [0, 1], got {_listed(mean)}{_divided(mean)}")


def check_std(std: Sequence[float]) -> None:
    """Raise OptionError where the standard deviations of an image's channels are no deviations of values in [0, 1]."""
    if not all(value > 0 for value in std):
        raise OptionError("std", f"must be above 0, got {_listed(std)}: inputs are divided by it")
    if not all(value <= 5 for value in std):
        raise OptionError("std", f"must be of values in [0, 1], got {_listed(std)}{_divided(std)}")


def _listed(values: Sequence[float]) -> str:
    return "[" + ", ".join(f"{value:.6g}" for value in values) + "]"


def _divided(values: Sequence[float]) -> str:
    """The way out where values in 0..255 were meant."""
    return f"; divided by 255 that is {_listed([value / 255 for value in values])}" if all(abs(value) <= 255 for value in values) else ""


@attrs.frozen
class Preprocessing:
    """How images become inputs of a network: `(x / 255 - mean) / std`, channels first."""

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    """Of each channel, for values in [0, 1]."""
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    """Of each channel, for values in [0, 1]."""
    size: tuple[int, int, int] = (3, 32, 32)
    """Channels, height, width."""
    resize: int | None = None
    """Shorter side before the centre crop, in pixels; None where images have `size` already."""
    interpolation: str = "bilinear"
    """How `resize` does it: a name of torchvision's `InterpolationMode`, such as bilinear."""
    squash: bool = False
    """Whether `resize` is both sides, whatever that does to the aspect ratio."""

    def __attrs_post_init__(self) -> None:
        check_mean(self.mean)
        check_std(self.std)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 (or float32 from 0 to 255) [b, c, h, w] → float32 [b, c, h, w] on the same device."""
        mean, std = _constants(tuple(self.mean), tuple(self.std), images.device)
        return (images.float() / 255 - mean) / std


@attrs.frozen
class Architecture(ABC):
    """A convolutional network: how to build it, which convolutions are represented, and where its feature maps are."""

    weights: str | None = option(None, help="file with the original weights (.safetensors, .pt, .pth, .th)")
    entry: str | None = option(
        None, help="keys that lead to the state dict in a weights file that holds several, joined by dots, such as model_ema"
    )
    rename: dict[str, str] = option(
        factory=dict, help='beginnings of names in the weights file and what the network has in their place, such as {"fc.": "linear."}'
    )
    standalone: ClassVar[bool] = False
    """Whether torch and nern alone build the network; otherwise a file also holds names and shapes of its parameters, so that its
    weights can be read where the package that builds the network is missing.
    """
    private: ClassVar[tuple[str, ...]] = ("weights", "entry", "rename")
    """Options that a file does not hold: where the original weights lie is nobody else's business."""

    @property
    def has_weights(self) -> bool:
        """Whether `load` knows where to find original weights."""
        return self.weights is not None

    @abstractmethod
    def build(self) -> nn.Module:
        """The network with freshly initialised weights.

        Activations may work in place. A feature map that is compared and then changed is copied first;
        `nern.toolkit.architectures.out_of_place` saves the copy.
        """

    def built(self) -> nn.Module:
        """The network of `build`, ready for its weights: without `torch.compile`, and with shapes for lazy parts.

        Raises:
            ConfigError: an option is impossible for the network, or it cannot take inputs of its size.
        """
        from nern.networks.building import ready

        with located("architecture"):
            return ready(self.build(), lambda: self.example_inputs(1))

    @abstractmethod
    def layers(self, network: nn.Module) -> Sequence[LayerMapping]:
        """The represented convolutions of `network`, in the order of their layer coordinate."""

    @abstractmethod
    def features(self, network: nn.Module) -> Sequence[str]:
        """Names of the feature maps that distillation compares, in forward order.

        A map is the output of the module of that name, which a forward pass calls once, or a sum of two tensors in a
        module (`block.sum`, then `block.sum2`, …; see `nern.networks.tracing.AdditionTracer`).
        """

    def preprocessing(self) -> Preprocessing:
        """How the network wants its inputs."""
        return Preprocessing()

    def example_inputs(self, batch: int = 2) -> Any:
        """Inputs that the network can run on, to see what it does: zeros [batch, channels, height, width] by default.

        A network that takes something else (sequences, tokens, videos, several arguments) says so here: a tensor, a tuple of
        arguments, or a dictionary of arguments by name.
        """
        return torch.zeros(batch, *self.preprocessing().size)

    def keep(self, folder: Path) -> None:
        """Leave in a run's folder what it needs to be resumed and cannot find anywhere else; by default that is nothing."""
        return

    def load(self, network: nn.Module) -> dict[str, torch.dtype]:
        """Load `weights` into `network`; returns the stored dtype of every entry of its state dict.

        Raises:
            DataError: the file is missing, unreadable or holds another network's weights.
        """
        from nern.networks.state_dicts import load_weights

        assert self.weights is not None
        return load_weights(network, self.weights, entry=self.entry, rename=self.rename)


@attrs.frozen
class Embedding(ABC):
    """Integer coordinates to vectors."""

    @abstractmethod
    def build(self, grid: KernelGrid) -> nn.Module:
        """A module with attribute `dim: int` and `forward(coordinates [n, 3] int64) -> [n, dim] float32`.

        There are more than three columns where the architecture's mappings have more. A module that takes fractional
        coordinates, too, lets `Representation.predict_at` look between kernels.

        Where the embedding is a sum or concatenation of one vector per coordinate, a method
        `tables() -> nern.representation.lookup.AxisTables` lets predictors replace their first matrix product by look-ups.
        Parameters of the module are trained with the predictor and stored in the artifact.
        """

    def initialise(self, module: nn.Module, kernels: list[Tensor]) -> None:
        """Change the fresh `module` in place.

        Args:
            kernels: the original kernels of each layer, [filters · channels, kh, kw], in the order of their coordinates, less
                what a `Base` adds.
        """
        return


@attrs.frozen
class Predictor(ABC):
    """Embedded coordinates to kernels."""

    @abstractmethod
    def build(self, inputs: int, outputs: int) -> nn.Module:
        """A module with `forward(embedded [n, inputs]) -> [n, outputs]`.

        A `build` with a parameter `grid` is handed the `KernelGrid`. A `forward` with a parameter `rows` is handed which
        rows of the grid it predicts, [n] int64, and one with `groups` which group each row belongs to, [n] int64. A module
        whose attribute `wants` is "filters" or "layers" is always handed whole filters or layers, one behind the other, so
        that kernels may depend on each other; samplers then draw these in place of kernels. Give such parameters a default,
        as in `grid: KernelGrid | None = None`.

        A module that sets `accepts_lookup = True` may be handed a `nern.representation.lookup.Lookup` instead of a tensor, and
        passes it to `nern.representation.lookup.linear`.

        A module without parameters of its own, for embeddings that hold all that is trained, sets
        `trained_by_embedding = True`.

        A module that knows every kernel at its own size may have `whole(embedding) -> Tensor | None`: all weights of the grid
        [weights], kernel after kernel without padding, the same that `forward` gives, or None where it does not know them.
        """

    def initialise(self, module: nn.Module, embedded: Tensor, kernels: Tensor) -> None:
        """Change the fresh `module` in place.

        Args:
            embedded: some embedded coordinates, [m, inputs].
            kernels: all original kernels [n, outputs], less what a `Base` adds; where they differ in size, their weights
                without padding, in rows of `outputs`.

        An `initialise` with a parameter `grid` is handed the `KernelGrid`, one with `originals` these kernels layer by
        layer, [filters · channels, kh, kw] in the order of their coordinates.
        """
        return


@attrs.frozen
class Base(ABC):
    """What is added to predicted kernels: the predictor then stands for the rest."""

    @abstractmethod
    def build(self, grid: KernelGrid) -> nn.Module | None:
        """A module with `forward(rows [n] int64) -> [n, k²] float32`, or None where nothing is added.

        Rows are those of `grid`, and each is given what it is given among any others; smaller kernels stand in the middle of
        their row, as `KernelGrid.pad_up` puts them. What is added comes behind the scales of layers, and in float32 whatever
        the predictor computes in.

        The file holds the module's state dict and shows its bytes as the part `base`: shapes follow from the grid and the
        options alone, and what comes back with `load_state_dict` must be all that `forward` needs. Buffers stand in the file
        as they are; parameters are trained with the predictor, and stored as its numbers are.
        """

    def initialise(self, module: nn.Module, kernels: list[Tensor]) -> None:
        """Change the fresh `module` in place.

        What it adds is then taken away from the kernels that the embedding and the predictor are initialised with.

        Args:
            kernels: the original kernels of each layer, [filters · channels, kh, kw], in the order of their coordinates.
        """
        return


Draw = Callable[[int], Tensor | None]


@attrs.frozen
class Sampler(ABC):
    """Which kernels carry gradient in a step."""

    @abstractmethod
    def start(self, norms: Tensor, layers: Tensor, seed: int) -> Draw:
        """Prepare draws for n kernels.

        Args:
            norms: ℓ2 norm of every original kernel, [n] float32.
            layers: the position of its layer, [n] int64.

        Returns a function from the step number to indices [m] int64 into the kernels, on their device, or None for
        every kernel. It depends on nothing but its argument and `seed`: use `nern.support.seeding.generator(seed, step)`.
        An object that is called in its place may have `observe(step, rows, errors)`: it is told after every step which
        kernels [m] int64 were drawn and the mean squared error [m] float32 of each before the step. What it learns from them
        must be in its `state_dict()` and come back with `load_state_dict(state)`: checkpoints hold it, so that a resumed
        run draws what an uninterrupted one would.
        """


@attrs.frozen
class Smoother(ABC):
    """The order in which a layer's kernels meet its coordinates."""

    @abstractmethod
    def order(self, kernels: Tensor) -> LayerOrder:
        """Order one layer. Several layers are ordered at a time, each on a thread of its own.

        Long ones may call `nern.support.threads.advance`, which shows progress and lets Ctrl-C end them.

        Args:
            kernels: [filters, channels, kh·kw] float32 on the CPU, in the original order.
        """


def _made(value: Tensor | Callable[[], Tensor]) -> Tensor:
    return value if isinstance(value, Tensor) else value()


@attrs.frozen
class Kernels:
    """Some kernels of a network in coordinate order, as weight losses see them."""

    _values: Tensor | Callable[[], Tensor]
    _index: Tensor | Callable[[], Tensor]
    _layer: Tensor | Callable[[], Tensor]
    _count: Tensor | Callable[[], Tensor]

    @property
    def values(self) -> Tensor:
        """[m, k²] float32; entries that a smaller kernel does not have are zero."""
        return _made(self._values)

    @property
    def index(self) -> Tensor:
        """[m] int64, rows of the grid."""
        return _made(self._index)

    @property
    def layer(self) -> Tensor:
        """[m] int64, the position of each kernel's layer."""
        return _made(self._layer)

    @property
    def count(self) -> Tensor:
        """[m] float32, weights a row really has."""
        return _made(self._count)

    def parts(self) -> tuple[Kernels, ...]:
        """The same kernels in groups of one size each, where they are many and differ: values [m, kh · kw] without padding."""
        return self._values.parts if isinstance(self._values, PaddedValues) else (self,)

    def beside(self, other: Kernels) -> list[tuple[Kernels, Kernels]]:
        """Both kernels of a step in pairs of parts whose values have the same shape.

        A loss that adds up over these needs far less memory than one that asks for all `values` of a network whose
        largest kernel is much larger than most.
        """
        mine, its = self.parts(), other.parts()
        return list(zip(mine, its, strict=True)) if len(mine) == len(its) else [(self, other)]


@attrs.frozen(eq=False)
class PaddedValues:
    """Kernels of several sizes, which are padded to [m, k²] when somebody asks for that."""

    parts: tuple[Kernels, ...]
    pad: Callable[[], Tensor]

    def __call__(self) -> Tensor:
        return self.pad()


@attrs.frozen
class LossContext:
    """What a loss may look at before training starts."""

    grid: KernelGrid
    """The represented kernels."""
    _kernels: Kernels | Callable[[], Kernels]
    networks: NetworkPair
    """The original and the reconstructed network, as losses of outputs see them."""
    outputs: OutputKind = ClassLogits()
    """What the task's networks give."""
    steps: int = 0
    """Steps of the phase."""
    budget: float | None = None
    """Bits that what is coded should come to; None where no size was asked for."""

    @property
    def kernels(self) -> Kernels:
        """The kernels of the original network: every row of the grid."""
        return self._kernels() if callable(self._kernels) else self._kernels


@attrs.frozen
class Loss(ABC):
    """A scalar that compares the reconstructed network with the original one."""

    needs: ClassVar[Literal["weights", "logits", "outputs", "features", "bits"]]
    """What is compared: kernels ("weights"), what the networks give ("outputs" or "logits"), feature maps, or what is stored ("bits")."""

    needs_targets: ClassVar[bool] = False
    """Whether the loss is called with the targets of the batch as a third argument, for example with labels [b] int64."""

    def start(self, context: LossContext) -> Callable[..., Tensor]:
        """The function of (original, reconstructed) for one phase; by default the component itself.

        A function that keeps something from one step to the next has methods `state_dict` and `load_state_dict`, as an
        optimiser has, so that a run can resume.
        """
        return self

    @property
    def is_mean(self) -> bool:
        """Whether the loss is a mean over the images of a batch.

        Several processes then each take the loss of their own images. A loss that is not, which is what the default
        says, is handed the whole batch's logits or feature maps in every process: right for any loss, and slow for
        feature maps. Losses of weights always see all weights of a step.
        """
        return False

    def __call__(self, original: Any, reconstructed: Any) -> Tensor:
        """The loss, a scalar that is differentiable in `reconstructed`.

        Both arguments are `Kernels` where `needs` is "weights", what the networks give where it is "outputs" (or "logits",
        which means the same and reads better for a classifier's [b, classes]), and lists of feature maps [b, ...] where it
        is "features". Where it is "bits", both are the `StoredBits` of the representation: there is nothing to compare them with.
        A loss that sets `needs_targets` takes a third argument, `targets: Any = None`.
        """
        raise NotImplementedError


class Data(Shown, ABC):
    """An opened task.

    Inputs are a tensor [b, ...], the network's one argument; a tuple of its arguments; or a dictionary of its arguments by
    name. Targets are tensors in any nesting, or a list with one entry for each example.
    """

    classes: int | None = None
    """Number of classes that the targets distinguish; None where they are no classes, or there are none."""
    splits: frozenset[str]
    """Which of "train", "heldout" and "test" hold examples."""
    examples: int | None = None
    """How many training examples there are; training an original network needs to know, since it counts in epochs."""
    gives_targets: bool = False
    """Whether `inputs` gives pairs (inputs, targets), for losses that need targets and for training an original network."""

    def __repr__(self) -> str:
        order = [split for split in ("train", "heldout", "test") if split in getattr(self, "splits", ())]
        classes = f", {self.classes} classes" if self.classes else ""
        return f"{type(self).__name__}({', '.join(order) or 'nothing'}{classes})"

    @abstractmethod
    def inputs(self, batch: int, seed: int, device: torch.device) -> Callable[[int], Any]:
        """Training inputs: a function from the step number to inputs of `batch` examples on `device`.

        For images these are float32 [batch, c, h, w]; where `gives_targets` is set, they are pairs (inputs, targets).
        What a step gives depends on its number and `seed` alone.
        """

    def pairs(self, batch: int, seed: int, device: torch.device) -> Callable[[int], tuple[Any, Any]]:
        """Training inputs with their targets: a function from the step number to (inputs, targets).

        Raises:
            DataError: there are no targets for training inputs.
        """
        if not self.gives_targets:
            raise DataError("the task gives no targets with its training inputs; take another one, or a loss without needs_targets")
        return self.inputs(batch, seed, device)

    def check(self) -> None:
        """Look at the training images before a run is started with them, so that a broken one is known then.

        Raises:
            DataError: one cannot be read; names it.
        """
        return

    @abstractmethod
    def batches(self, split: Literal["heldout", "test"], batch: int, device: torch.device) -> Iterable[tuple[Any, Any]]:
        """All examples of a split as (inputs, targets or None), in a fixed order; for images (float32 [b, c, h, w], labels [b])."""


@attrs.frozen
class Task(ABC):
    """Where images come from."""

    def check(self, preprocessing: Preprocessing) -> None:
        """Refuse options with which `open` cannot work, without looking at images; the default refuses nothing.

        It is called before a run starts, and by `nern config`.

        Args:
            preprocessing: what the network wants.

        Raises:
            OptionError: an option, such as the folder, is missing or impossible.
            DataError: the network wants other images than the task has.
        """
        return

    @abstractmethod
    def open(self, preprocessing: Preprocessing, heldout: float, seed: int) -> Data:
        """Find the images.

        Args:
            preprocessing: what the network wants.
            heldout: fraction of the training images, chosen by `seed`, that training never sees.

        Raises:
            DataError: the folder is missing, empty or laid out in another way.
        """

    def keep(self, folder: Path) -> None:
        """Leave in a run's folder what it needs to be resumed and cannot find anywhere else; by default that is nothing."""
        return

    def outputs(self) -> OutputKind:
        """What a network for this task gives; by default logits [b, classes].

        It says how two sets of outputs are compared, which figures are taken and which of them chooses the checkpoint.
        """
        return ClassLogits()


@attrs.frozen
class Optimizer(ABC):
    """An optimiser with its schedule; the learning rate is a function of the step alone."""

    lr: float = option(help="learning rate at the start of the schedule", check=above(0))
    schedule: Literal["cosine", "linear", "exponential", "constant"] = option("cosine", help="how the rate falls over a phase")
    final_lr: float = option(0.0, help="learning rate at the end of the schedule", check=at_least(0))
    warmup: int = option(0, help="steps over which the rate first rises linearly from zero", check=at_least(0))

    def __attrs_post_init__(self) -> None:
        if self.schedule == "exponential" and self.final_lr == 0:
            raise ValueError("final_lr must be above 0 for the exponential schedule")

    @abstractmethod
    def start(self, parameters: Sequence[tuple[str, nn.Parameter]]) -> list[torch.optim.Optimizer]:
        """Optimisers that together step every parameter; their own `lr` is the rate at the schedule's start."""

    @property
    def needs_closure(self) -> bool:
        """Whether `step` is given a function that evaluates the objective again; false by default.

        It leaves new gradients and returns the objective, for the same kernels and inputs. An optimiser whose `step` cannot
        be called without one, such as torch's LBFGS, is given it in any case.
        """
        return False

    def factor(self, step: int, total: int) -> float:
        """The multiple of the initial learning rate at `step` of `total`."""
        import math

        progress = min(step / max(total, 1), 1.0)
        end = self.final_lr / self.lr
        if self.schedule == "cosine":
            value = end + (1 - end) * (1 + math.cos(math.pi * progress)) / 2
        elif self.schedule == "linear":
            value = end + (1 - end) * (1 - progress)
        elif self.schedule == "exponential":
            value = end**progress
        else:
            value = 1.0
        return value * min(1.0, (step + 1) / (self.warmup + 1))


@attrs.frozen
class Observer:
    """Watches a run: implement any of the `nern_run_started`, `nern_step`, … hooks as methods marked `@hookimpl`."""

    def check(self) -> None:
        """Refuse options with which the observer cannot work; the default refuses nothing.

        It is called before a run starts, and by `nern config`.

        Raises:
            OptionError: an option is impossible.
            PluginError: a package that the observer needs is not installed.
        """
