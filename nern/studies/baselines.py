"""Baselines for a representation: the original network with rounded weights, each written as a real file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from nern.artifact.absorbed import Absorbed
from nern.artifact.artifact import Artifact
from nern.artifact.components import component
from nern.artifact.entropy_coding import IntegerReader, encode_integers
from nern.errors import ConfigError
from nern.kernels.coordinates import KernelGrid
from nern.kernels.orders import LayerOrder, Unordered
from nern.networks.batch_norm import absorb_batch_norms, absorbable, constant_entries
from nern.networks.copies import duplicate
from nern.networks.state_dicts import trained_copies, with_weights
from nern.representation.assembling import assemble
from nern.representation.entropy import STEP_GRID, code_parameters, refit_distributions
from nern.representation.laplace import LARGEST, level_of
from nern.representation.quantization import NumberFormat
from nern.studies.opening import OpenRepresentation
from nern.support.files import write_tensors

WIDTHS = (8, 7, 6, 5, 4, 3)  # bits of the integers in the baselines with one step per channel
# Steps of the baselines with one step per layer, in standard deviations of the layer's weights
STEPS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.4)
PALETTE = 16
VECTOR = 64  # how many steps of a bias make up its mean absolute value

Steps = Callable[[Tensor], tuple[Tensor, int]]  # function of a weight [filters, ...]: its steps [filters], and the largest integer


@attrs.frozen
class Baseline:
    """A method to store the original network in fewer bytes without training.

    `write` writes a file, and `read` returns the network of such a file.
    """

    family: str
    name: str
    write: Callable[[Path], None]
    read: Callable[[Path], nn.Module]
    is_representation: bool = True  # whether the file is one that `nern.load` opens


def baselines(opened: OpenRepresentation) -> Iterator[Baseline]:
    """The baselines for the network of a representation; batch norms are absorbed as in the representation, and biases have fine steps.

    Rounded weights are entropy-coded like the numbers of a representation: steps and distributions have a factor for each filter,
    channel and position, fitted to the integers.

    Raises:
        ConfigError: the original weights are missing.
    """
    from nern.artifact.reading import load

    if opened.original is None:
        raise ConfigError("baselines are made of the original network: name its weights with architecture.weights=FILE")
    source, original = _Source(opened), duplicate(opened.original)

    def read(path: Path) -> nn.Module:
        """The network of a file, whose weights are read into one that is there: a file names no code that could build it."""
        return load(path, opened.artifact.registry, into=duplicate(original))

    def coded(family: str, name: str, steps: Steps) -> Baseline:
        def write(path: Path) -> None:
            source.rounded(steps).save(path)

        return Baseline(family, name, write, read)

    for bits in WIDTHS:
        yield coded("integers, a step a channel", f"int{bits}", lambda weight, bits=bits: _channel_steps(weight, bits))  # type: ignore[misc]
    for step in STEPS:
        yield coded("rounding, a step a layer", f"{step:g} σ", lambda weight, step=step: _layer_steps(weight, step))  # type: ignore[misc]
    yield Baseline(f"palette of {PALETTE}", f"palette of {PALETTE}", source.write_palette, source.read_palette, False)


def _channel_steps(weight: Tensor, bits: int) -> tuple[Tensor, int]:
    most = 2 ** (bits - 1) - 1
    return weight.flatten(1).abs().amax(1).clamp_min(1e-12) / most, most


def _layer_steps(weight: Tensor, step: float) -> tuple[Tensor, int]:
    return (step * weight.std(unbiased=False)).clamp_min(1e-12).expand(len(weight)), LARGEST


class _Source:
    """The original network, prepared for rounding."""

    def __init__(self, opened: OpenRepresentation) -> None:
        assert opened.original is not None
        self.artifact = opened.artifact
        self.network = duplicate(opened.original).float().cpu()
        layers = self.artifact.representation.grid.layers
        names = [layer.parameter for layer in layers]
        pairs = absorbable(self.network, names)
        absorb_batch_norms(self.network, pairs)
        self.absorbed = Absorbed.of(self.network, pairs)
        self.grid = KernelGrid(layers)
        self.copies = trained_copies(self.network, ["*"], names, list(constant_entries(self.network, pairs)))

    def rounded(self, steps: Steps) -> Artifact:
        """A representation whose codes are the rounded weights."""
        registry = self.artifact.registry
        embedding = component("embedding", {"name": "nern:codes", "transform": "none"}, registry)
        predictor = component("predictor", {"name": "nern:codes"}, registry)
        orders: list[LayerOrder] = [Unordered(layer.filters, layer.channels) for layer in self.grid.layers]
        representation = assemble(self.grid, orders, embedding, predictor).eval()
        state = self.network.state_dict()
        with torch.no_grad():
            embedding.initialise(representation.embedding, [layer.split(state[layer.parameter]) for layer in self.grid.layers])
        representation.train_copies({name: state[name] for name in self.copies})
        representation.storage = NumberFormat("entropy")
        values = {name: _rounded(value.detach(), steps) for name, value in representation.named_parameters()}
        code_parameters(representation, values)
        refit_distributions(representation)
        return Artifact(
            representation.requires_grad_(False), self.artifact.architecture, embedding, predictor, self.network, self.artifact.dtypes,
            registry, self.artifact.sha256, {"task": self.artifact.notes["task"]}, absorbed=self.absorbed, copied="float16",
        )  # fmt: skip

    # -- a palette ---------------------------------------------------------------------------------------------------

    def _weights(self) -> dict[str, Tensor]:
        state = self.network.state_dict()
        names = [*(layer.parameter for layer in self.grid.layers), *self.copies]
        return {name: state[name] for name in names if state[name].dim() >= 2}

    def write_palette(self, path: Path) -> None:
        """Write every weight of a layer as the entropy-coded index of one of 16 values (Han et al. 2016), and the rest as float16."""
        parts, palettes = [], []
        for weight in self._weights().values():
            palette, numbers = palette_of(weight)
            centred = numbers - int(palette.abs().argmin())
            level = level_of(torch.from_numpy(centred))
            palettes.append(torch.cat([palette.half(), torch.tensor([level, int(palette.abs().argmin())]).half()]))
            parts.append((centred, np.full(len(centred), level)))
        stored = {"palettes": torch.cat(palettes), "rest": torch.cat([value.reshape(-1).half() for value in self._rest().values()])}
        words = encode_integers((np.concatenate([a for a, _ in parts]), np.concatenate([b for _, b in parts])))
        write_tensors(path, {"numbers": torch.from_numpy(words.astype("<u4").view(np.uint8).copy()), **stored})

    def _rest(self) -> dict[str, Tensor]:
        """Biases and all other entries that are neither weights nor constants."""
        state, weights = self.network.state_dict(), self._weights()
        constants = self.absorbed.constants(list(state)) if self.absorbed else {}
        chosen = {
            name: value for name, value in state.items() if name not in weights and name not in constants and value.is_floating_point()
        }
        return chosen or {"": torch.zeros(1)}

    def read_palette(self, path: Path) -> nn.Module:
        """The network of a file that `write_palette` wrote."""
        stored, weights_read = load_file(str(path)), dict[str, Tensor]()
        weights = self._weights()
        tables = stored["palettes"].float().reshape(len(weights), -1)
        levels = np.concatenate([np.full(weight.numel(), int(table[-2])) for weight, table in zip(weights.values(), tables, strict=True)])
        reader = IntegerReader(stored["numbers"].numpy().copy().view("<u4").astype(np.uint32))
        numbers = torch.from_numpy(reader.take(levels))
        reader.close()
        sizes = [weight.numel() for weight in weights.values()]
        for (name, weight), table, part in zip(weights.items(), tables, torch.split(numbers, sizes), strict=True):
            weights_read[name] = table[:-2][part + int(table[-1])].reshape(weight.shape)
        rest = self._rest()
        values = torch.split(stored["rest"].float(), [value.numel() for value in rest.values()])
        weights_read |= {name: value.reshape(rest[name].shape) for name, value in zip(rest, values, strict=True) if name}
        return with_weights(self.network, weights_read)


def palette_of(weight: Tensor, colours: int = PALETTE, steps: int = 25) -> tuple[Tensor, np.ndarray]:
    """Values [colours] in rising order and the index of the nearest for each weight [n]: Lloyd (1982), from evenly spaced values."""
    flat = weight.reshape(-1).float()
    palette = torch.linspace(float(flat.min()), float(flat.max()), colours)
    for _ in range(steps):
        numbers = torch.bucketize(flat, (palette[1:] + palette[:-1]) / 2)
        counts = torch.bincount(numbers, minlength=colours)
        sums = torch.zeros(colours).index_add_(0, numbers, flat)
        palette = torch.where(counts > 0, sums / counts.clamp_min(1), palette)
    palette = palette.half().float()
    return palette, torch.bucketize(flat, (palette[1:] + palette[:-1]) / 2).numpy()


def _rounded(value: Tensor, steps: Steps) -> tuple[Tensor, list[Tensor]]:
    """The integers of a parameter and the logarithms of its steps by axis; a vector has fine steps."""
    if value.dim() < 2:
        step, most = (value.abs().mean() / VECTOR).clamp_min(1e-12).reshape(1), LARGEST
    else:
        step, most = steps(value)
    logarithm = (step.log() / STEP_GRID).round() * STEP_GRID
    shape = [-1, *[1] * (value.dim() - 1)] if value.dim() >= 2 else [1]
    integers = (value / logarithm.exp().reshape(shape)).round().clamp(-most, most)
    return integers, [logarithm, *(torch.zeros(size) for size in value.shape[1:])]
