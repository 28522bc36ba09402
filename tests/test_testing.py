"""The published contract checks: every built-in passes, and each check can fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from nern import (
    Architecture,
    Embedding,
    LayerMapping,
    Loss,
    Observer,
    Optimizer,
    Predictor,
    Preprocessing,
    Sampler,
    Smoother,
    hookimpl,
    option,
    testing,
)
from nern.builtin.architectures.cifar_resnet import CifarResNet
from nern.builtin.predictors.mlp import MLP
from nern.builtin.samplers.uniform import Uniform
from nern.builtin.tasks.noise import NoiseData, UniformNoise
from nern.embedded import AxisTables
from nern.errors import NernError
from nern.ordering import KernelOrder
from nern.registry import KINDS, Entry, create_registry
from nern.testing import small

BUILTINS = create_registry(entry_points=False)

#: Options of components that need some, or that are large or slow with their defaults.
OPTIONS: dict[str, dict[str, Any]] = {
    "cifar-resnet": {"depth": 8, "width": 4, "size": 16},
    "imagenet-resnet": {"size": 32},
    "squeezenet": {"size": 32},
    "timm": {"model": "test_resnet.r160_in1k"},
    "torchvision": {"model": "squeezenet1_1", "size": 32},
    "wandb": {"mode": "offline"},
    "clearml": {"offline": True},
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/ and test/ with 100 classes, one image of noise in each."""
    root = tmp_path_factory.mktemp("images")
    noise = np.random.default_rng(0)
    for split in ("train", "test", "val"):
        for index in range(100):
            folder = root / split / f"{index:03}"
            folder.mkdir(parents=True)
            Image.fromarray(noise.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / "0.png")
    return root


def component(entry: Entry, **options: Any) -> Any:
    return entry.cls(**OPTIONS.get(entry.name, {}), **options)


def of(kind: str) -> list[Any]:
    return [pytest.param(entry, id=entry.name) for entry in BUILTINS.entries(kind)]


@pytest.mark.parametrize("kind", KINDS)
def test_there_is_a_check_for_every_extension_point(kind):
    assert f"check_{kind}" in testing.__all__
    assert BUILTINS.entries(kind)


@pytest.mark.parametrize("entry", of("architecture"))
def test_builtin_architecture(entry):
    testing.check_architecture(component(entry))


@pytest.mark.parametrize("kind", ["embedding", "predictor", "sampler", "smoother", "loss", "optimizer"])
def test_builtin_components(kind):
    for entry in BUILTINS.entries(kind):
        getattr(testing, f"check_{kind}")(component(entry))


def choices(kind: str) -> list[Any]:
    """Every alternative of every option that is a choice between words or a switch, the rest at their defaults."""
    found = []
    for entry in BUILTINS.entries(kind):
        for info in attrs.fields(attrs.resolve_types(entry.cls)):
            values = getattr(info.type, "__args__", ()) if "Literal" in str(info.type) else (True, False) if info.type is bool else ()
            found += [pytest.param(entry, {info.name: value}, id=f"{entry.name}-{info.name}-{value}") for value in values]
    return found


@pytest.mark.parametrize(("entry", "options"), [*choices("embedding"), *choices("predictor"), *choices("sampler"), *choices("loss")])
def test_builtin_choices(entry, options):
    try:
        made = component(entry, **options)
    except ValueError:
        pytest.skip("this choice needs another option")
    getattr(testing, f"check_{entry.kind}")(made)


@pytest.mark.parametrize("entry", of("task"))
def test_builtin_task(entry, images, monkeypatch):
    root = {"root": str(images)} if any(field.name == "root" for field in attrs.fields(entry.cls)) else {}
    if entry.name == "cifar10":
        root = {"root": str(_fewer_classes(images, 10))}
    if "imagenet" in entry.name:
        pytest.skip("its thousand classes are tested on the real sample")
    size = (1, 8, 8) if entry.name == "digits" else (3, 32, 32)
    statistics = {"mean": (0.3,), "std": (0.4,)} if entry.name == "digits" else {}
    testing.check_task(component(entry, **root), Preprocessing(size=size, **statistics))


def _fewer_classes(images: Path, classes: int) -> Path:
    root = images.parent / f"images-{classes}"
    for split in ("train", "test"):
        (root / split).mkdir(parents=True, exist_ok=True)
        for index in range(classes):
            link = root / split / f"{index:03}"
            if not link.exists():
                link.symlink_to(images / split / f"{index:03}")
    return root


