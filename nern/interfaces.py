"""The interfaces that plugins implement.

A *component* is an attrs class whose fields are its options (see `nern.option`). It is cheap to make and holds no state; its main
method builds or starts the object that does the work.

A resumed run draws the same numbers as an uninterrupted one. For this, the engine seeds the global generators of torch, NumPy and
Python: by the run's seed before `build`, `start` and `open`, and by seed and step before every step and measurement. A component may
use these generators in all of them, but it must not keep a generator of its own from step to step, unless its `state_dict` holds it.
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

from nern.errors import ConfigError, DataError, OptionError
from nern.launching import Launcher as Launcher
from nern.options import above, at_least, located, option
from nern.outputs.kinds import ClassLogits, OutputKind
from nern.outputs.metric import Metric as Metric
from nern.support.contracts import at_work, broken, described_value
from nern.support.showing import Shown

if TYPE_CHECKING:
    from nern.kernels.coordinates import KernelGrid, LayerMapping
    from nern.kernels.orders import LayerOrder
    from nern.networks.pair import NetworkPair


@functools.cache
def _constants(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation as [1, c, 1, 1] on a device, cached because every upload waits for the device."""
    means, stds = (torch.tensor(values, device=device).view(1, -1, 1, 1) for values in (mean, std))
    return means, stds


def check_mean(mean: Sequence[float]) -> None:
    """Raise OptionError where the means of an image's channels are impossible for values in [0, 1]."""
    if not all(-1 <= value <= 1 for value in mean):
        raise OptionError("mean", f"must be of values in [0, 1], got {_listed(mean)}{_divided(mean)}")


def check_std(std: Sequence[float]) -> None:
    """Raise OptionError where the standard deviations of an image's channels are impossible for values in [0, 1]."""
    if not all(value > 0 for value in std):
        raise OptionError("std", f"must be above 0, got {_listed(std)}: inputs are divided by it")
    if not all(value <= 5 for value in std):
        raise OptionError("std", f"must be of values in [0, 1], got {_listed(std)}{_divided(std)}")


def _listed(values: Sequence[float]) -> str:
    return "[" + ", ".join(f"{value:.6g}" for value in values) + "]"


def _divided(values: Sequence[float]) -> str:
    """The advice to give where the values seem to be meant for images in 0..255."""
    return f"; divided by 255 that is {_listed([value / 255 for value in values])}" if all(abs(value) <= 255 for value in values) else ""


