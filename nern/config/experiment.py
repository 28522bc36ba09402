"""The configuration of a run, as attrs classes."""

from __future__ import annotations

from typing import Literal

import attrs

from nern.interfaces import Architecture, Base, Embedding, Loss, Observer, Optimizer, Predictor, Sampler, Smoother, Task
from nern.options import above, at_least, at_most, below, option
from nern.outputs.metric import Metric
from nern.representation.quantization import Name


@attrs.frozen
class LossTerm:
    """A loss and its part in the objective: weight · loss (Ashkenazi et al. 2023, eq. 2)."""

    loss: Loss
    weight: float = option(1.0, help="factor of the term in the objective (the paper's α and β)", check=at_least(0))
    warmup: int = option(0, help="steps at the start of the phase during which the term is off", check=at_least(0))


@attrs.frozen
class Phase:
    """A part of training with its own length, losses, optimiser, sampler and inputs."""

    iterations: int = option(help="steps", check=at_least(1))
    name: str = option("joint", help="name of the phase in metrics and messages")
    batch: int = option(256, help="images per step; used where a loss needs the networks", check=at_least(1))
    losses: dict[str, LossTerm] | None = option(None, help="losses of this phase instead of the top-level ones")
    sampler: Sampler | None = option(None, help="sampler of this phase instead of the top-level one")
    optimizer: Optimizer | None = option(None, help="optimiser of this phase instead of the top-level one")
    inputs: Task | None = option(None, help="source of training inputs instead of the task's training set")
    mix: float = option(
        0.0, help="part of a batch's images that are replaced by mixtures of two, in random proportion", check=[at_least(0), at_most(1)]
    )
    clip: float | None = option(None, help="largest norm of the gradient; larger ones are scaled down", check=above(0))


@attrs.frozen
class Pretrain:
    """How to train the original network where no weights are given: SGD with momentum and a cosine schedule."""

    weights: str | None = option(None, help="file with the weights from which training starts; null starts from fresh ones")
    epochs: int = option(20, help="passes over the training set", check=at_least(1))
    batch: int = option(128, help="images per step", check=at_least(1))
    lr: float = option(0.1, help="learning rate at the start", check=above(0))
    momentum: float = option(0.9, help="momentum", check=[at_least(0), below(1)])
    weight_decay: float = option(5e-4, help="ℓ2 penalty on every parameter", check=at_least(0))
    smoothness: float = option(0.0, help="factor of the smoothness term (Ashkenazi et al. 2023, eq. 6)", check=at_least(0))


