"""Checks of what trains and watches can fail."""

from __future__ import annotations

from typing import ClassVar

import attrs
import pytest
import torch

from nern import (
    Loss,
    Observer,
    Optimizer,
    Sampler,
    Smoother,
    hookimpl,
    option,
    testing,
)
from nern.builtin.tasks.noise import NoiseData, UniformNoise
from nern.kernels.orders import KernelOrder
from tests.testing.failing import fails

SEEDS: list[int] = []


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
            if self.mistake == "changes later":
                norms.mul_(2)
            source = torch.Generator().manual_seed(seed + step)
            return (
                {
                    "dtype": torch.tensor([0.0]),
                    "empty": torch.empty(0, dtype=torch.int64),
                    "range": torch.tensor([60]),
                    "counts": torch.tensor([len(calls) % 60]),
                    "remembers": torch.tensor([max(calls)]),
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
        "dtype": "a step must draw [m] int64 or None, drew [1] float32",
        "empty": "a step must draw at least one kernel, drew none",
        "range": "a step must draw rows from 0 to 59, drew 60 to 60",
        "counts": "the same step must draw the same rows again, and draws others",
        "remembers": "drawn again, after other steps, gives other rows",
        "global": "draws from torch's global generator",
        "changes": "start() changes the norms or layers that it is given",
        "changes later": "a step changes the norms that start() was given",
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
        if self.mistake == "floats":
            permutation = permutation.float()
        if self.mistake == "transposed":
            return KernelOrder(channels, filters, permutation)
        return (Foreign if self.mistake == "foreign" else KernelOrder)(filters, channels, permutation)


@attrs.frozen(eq=False)
class Foreign(KernelOrder):
    kind: ClassVar[str] = "foreign"


@pytest.mark.parametrize(
    ("mistake", "message"),
    {
        "type": "order() must give a LayerOrder, gave [24] int64",
        "changes": "order() changes the kernels that it is given",
        "repeats": "order() must give every kernel from 0 to 23 once, and gives others",
        "floats": "order() must give [24] int64, gave [24] float32",
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
        "vector": "__call__() must return a scalar tensor of floating-point numbers, returned [4] float32",
        "double": "the loss must be float32, is torch.float64",
        "nan": "__call__() must return a finite number, returned inf",
        "detached": "__call__() must be differentiable in what was reconstructed",
        "blind": "no gradient reaches the reconstructed side",
        "changes": "__call__() changes what it is given",
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
            yield (images + self.drawn if self.mistake == "order" else images), (labels if self.mistake == "labels" else None)


@attrs.frozen
class WrongTask(UniformNoise):
    """A task with a mistake."""

    mistake: str = option("none", help="which mistake")

    def open(self, preprocessing, heldout, seed):
        if self.mistake == "global":
            torch.rand(())
        right = super().open(preprocessing, heldout, seed)
        data = WrongData(right._draw, right._size, right._seed, right._heldout)
        data.mistake = self.mistake
        data.classes = 10 if self.mistake == "labels" else None
        data.splits = frozenset({"valid"}) if self.mistake == "splits" else data.splits
        return data


@pytest.mark.parametrize(
    ("mistake", "message"),
    {
        "splits": "'splits' of its data must be a set of 'train', 'heldout' and 'test', is ['valid']",
        "size": "inputs(4, …)(step) must give [4, 3, 32, 32] float32, gave [4, 3, 16, 32] float32",
        "uint8": "inputs(4, …)(step) must give [4, 3, 32, 32] float32, gave [4, 3, 32, 32] uint8",
        "repeats": "two steps give the same images",
        "counts": "step 1 drawn again gives other images",
        "order": "batches('heldout', …) is in another order each time",
        "labels": "gives labels outside 0 … 9",
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
        if self.mistake == "twice":
            return [torch.optim.SGD(values, lr=self.lr), torch.optim.SGD(values[:1], lr=self.lr)]
        if self.mistake == "listed twice":
            return [torch.optim.SGD([*values, values[2]], lr=self.lr)]
        if self.mistake == "others":
            return [torch.optim.SGD([*values, torch.nn.Parameter(torch.zeros(1))], lr=self.lr)]
        if self.mistake == "forgetful":
            return [Forgetful(values, lr=self.lr, momentum=0.9)]
        return [torch.optim.SGD(values, lr={"zero": 0.0, "up": 1e3}.get(self.mistake, self.lr), maximize=self.mistake == "maximise")]


@pytest.mark.filterwarnings("ignore:optimizer contains a parameter group with duplicate")
@pytest.mark.parametrize(
    ("mistake", "message"),
    {
        "negative": "factor(0, 40) is -1.0",
        "single": "start() must return a list of torch optimisers",
        "some": "start() must hand every parameter to exactly one optimiser, once: '0.bias' is stepped 0 times",
        "twice": "start() must hand every parameter to exactly one optimiser, once: '0.weight' is stepped 2 times",
        "listed twice": "start() must hand every parameter to exactly one optimiser, once: '2.weight' is stepped 2 times",
        "others": "start() must hand on the parameters that it is given, and steps another one",
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
        "sampler": WrongSampler(),
        "smoother": WrongSmoother(),
        "loss": WrongLoss(),
        "task": WrongTask(),
        "optimizer": WrongOptimizer(),
    }.items(),
)
def test_checks_pass_without_a_mistake(check, right):
    getattr(testing, f"check_{check}")(right)