@attrs.frozen
class Preprocessing:
    """How images become inputs of a network: `(x / 255 - mean) / std`, channels first."""

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    """Mean of each channel, for values in [0, 1]."""
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    """Standard deviation of each channel, for values in [0, 1]."""
    size: tuple[int, int, int] = (3, 32, 32)
    """Channels, height, width."""
    resize: int | None = None
    """Length of the shorter side after resizing and before the centre crop, in pixels; None where images already have `size`."""
    interpolation: str = "bilinear"
    """Interpolation of resizing: a name of torchvision's `InterpolationMode`, such as bilinear."""
    squash: bool = False
    """Whether images are resized to a square of side `resize`, which changes their aspect ratio."""

    def __attrs_post_init__(self) -> None:
        check_mean(self.mean)
        check_std(self.std)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 (or float32 from 0 to 255) [b, c, h, w] → float32 [b, c, h, w] on the same device."""
        mean, std = _constants(tuple(self.mean), tuple(self.std), images.device)
        return (images.float() / 255 - mean) / std


@attrs.frozen
class Architecture(ABC):
    """A network: how to build it, which of its layers are represented, and where its feature maps are."""

    weights: str | None = option(None, help="file with the original weights (.safetensors, .pt, .pth, .th)")
    entry: str | None = option(
        None, help="keys that lead to the state dict in a weights file that holds several, joined by dots, such as model_ema"
    )
    rename: dict[str, str] = option(
        factory=dict, help='beginnings of names in the weights file, each with what replaces it in the network, such as {"fc.": "linear."}'
    )
    standalone: ClassVar[bool] = False
    """Whether torch and nern alone can build the network. Where they cannot, a file also holds names and shapes of its parameters,
    so that its weights can be read even where the package that builds the network is missing.
    """
    private: ClassVar[tuple[str, ...]] = ("weights", "entry", "rename")
    """Options that a file does not hold, such as the path of the original weights."""

    @property
    def has_weights(self) -> bool:
        """Whether there are original weights that `load` can load."""
        return self.weights is not None

    @abstractmethod
    def build(self) -> nn.Module:
        """The network with freshly initialised weights.

        In-place activations are allowed: a compared feature map that one changes is copied first;
        `nern.toolkit.architectures.out_of_place` saves that copy.
        """

    def built(self) -> nn.Module:
        """The network of `build`, prepared for loading weights: without `torch.compile`, and with lazy parts initialised.

        Raises:
            ConfigError: an option is impossible for the network, or it cannot take inputs of its size.
        """
        from nern.networks.building import ready

        with located("architecture"), at_work(self, "architecture"):
            network: Any = self.build()
        if not isinstance(network, nn.Module):
            raise broken(self, "architecture", f"build() must give a torch.nn.Module, gave {described_value(network)}")
        with located("architecture"):
            return ready(network, lambda: self.example_inputs(1))

    @abstractmethod
    def layers(self, network: nn.Module) -> Sequence[LayerMapping]:
        """The mappings of the represented layers of `network`, in the order of their layer coordinate."""

    @abstractmethod
    def features(self, network: nn.Module) -> Sequence[str]:
        """Names of the feature maps that distillation compares, in forward order.

        A map is the output of the module with that name, which a forward pass must call exactly once, or a sum of two tensors in a
        module (`block.sum`, then `block.sum2`, …; see `nern.networks.tracing.AdditionTracer`).
        """

    def preprocessing(self) -> Preprocessing:
        """The preprocessing of the network's inputs."""
        return Preprocessing()

    def example_inputs(self, batch: int = 2) -> Any:
        """Example inputs of the network, for tracing it: by default zeros [batch, channels, height, width].

        Override this for a network with other inputs (sequences, tokens, videos, several arguments): return a tensor, a tuple of
        arguments, or a dictionary of arguments by name.
        """
        size = self.preprocessing().size
        try:
            return torch.zeros(batch, *size)
        except RuntimeError as error:
            shape = " × ".join(map(str, size))
            raise ConfigError(f"architecture.size: inputs of {shape} do not fit into memory") from error

    def keep(self, folder: Path) -> None:
        """Write into a run's folder what the run needs to be resumed and could not find elsewhere; by default nothing."""
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
    """Maps integer coordinates to vectors."""

    @abstractmethod
    def build(self, grid: KernelGrid) -> nn.Module:
        """A module with attribute `dim: int` and `forward(coordinates [n, 3] int64) -> [n, dim] float32`.

        Coordinates have more than three columns where the architecture's mappings give more. A module that also takes fractional
        coordinates allows `Representation.predict_at` to interpolate between kernels.

        Where the embedding is a sum or concatenation of one vector per coordinate, a method
        `tables() -> nern.representation.lookup.AxisTables` lets predictors replace their first matrix product by look-ups.
        Parameters of the module are trained with the predictor and stored in the artifact.
        """

    def initialise(self, module: nn.Module, kernels: list[Tensor]) -> None:
        """Change the fresh `module` in place.

        Args:
            kernels: the original kernels of each layer, [filters · channels, kh, kw], in the order of their coordinates, minus the
                kernels of a `Base`.
        """
        return