@pytest.mark.parametrize("entry", of("observer"))
def test_builtin_observer(entry, monkeypatch, tmp_path):
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "CLEARML_CACHE_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("CLEARML_OFFLINE_MODE", "1")
    try:
        testing.check_observer(component(entry))
    except NernError as error:
        pytest.skip(f"an optional package is missing: {error}")


def test_checked_run_calls_every_observer_hook():
    from nern.observing import OBSERVER_HOOKS

    assert {hook for hook, _ in small.run(Path(), None)} == set(OBSERVER_HOOKS)


# -- each check can fail -------------------------------------------------------------------------------------------------


def fails(check: str, component: Any, message: str, *more: Any) -> None:
    with pytest.raises(AssertionError) as error:
        getattr(testing, f"check_{check}")(component, *more)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@attrs.frozen
class NoHelp(MLP):
    """An option without help."""

    hidden: int = 8


@attrs.frozen
class NoDocstring(MLP):
    hidden: int = option(8, help="hidden size")


@attrs.frozen
class LosesOption(MLP):
    """An option that YAML changes."""

    hidden: int = option(8, help="hidden size")
    scale: tuple[float, ...] = option((1.0, 2.0), help="some scales")

    def __eq__(self, other: object) -> bool:
        return self is other


def test_options_are_checked():
    fails("predictor", NoHelp(), "option 'hidden' of NoHelp has no help")
    fails("predictor", NoDocstring(), "NoDocstring needs a docstring")
    fails("predictor", LosesOption(), "after a round through YAML")
    fails("predictor", Uniform(), "Uniform is not derived from nern.Predictor")