@attrs.frozen
class Experiment:
    """A complete experiment: everything that a run needs."""

    architecture: Architecture = option(help="the original network")
    task: Task = option(help="source of the images")
    phases: list[Phase] = option(help="parts of training, in order; or the name of a recipe whose phases are taken")
    embedding: Embedding = option(help="maps coordinates to vectors")
    predictor: Predictor = option(help="maps vectors to kernels")
    base: Base = option(help="kernels that are added to the predicted ones")
    sampler: Sampler = option(help="which kernels carry gradient in a step")
    smoother: Smoother = option(help="order of the kernels")
    losses: dict[str, LossTerm] = option(help="terms of the objective")
    optimizer: Optimizer = option(help="optimiser of the predictor")
    observers: dict[str, Observer] = option(help="components that watch the run")
    metrics: dict[str, Metric] | None = option(
        None, help="figures of the networks on held-out and test images, the headline first; null takes those of the task's outputs"
    )
    choose_by: str | None = option(
        None, help="name of the metric that chooses the checkpoint on held-out images; null takes the choice of the task's outputs"
    )
    small_kernels: Literal["centre", "average", "max"] = option(
        "centre",
        help="how a kernel smaller than the largest is read from the k × k output: its centre, or averages or maxima of its regions",
    )
    storage: Name = option(
        "float32",
        help="number format of the predictor and the embedding in the file. float16, bfloat16: parameters are rounded when training ends. "
        "int8 to int3: matrices are integers with a step for each row, already during training, and vectors are float16. entropy: "
        "integers with trained steps and a trained distribution, from the first phase with the loss `rate` on",
    )
    bytes: int | None = option(
        None,
        help="size of the whole file that training aims at, with storage entropy; null leaves it to the weight of the loss `rate`",
        check=above(0),
    )
    curvature_batches: int = option(
        500, help="batches of images on which storage entropy measures how much each number matters, before it rounds", check=at_least(0)
    )
    curvature: Literal["numbers", "layers"] = option(
        "numbers",
        help="numbers: storage entropy measures for each single number how much an error in it matters, and chooses steps and rounding "
        "accordingly; layers: it measures this for each layer as a whole, which gets one step and is rounded to the nearest integers. "
        "If the inputs are noise, steps that suit photographs need layers",
    )
    fold_batch_norms: bool = option(
        False,
        help="make the scales of batch norms part of the represented kernels before them, so that only their biases are copied",
    )
    train: list[str] = option(
        factory=list,
        help="copied parameters that are trained, too, in phases whose losses compare outputs: bn for batch norms, classifier for the last "
        "linear layer, patterns of parameter names such as *.bias, or * for all",
    )
    copied: Literal["exact", "float16", "int8"] = option(
        "exact",
        help="number format of copied entries in the file; int8 has a step for each tensor. With storage entropy, copied parameters that "
        "are trained are entropy-coded instead",
    )
    scale_layers: bool = option(
        False,
        help="whether predictions of a layer are multiplied by the root mean square of its original weights (minus the base, where there "
        "is one); takes 4 bytes for each layer",
    )
    keep_zeros: bool = option(
        False, help="whether weights that are exactly zero in the original stay zero, for a pruned network; takes one bit for each weight"
    )
    pretrain: Pretrain | None = option(None, help="trains the original network where architecture.weights is null")
    heldout: float = option(0.1, help="fraction of the training set kept for choosing among checkpoints", check=[at_least(0), below(1)])
    evaluate_every: int = option(
        500, help="steps between evaluations on the held-out images, 0 for the end of each phase only", check=at_least(0)
    )
    curve_points: int = option(
        0,
        help="additional points of the held-out curve in each phase, 0 for none; they are for plots and do not choose checkpoints",
        check=at_least(0),
    )
    curve_images: int = option(500, help="most held-out images on which a point of the curve is measured", check=at_least(1))
    checkpoint_every: int = option(500, help="steps between checkpoints, 0 for the end of each phase only", check=at_least(0))
    log_every: int = option(50, help="steps between reports of the losses", check=at_least(1))
    precision: Literal["float32", "bfloat16", "auto"] = option(
        "auto", help="arithmetic of the networks and the predictor; auto takes bfloat16 where the processor computes in it"
    )
    seed: int = option(0, help="seed of all random numbers", check=[at_least(0), at_most(2**31 - 1)])
    device: str = option("auto", help='"cpu", "cuda", "cuda:1", …; auto takes a GPU where there is one')
    cuda_graphs: bool = option(
        True,
        help="record a step on a GPU once and replay it; false where a component's work depends on more than its input tensors",
    )
    threads: int | None = option(
        None,
        help="CPU threads; null takes one if the steps of the run are too small to gain from more, and otherwise torch's choice",
        check=[at_least(1), at_most(1024)],
    )
    output: str = option("runs/{name}", help="run directory; {name} stands for the preset's or file's name")
    plugins: list[str] = option(factory=list, help="local plugins: Python files, relative to this file, or module names")

    def __attrs_post_init__(self) -> None:
        if not self.phases:
            raise ValueError("phases must hold at least one phase")
        for index, phase in enumerate(self.phases):
            terms = self.losses if phase.losses is None else phase.losses
            if not any(term.weight > 0 and term.warmup == 0 for term in terms.values()):
                raise ValueError(f"phases.{index} has no loss from its first step on: one needs a weight above 0 and no warmup")
        counting = any(self.counts_bits(phase) for phase in self.phases)
        if counting != (self.storage == "entropy"):
            raise ValueError("storage: entropy and a loss that counts bits (rate) belong together: set both or neither")
        if self.bytes is not None and self.storage != "entropy":
            raise ValueError("bytes: a size can be asked for with storage: entropy only")
        if self.curvature != "numbers" and self.storage != "entropy":
            raise ValueError("curvature: it is measured with storage: entropy only")

    def losses_of(self, phase: Phase) -> dict[str, LossTerm]:
        """The terms of a phase's objective."""
        return self.losses if phase.losses is None else phase.losses

    def counts_bits(self, phase: Phase) -> bool:
        """Whether a phase has a loss that counts the bits of the representation."""
        return self._wants(phase, "bits")

    def runs_networks(self, phase: Phase) -> bool:
        """Whether a phase has a loss that compares outputs of the networks."""
        return self._wants(phase, "logits", "outputs", "features")

    def compares_weights(self, phase: Phase) -> bool:
        """Whether a phase has a loss that compares predicted weights with the original's."""
        return self._wants(phase, "weights")

    @property
    def compares_features(self) -> bool:
        """Whether any phase has a loss that compares feature maps."""
        return any(self._wants(phase, "features") for phase in self.phases)

    def _wants(self, phase: Phase, *needs: str) -> bool:
        return any(term.weight > 0 and term.loss.needs in needs for term in self.losses_of(phase).values())


def phase_place(experiment: Experiment, index: int) -> str:
    """The dotted path of a phase in overrides: `phases.distillation`, or `phases.1` where two phases have the same name."""
    names = [phase.name for phase in experiment.phases]
    name = names[index] if index < len(names) else ""
    return f"phases.{name if names.count(name) == 1 else index}"