@attrs.frozen
class Predictor(ABC):
    """Maps embedded coordinates to kernels."""

    @abstractmethod
    def build(self, inputs: int, outputs: int) -> nn.Module:
        """A module with `forward(embedded [n, inputs]) -> [n, outputs]`.

        A `build` with a parameter `grid` also gets the `KernelGrid`. A `forward` with a parameter `rows` also gets the rows of the
        grid that it predicts, [n] int64, and one with a parameter `groups` the group of each row, [n] int64. A module whose
        attribute `wants` is "filters" or "layers" always gets whole filters or layers, one after the other, so that kernels may
        depend on each other; samplers then draw filters or layers instead of kernels. Give such parameters a default, as in `grid:
        KernelGrid | None = None`.

        A module that sets `accepts_lookup = True` may get a `nern.representation.lookup.Lookup` instead of a tensor, and must pass
        it to `nern.representation.lookup.linear`.

        A `forward` with a parameter `columns` receives the indices of the outputs that are needed, [m] int64, or None for all of
        them, and returns [n, m]. Kernels that are smaller than the largest need only some of the outputs.

        A module without parameters, for embeddings that hold all trained parameters, sets `trained_by_embedding = True`.

        A module that can compute all kernels without padding may have a method `whole(embedding) -> Tensor | None`. It returns all
        weights of the grid [weights], kernel after kernel, equal to those of `forward`; or None where it cannot.
        """

    def initialise(self, module: nn.Module, embedded: Tensor, kernels: Tensor) -> None:
        """Change the fresh `module` in place.

        Args:
            embedded: some embedded coordinates, [m, inputs].
            kernels: all original kernels [n, outputs], minus the kernels of a `Base`; where kernels differ in size, their weights
                without padding, reshaped to rows of `outputs`.

        An `initialise` with a parameter `grid` also gets the `KernelGrid`, and one with a parameter `originals` the same kernels by
        layer, [filters · channels, kh, kw] in the order of their coordinates.
        """
        return


@attrs.frozen
class Base(ABC):
    """Kernels that are added to the predicted ones, so that the predictor only represents the difference."""

    @abstractmethod
    def build(self, grid: KernelGrid) -> nn.Module | None:
        """A module with `forward(rows [n] int64) -> [n, k²] float32`, or None where nothing is added.

        Rows are rows of `grid`, and the kernel of a row must not depend on the other rows of the call; smaller kernels are centred
        in their row, as by `KernelGrid.pad_up`. The kernels are added after predictions were scaled, and in float32 whatever dtype
        the predictor computes in.

        The file holds the module's state dict, which counts as the part `base` of its bytes. Shapes must follow from the grid and
        the options alone, and `forward` must need nothing but the state dict. Buffers are stored as they are; parameters are
        trained with the predictor, and stored in the same number format.
        """

    def initialise(self, module: nn.Module, kernels: list[Tensor]) -> None:
        """Change the fresh `module` in place.

        Its kernels are afterwards subtracted from those with which embedding and predictor are initialised.

        Args:
            kernels: the original kernels of each layer, [filters · channels, kh, kw], in the order of their coordinates.
        """
        return


Draw = Callable[[int], Tensor | None]


@attrs.frozen
class Sampler(ABC):
    """Chooses the kernels that carry gradient in a step."""

    @abstractmethod
    def start(self, norms: Tensor, layers: Tensor, seed: int) -> Draw:
        """Prepare draws for n kernels.

        Args:
            norms: ℓ2 norm of every original kernel, [n] float32.
            layers: the position of every kernel's layer, [n] int64.

        Returns a function from the step number to indices [m] int64 into the kernels, on their device, or None for
        every kernel. Its result must depend on the step and `seed` alone: use `nern.support.seeding.generator(seed, step)`.
        A callable object with a method `observe(step, rows, errors)` may take the function's place. After every step that method
        gets the kernels [m] int64 that were drawn, and the mean squared error [m] float32 of each before the step. Everything that
        the object learns must be in its `state_dict()` and come back with `load_state_dict(state)`: checkpoints hold it, so that a
        resumed run draws the same kernels as an uninterrupted one.
        """


@attrs.frozen
class Smoother(ABC):
    """Chooses the order of a layer's kernels: which kernel each coordinate predicts."""

    @abstractmethod
    def order(self, kernels: Tensor) -> LayerOrder:
        """Order one layer. Several layers are ordered at the same time, each on a thread of its own.

        A slow method should call `nern.support.threads.advance` now and then, which reports progress and lets Ctrl-C end it.

        Args:
            kernels: [filters, channels, kh·kw] float32 on the CPU, in the original order.
        """


def _made(value: Tensor | Callable[[], Tensor]) -> Tensor:
    return value if isinstance(value, Tensor) else value()


