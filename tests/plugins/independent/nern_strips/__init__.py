"""A network of 5 × 5 and 1 × 7 convolutions, an angular loss and a sampler of windows."""

import attrs
import torch
from torch import nn

import nern


class StripNet(nn.Module):
    """Square and flat convolutions in turn, on grey images."""

    def __init__(self, width, classes):
        super().__init__()
        self.square = nn.Sequential(nn.Conv2d(1, width, 5, padding=2, bias=False), nn.BatchNorm2d(width))
        self.flat = nn.Sequential(nn.Conv2d(width, width, (1, 7), padding=(0, 3)), nn.BatchNorm2d(width))
        self.square2 = nn.Sequential(nn.Conv2d(width, 2 * width, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(2 * width))
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x):
        x = torch.relu(self.square(x))
        x = torch.relu(x + self.flat(x))
        x = torch.relu(self.square2(x))
        return self.head(x.mean(dim=(2, 3)))


@attrs.frozen
class Strips(nern.Architecture):
    """5 × 5 and 1 × 7 convolutions for 8 × 8 images."""

    width: int = nern.option(6, help="filters of the first two layers", check=nern.at_least(1))
    classes: int = nern.option(10, help="number of classes", check=nern.at_least(2))

    def build(self):
        return StripNet(self.width, self.classes)

    def layers(self, network):
        names = ["square.0.weight", "flat.0.weight", "square2.0.weight"]
        parameters = dict(network.named_parameters())
        return [nern.LayerMapping(name, tuple(parameters[name].shape), index) for index, name in enumerate(names)]

    def features(self, network):
        return ["square", "flat", "square2"]

    def preprocessing(self):
        return nern.Preprocessing(mean=(0.3,), std=(0.37,), size=(1, 8, 8))


@attrs.frozen
class Angle(nern.Loss):
    """One minus the cosine between original and predicted kernels, plus a share of their squared distance."""

    distance: float = nern.option(1.0, help="share of the squared distance", check=nern.above(0))
    needs = "weights"

    def __call__(self, original, reconstructed):
        a, b = original.values, reconstructed.values
        cosine = nn.functional.cosine_similarity(a, b, dim=1, eps=1e-6)
        return (1 - cosine).mean() + self.distance * (a - b).square().sum() / original.count.sum()


@attrs.frozen
class Windows(nern.Sampler):
    """A window of kernels that lie next to each other, at a random place."""

    length: int = nern.option(64, help="kernels in a window", check=nern.at_least(1))

    def start(self, kernels, layers, seed):
        count = len(kernels)

        def draw(step):
            first = int(torch.randint(count, (), generator=nern.generator(seed, step)))
            return (torch.arange(min(self.length, count)) + first).remainder(count).to(kernels.device)

        return draw


@nern.hookimpl
def nern_architectures():
    return {"strips": Strips}


@nern.hookimpl
def nern_losses():
    return {"angle": Angle}


@nern.hookimpl
def nern_samplers():
    return {"windows": Windows}