class Tiny(nn.Module):
    """A network with a represented layer, and mistakes on demand."""

    def __init__(self, mistake: str) -> None:
        super().__init__()
        self.mistake = mistake
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.unused = nn.Conv2d(4, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.linear = nn.Linear(4, 5)
        if mistake == "tensor":
            self.shift = torch.zeros(4, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.conv(x))
        x = F.relu(x)
        if self.mistake == "tensor":
            x = x + self.shift
        if self.mistake == "random":
            x = F.dropout(x, 0.5, training=True)
        x = self.linear(x.mean((2, 3)))
        return x[0] if self.mistake == "shape" else x


class BadJoin(LayerMapping):
    def join(self, kernels):
        return kernels.reshape(self.shape).flip(0)


class Detached(LayerMapping):
    def join(self, kernels):
        rebuilt = kernels.reshape(self.shape)
        return torch.cat([rebuilt[:1].detach(), rebuilt[1:]])


@attrs.frozen
class Wrong(Architecture):
    """An architecture with a mistake."""

    mistake: str = option("none", help="which mistake")

    def build(self):
        if self.mistake == "seed":
            torch.manual_seed(int(torch.randint(1 << 30, (), generator=torch.Generator().manual_seed(id(object()) % 1000 + len(SEEDS)))))
            SEEDS.append(1)
        return Tiny(self.mistake)

    def layers(self, network):
        cls = {"join": BadJoin, "detached": Detached}.get(self.mistake, LayerMapping)
        shape = (4, 3, 3, 3)
        layers = [
            cls("missing.weight" if self.mistake == "name" else "conv.weight", shape if self.mistake != "mapping" else (4, 3, 1, 1), 0)
        ]
        if self.mistake == "twice":
            layers.append(LayerMapping("unused.weight", (4, 4, 3, 3), 0))
        if self.mistake == "unused":
            layers.append(LayerMapping("unused.weight", (4, 4, 3, 3), 1))
        return [] if self.mistake == "empty" else layers

    def features(self, network):
        return {"feature": ["nothing"], "order": ["linear", "norm"], "uncalled": ["unused"]}.get(self.mistake, ["norm"])

    def load(self, network):
        dtypes = super().load(network)
        if self.mistake == "load":
            network.conv.weight.data.zero_()
        return {} if self.mistake == "dtypes" else dtypes


SEEDS: list[int] = []


@pytest.mark.parametrize(
    ("mistake", "message"),
    {
        "seed": "build() gives other weights under the same seed",
        "empty": "layers() gives no layer",
        "name": "layer 'missing.weight' is no entry",
        "mapping": "layer 'conv.weight' has shape [4, 3, 3, 3], its mapping says [4, 3, 1, 1]",
        "join": "join() does not invert split()",
        "detached": "join() passes gradients for 81 of 108 weights",
        "twice": "two kernels have the same coordinates",
        "feature": "features() names 'nothing'",
        "order": "features() must be in forward order",
        "uncalled": "features() must be in forward order",
        "random": "the network in eval mode gives other logits each time",
        "shape": "the network must give logits [b, classes], gave [5]",
        "unused": "layer 'unused.weight' does not reach the logits",
        "load": "load() does not give back the weights",
        "dtypes": "load() must return the dtype of every entry",
        "tensor": "tensor 'shift' of the network is neither parameter nor buffer",
    }.items(),
)
def test_check_architecture_fails(mistake, message):
    fails("architecture", Wrong(mistake=mistake), message)


def test_check_architecture_passes_without_a_mistake():
    testing.check_architecture(Wrong())
    testing.check_architecture(CifarResNet(depth=8, width=2, size=8))


class Vectors(nn.Module):
    """An embedding module with mistakes on demand."""

    def __init__(self, mistake: str) -> None:
        super().__init__()
        self.mistake = mistake
        if mistake != "dim":
            self.dim = 5
        self.table = nn.Parameter(torch.randn(9, 5))
        self.unreached = nn.Parameter(torch.zeros(3)) if mistake == "unreached" else None
        self.seen = torch.randn(5) if mistake == "hidden" else None
        if mistake == "stays":
            self.helper = [torch.ones(5)]

    def forward(self, coordinates):
        vectors = self.table[coordinates].sum(1)
        if self.seen is not None:
            vectors = vectors + float(self.seen[0])
        return {
            "shape": vectors[:, :3],
            "double": vectors.double(),
            "nan": vectors / 0,
            "constant": vectors * 0 + 1,
            "mixed": vectors - vectors.mean(0),
        }.get(self.mistake, vectors + torch.ones(5) if self.mistake == "cpu" else vectors)


@attrs.frozen
class WrongEmbedding(Embedding):
    """An embedding with a mistake."""

    mistake: str = option("none", help="which mistake")

    def build(self, grid):
        return Vectors(self.mistake)


@pytest.mark.parametrize(
    ("mistake", "message"),
    {
        "dim": "needs an attribute 'dim'",
        "shape": "forward(coordinates) must have shape [36, 5], has [36, 3]",
        "double": "must be float32, is torch.float64",
        "nan": "values that are not finite",
        "constant": "every coordinate gets the same vector",
        "mixed": "a row's vector depends on the other rows",
        "unreached": "no gradient reaches parameter 'unreached'",
        "hidden": "has state that is not in its state dict",
        "stays": "tensor 'helper' of the embedding is neither parameter nor buffer",
        "cpu": "mixes devices after a move",
    }.items(),
)
def test_check_embedding_fails(mistake, message):
    fails("embedding", WrongEmbedding(mistake=mistake), message)


def test_check_embedding_compares_tables():
    class Module(Vectors):
        def tables(self):
            return AxisTables((torch.zeros(9, 5),) * 3, (0, 0, 0), 5)

    @attrs.frozen
    class Tables(Embedding):
        """Tables that say something else."""

        def build(self, grid):
            return Module("none")

    fails("embedding", Tables(), "tables() and forward() give different embeddings")
    testing.check_embedding(WrongEmbedding())


class Kernels(nn.Module):
    """A predictor module with mistakes on demand."""

    def __init__(self, inputs: int, outputs: int, mistake: str) -> None:
        super().__init__()
        self.mistake, self.accepts_lookup = mistake, mistake == "lookup"
        self.linear = nn.Linear(inputs, outputs)
        if mistake == "untrained":
            self.linear.requires_grad_(False)

    def forward(self, embedded):
        if not isinstance(embedded, torch.Tensor):
            return self.linear(embedded.dense()) + 1
        return {
            "shape": self.linear(embedded)[:, :4],
            "detached": self.linear(embedded.detach()),
            "mixed": self.linear(embedded - embedded.mean(0)),
        }.get(self.mistake, self.linear(embedded))


@attrs.frozen
class WrongPredictor(Predictor):
    """A predictor with a mistake."""

    mistake: str = option("none", help="which mistake")

    def build(self, inputs, outputs):
        return nn.Identity() if self.mistake == "empty" else Kernels(inputs, outputs, self.mistake)

    def initialise(self, module, embedded, kernels):
        if self.mistake == "seed":
            nn.init.constant_(module.linear.weight, len(SEEDS) + 1)
            SEEDS.append(1)


@pytest.mark.parametrize(
    ("mistake", "message"),
    {
        "seed": "build() and initialise() give other weights under the same seed",
        "empty": "the predictor has no parameters",
        "shape": "forward(embedded) must have shape [64, 9], has [64, 4]",
        "detached": "no gradient reaches the embedded coordinates",
        "mixed": "a row's kernel depends on the other rows",
        "lookup": "forward() gives other kernels for a Lookup",
    }.items(),
)
def test_check_predictor_fails(mistake, message):
    fails("predictor", WrongPredictor(mistake=mistake), message)


@attrs.frozen
class WrongSampler(Sampler):
    """A sampler with a mistake."""

    mistake: str = option("none", help="which mistake")

    def start(self, norms, layers, seed):
        if self.mistake == "changes":
            norms.mul_(2)
        calls = []

        def draw(step):
            calls.append(step)
            source = torch.Generator().manual_seed(seed + step)
            return (
                {
                    "dtype": torch.tensor([0.0]),
                    "empty": torch.empty(0, dtype=torch.int64),
                    "range": torch.tensor([60]),
                    "counts": torch.tensor([len(calls) % 60]),
                    "instance": torch.tensor([id(calls) // 64 % 60]),
                    "global": torch.randint(60, (4,), generator=source),
                }.get(self.mistake, torch.randint(60, (4,), generator=source))
                if self.mistake != "global"
                else _global(source)
            )

        return draw


def _global(source: torch.Generator) -> torch.Tensor:
    torch.rand(())
    return torch.randint(60, (4,), generator=source)


@pytest.mark.parametrize(
    ("mistake", "message"),
    {
        "dtype": "step 0 must give [m] int64 or None",
        "empty": "step 0 draws no kernel",
        "range": "step 0 draws rows outside 0 … 59",
        "counts": "drawn again, after other steps, gives other rows",
        "global": "draws from torch's global generator",
        "changes": "the sampler changes the norms",
    }.items(),
)
def test_check_sampler_fails(mistake, message):
    fails("sampler", WrongSampler(mistake=mistake), message)


@attrs.frozen
class WrongSmoother(Smoother):
    """A smoother with a mistake."""

    mistake: str = option("none", help="which mistake")

    def order(self, kernels):
        filters, channels = kernels.shape[:2]
        if self.mistake == "type":
            return torch.arange(filters * channels)
        if self.mistake == "changes":
            kernels.add_(1)
        permutation = torch.zeros(filters * channels, dtype=torch.int64)
        if self.mistake != "repeats":
            permutation = torch.randperm(filters * channels, generator=torch.Generator().manual_seed(len(SEEDS)))
        if self.mistake == "random":
            SEEDS.append(1)
        if self.mistake == "transposed":
            return KernelOrder(channels, filters, permutation)
        return (Foreign if self.mistake == "foreign" else KernelOrder)(filters, channels, permutation)


@attrs.frozen(eq=False)
class Foreign(KernelOrder):
    kind: ClassVar[str] = "foreign"


@pytest.mark.parametrize(
    ("mistake", "message"),
    {
        "type": "order() of kernels [4, 6, 9] must be a LayerOrder, is Tensor",
        "changes": "changes the kernels",
        "repeats": "is no permutation of the 24 kernels",
        "random": "differs from call to call",
        "transposed": "is for 6 × 4 kernels",
        "foreign": "has a kind that no file can hold",
    }.items(),
)
def test_check_smoother_fails(mistake, message):
    fails("smoother", WrongSmoother(mistake=mistake), message)


@attrs.frozen
class WrongLoss(Loss):
    """A loss with a mistake."""

    mistake: str = option("none", help="which mistake")
    needs: ClassVar[str] = "logits"

    def __call__(self, original, reconstructed):
        difference = original - reconstructed
        if self.mistake == "changes":
            original.add_(1)
        if self.mistake == "random":
            SEEDS.append(1)
            return difference.square().mean() + len(SEEDS)
        return {
            "vector": difference.square().mean(1),
            "double": difference.double().square().mean(),
            "nan": difference.square().mean() / 0,
            "detached": difference.detach().square().mean(),
            "blind": 0 * difference.square().mean(),
            "upside down": -difference.square().mean(),
            "root": difference.square().mean().sqrt(),
        }.get(self.mistake, difference.square().mean())


@pytest.mark.parametrize(
    ("mistake", "message"),
    {
        "vector": "the loss must be a scalar tensor",
        "double": "the loss must be float32, is torch.float64",
        "nan": "the loss is inf",
        "detached": "the loss is not differentiable",
        "blind": "no gradient reaches the reconstructed side",
        "changes": "the loss changes its arguments",
        "random": "differs from call to call",
        "upside down": "more than where they differ",
        "root": "the gradient is not finite where both sides agree",
    }.items(),
)
def test_check_loss_fails(mistake, message):
    fails("loss", WrongLoss(mistake=mistake), message)


class WrongData(NoiseData):
    mistake = "none"
    drawn = 0

    def inputs(self, batch, seed, device):
        right = super().inputs(batch, seed, device)

        def draw(step):
            self.drawn += 1
            return {
                "size": right(step)[:, :, :16],
                "uint8": right(step).byte(),
                "repeats": right(0),
                "counts": right(self.drawn),
            }.get(self.mistake, right(step))

        return draw

    def batches(self, split, batch, device):
        for images, _ in super().batches(split, batch, device):
            self.drawn += 1
            labels = torch.full((len(images),), 10 if self.mistake == "labels" else 3)
            yield (images + self.drawn if self.mistake == "order" else images), (labels if self.mistake in ("labels", "classes") else None)


@attrs.frozen
class WrongTask(UniformNoise):
    """A task with a mistake."""

    mistake: str = option("none", help="which mistake")

    def open(self, preprocessing, heldout, seed):
        if self.mistake == "global":
            torch.rand(())
        right = super().open(preprocessing, heldout, seed)
        data = WrongData(right._draw, right._size, right._seed)
        data.mistake = self.mistake
        data.classes = 10 if self.mistake == "labels" else None
        data.splits = frozenset({"valid"}) if self.mistake == "splits" else data.splits
        return data


@pytest.mark.parametrize(
    ("mistake", "message"),
    {
        "splits": "splits must be among",
        "size": "inputs(4, …)(step) must have shape [4, 3, 32, 32], has [4, 3, 16, 32]",
        "uint8": "must be float32, is torch.uint8",
        "repeats": "two steps give the same images",
        "counts": "step 1 drawn again gives other images",
        "order": "batches('heldout', …) is in another order each time",
        "labels": "gives labels outside 0 … 9",
        "classes": "gives labels, but classes is None",
        "global": "the task draws from torch's global generator",
    }.items(),
)
def test_check_task_fails(mistake, message):
    fails("task", WrongTask(mistake=mistake), message)


class Forgetful(torch.optim.SGD):
    """Momentum that a saved state does not hold."""

    def state_dict(self):
        return {**super().state_dict(), "state": {}}


@attrs.frozen
class WrongOptimizer(Optimizer):
    """An optimiser with a mistake."""

    lr: float = option(0.05, help="learning rate")
    mistake: str = option("none", help="which mistake")

    def factor(self, step, total):
        return -1.0 if self.mistake == "negative" else super().factor(step, total)

    def start(self, parameters):
        values = [value for _, value in parameters]
        if self.mistake == "single":
            return torch.optim.SGD(values, lr=self.lr)
        if self.mistake == "some":
            return [torch.optim.SGD(values[:1], lr=self.lr)]
        if self.mistake == "forgetful":
            return [Forgetful(values, lr=self.lr, momentum=0.9)]
        return [torch.optim.SGD(values, lr={"zero": 0.0, "up": 1e3}.get(self.mistake, self.lr), maximize=self.mistake == "maximise")]


@pytest.mark.parametrize(
    ("mistake", "message"),
    {
        "negative": "factor(0, 40) is -1.0",
        "single": "start() must return a list of torch optimisers",
        "some": "start() must hand every parameter to exactly one optimiser",
        "zero": "starts with a learning rate of zero",
        "maximise": "do not lower its loss",
        "forgetful": "a run that is resumed from saved states ends with other parameters",
    }.items(),
)
def test_check_optimizer_fails(mistake, message):
    fails("optimizer", WrongOptimizer(mistake=mistake), message)


@attrs.frozen
class WrongObserver(Observer):
    """An observer with a mistake."""

    mistake: str = option("none", help="which mistake")

    @hookimpl
    def nern_run_finished(self, result):
        if self.mistake == "result":
            return result["seconds"]
        print("done" if self.mistake == "prints" else "", end="")
        return None


def test_check_observer_fails():
    fails("observer", WrongObserver(mistake="result"), "nern_run_finished raised TypeError")
    fails("observer", WrongObserver(mistake="prints"), "it prints on stdout")
    testing.check_observer(WrongObserver())


@pytest.mark.parametrize(
    ("check", "right"),
    {
        "predictor": WrongPredictor(),
        "sampler": WrongSampler(),
        "smoother": WrongSmoother(),
        "loss": WrongLoss(),
        "task": WrongTask(),
        "optimizer": WrongOptimizer(),
    }.items(),
)
def test_checks_pass_without_a_mistake(check, right):
    getattr(testing, f"check_{check}")(right)