@attrs.frozen
class Kernels:
    """Some kernels of a network in coordinate order, as losses of weights get them."""

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
        """[m] float32, the number of weights in each kernel, without padding."""
        return _made(self._count)

    def parts(self) -> tuple[Kernels, ...]:
        """The same kernels in groups of equal size, with values [m, kh · kw] without padding; a single group where sizes do not differ."""
        return self._values.parts if isinstance(self._values, PaddedValues) else (self,)

    def beside(self, other: Kernels) -> list[tuple[Kernels, Kernels]]:
        """Pairs of parts of these kernels and of other ones. The values of a pair have the same shape.

        A loss that sums over these pairs needs far less memory than one that uses all `values`, where the largest kernel of a
        network is much larger than most.
        """
        mine, its = self.parts(), other.parts()
        return list(zip(mine, its, strict=True)) if len(mine) == len(its) else [(self, other)]


@attrs.frozen(eq=False)
class PaddedValues:
    """Kernels of several sizes, which are padded to [m, k²] only when the padded tensor is needed."""

    parts: tuple[Kernels, ...]
    pad: Callable[[], Tensor]

    def __call__(self) -> Tensor:
        return self.pad()


@attrs.frozen
class LossContext:
    """Information that a loss can use when a phase starts."""

    grid: KernelGrid
    """The represented kernels."""
    _kernels: Kernels | Callable[[], Kernels]
    networks: NetworkPair
    """The pair of original and reconstructed network."""
    outputs: OutputKind = ClassLogits()
    """The kind of outputs of the task's networks."""
    steps: int = 0
    """Number of steps of the phase."""
    budget: float | None = None
    """Bits that entropy-coded parameters should take; None where no size was asked for."""

    @property
    def kernels(self) -> Kernels:
        """All kernels of the original network: every row of the grid."""
        return self._kernels() if callable(self._kernels) else self._kernels


@attrs.frozen
class Loss(ABC):
    """A scalar that compares the reconstructed network with the original one."""

    needs: ClassVar[Literal["weights", "logits", "outputs", "features", "bits"]]
    """What the loss takes: kernels ("weights"), outputs of the networks ("outputs" or "logits"), feature maps ("features"), or "bits"."""

    needs_targets: ClassVar[bool] = False
    """Whether the loss takes the targets of the batch, such as labels [b] int64, as a third argument."""

    def start(self, context: LossContext) -> Callable[..., Tensor]:
        """The function of (original, reconstructed) for one phase; by default the component itself.

        Where the function keeps something between steps, it must be an object with methods `state_dict` and `load_state_dict`, as
        an optimiser has, so that runs can be resumed.
        """
        return self

    @property
    def is_mean(self) -> bool:
        """Whether the loss is a mean over the images of a batch.

        If it is, each of several processes computes the loss of its own images. If it is not, which is the default, every process
        gets the outputs or feature maps of the whole batch; this is right for every loss, but slow for feature maps. Losses of
        weights always get all weights of a step.
        """
        return False

    def __call__(self, original: Any, reconstructed: Any) -> Tensor:
        """The loss, a scalar that is differentiable in `reconstructed`.

        Both arguments are of the kind that `needs` names. They are `Kernels` for "weights", and lists of feature maps [b, ...] for
        "features". For "outputs" they are the networks' outputs; "logits" means the same, and is a better name for a classifier's
        [b, classes]. For "bits" both are the `StoredBits` of the representation, since there is nothing to compare them with. A loss
        that sets `needs_targets` takes a third argument, `targets: Any = None`.
        """
        raise NotImplementedError


class Data(Shown, ABC):
    """The data of a task.

    Inputs are a tensor [b, ...], which is the network's only argument; a tuple of arguments; or a dictionary of arguments by name.
    Targets are tensors in any nesting, or a list with one entry for each example.
    """

    classes: int | None = None
    """Number of classes of the targets; None where it is unknown, where targets are no classes, or where there are no targets."""
    splits: frozenset[str]
    """The splits that hold examples, among "train", "heldout" and "test"."""
    examples: int | None = None
    """Number of training examples; None where it is unknown. Training an original network needs it, because epochs are counted."""
    gives_targets: bool = False
    """Whether `inputs` gives pairs (inputs, targets), which losses with targets and the training of an original network need."""

    def __repr__(self) -> str:
        order = [split for split in ("train", "heldout", "test") if split in getattr(self, "splits", ())]
        classes = f", {self.classes} classes" if self.classes else ""
        return f"{type(self).__name__}({', '.join(order) or 'nothing'}{classes})"

    @abstractmethod
    def inputs(self, batch: int, seed: int, device: torch.device) -> Callable[[int], Any]:
        """Training inputs: a function from the step number to inputs of `batch` examples on `device`.

        For images these are float32 [batch, c, h, w]; where `gives_targets` is set, they are pairs (inputs, targets).
        The inputs must depend on the number of the step and `seed` alone.
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
        """Check the training images before a run starts, so that a broken one is reported then.

        Raises:
            DataError: an image cannot be read; the message names it.
        """
        return

    @abstractmethod
    def batches(self, split: Literal["heldout", "test"], batch: int, device: torch.device) -> Iterable[tuple[Any, Any]]:
        """All examples of a split as (inputs, targets or None), in a fixed order; for images (float32 [b, c, h, w], labels [b])."""


@attrs.frozen
class Task(ABC):
    """A source of images or other examples."""

    gives_images: ClassVar[bool] = False
    """Whether inputs are always images of the size that the preprocessing names, float32 [b, c, h, w]. Runs and `nern config` then check
    that the network takes such images before any image is opened.
    """

    def check(self, preprocessing: Preprocessing) -> None:
        """Raise an error for options with which `open` cannot work, without looking at images; by default none is raised.

        It is called before a run starts, and by `nern config`.

        Args:
            preprocessing: what the network wants.

        Raises:
            OptionError: an option, such as the folder, is missing or impossible.
            DataError: the network takes other images than the task has.
        """
        return

    @abstractmethod
    def open(self, preprocessing: Preprocessing, heldout: float, seed: int) -> Data:
        """Open the data.

        Args:
            preprocessing: what the network wants.
            heldout: fraction of the training images that is held out from training; `seed` chooses them.

        Raises:
            DataError: the folder is missing, empty or laid out in another way.
        """

    def keep(self, folder: Path) -> None:
        """Write into a run's folder what the run needs to be resumed and could not find elsewhere; by default nothing."""
        return

    def outputs(self) -> OutputKind:
        """The kind of outputs that a network for this task gives; by default logits [b, classes].

        The kind says how outputs are compared, which figures are measured, and which of them chooses the checkpoint.
        """
        return ClassLogits()


@attrs.frozen
class Optimizer(ABC):
    """An optimiser with a schedule, in which the learning rate is a function of the step alone."""

    lr: float = option(help="learning rate at the start of the schedule", check=above(0))
    schedule: Literal["cosine", "linear", "exponential", "constant"] = option("cosine", help="how the rate falls over a phase")
    final_lr: float = option(0.0, help="learning rate at the end of the schedule", check=at_least(0))
    warmup: int = option(0, help="steps over which the rate first rises linearly from zero", check=at_least(0))

    def __attrs_post_init__(self) -> None:
        if self.schedule == "exponential" and self.final_lr == 0:
            raise ValueError("final_lr must be above 0 for the exponential schedule")

    @abstractmethod
    def start(self, parameters: Sequence[tuple[str, nn.Parameter]]) -> list[torch.optim.Optimizer]:
        """Make optimisers that together update every parameter exactly once; their `lr` is the initial learning rate."""

    @property
    def needs_closure(self) -> bool:
        """Whether `step` gets a function that evaluates the objective again; false by default.

        The function sets new gradients and returns the objective, for the same kernels and inputs. An optimiser whose `step` cannot
        be called without such a function, such as torch's LBFGS, gets it in any case.
        """
        return False

    def factor(self, step: int, total: int) -> float:
        """The factor of the initial learning rate at `step` of `total`."""
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
        """Raise an error for options with which the observer cannot work; by default none is raised.

        It is called before a run starts, and by `nern config`.

        Raises:
            OptionError: an option is impossible.
            PluginError: a package that the observer needs is not installed.
        """
