"""The number format `entropy`: integers times trained steps. The integers' distribution is trained, too, and stored in the file.

An entry of a parameter is `integer · step`. The step is a product of one factor for each axis of the parameter: for the codes of
kernels [filters, channels, frequencies], a factor of the filter, one of the channel and one of the frequency. The mean absolute
value of the integer, which determines its distribution (`nern.representation.laplace`), is such a product, too. A vector has a
single step and a single mean. Logarithms of factors are multiples of a small number, so that the file holds small integers alone.

The trained values are *latents*, the integers before rounding. Gradients ignore the rounding (straight-through estimator; Bengio et
al. 2013), and a change of a step does not change the integers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from nern.representation.laplace import GRID, HIGHEST, LARGEST, LOWEST, bits, level_of
from nern.support.seeding import generator

STEP_GRID = 0.03  # grid of the logarithms of steps
# How fast each kind of number is trained, relative to the latents of kernels' codes.
STEP_PACE, LEVEL_PACE, VECTOR_PACE = 0.2, 1.0, 4.0


class EntropyCoded(nn.Module):
    """Turns the latents of one parameter into its values, and counts the bits that they take.

    Args:
        shape: shape of the parameter.
    """

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.shape = shape
        axes = list(shape) if len(shape) >= 2 else [1]
        self.steps = nn.ParameterList(nn.Parameter(torch.zeros(size)) for size in axes)
        self.levels = nn.ParameterList(nn.Parameter(torch.zeros(size)) for size in axes)

    @property
    def _pace(self) -> float:
        return 1.0 if len(self.shape) >= 2 else VECTOR_PACE

    def counts(self, latent: Tensor) -> Tensor:
        """The integers, in the parameter's shape; differentiable as if they were not rounded."""
        free = latent * self._pace
        return _rounded(free, 1.0, LARGEST)

    def log_steps(self) -> Tensor:
        """Natural logarithm of each entry's step, in a shape that broadcasts to the parameter's."""
        return outer_sum([_rounded(part * STEP_PACE, STEP_GRID) for part in self.steps])

    def log_means(self) -> Tensor:
        """Natural logarithm of the mean absolute value of each entry's integer, in a shape that broadcasts to the parameter's."""
        return outer_sum([_rounded(part * LEVEL_PACE, GRID) for part in self.levels]).clamp(GRID * LOWEST, GRID * HIGHEST)

    def forward(self, latent: Tensor) -> Tensor:
        """Latents → values, the same that a file gives."""
        return self.counts(latent) * self.log_steps().exp()

    def right_inverse(self, value: Tensor) -> Tensor:
        """Values → latents, by the present steps."""
        return value.detach() / self.log_steps().detach().exp() / self._pace

    def bits(self, latent: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The bits of the integers, computed twice: with a gradient for the latents, and with a gradient for the distribution.

        The first adds `noise` in [−½, ½), of the same shape, to the latents instead of rounding them (Ballé et al. 2017, sec. 3);
        the second uses the integers.
        """
        means = self.log_means().expand(self.shape)
        relaxed = bits(latent * self._pace + noise, means.detach())
        return relaxed, bits(self.counts(latent).detach(), means)

    def entry_levels(self, levels: list[Tensor]) -> Tensor:
        """The level of each entry, int64 in the parameter's shape, from the factors of the means by axis."""
        return outer_sum(levels).clamp(LOWEST, HIGHEST).expand(self.shape)

    # -- as integers, for a file -------------------------------------------------------------------------------------

    @torch.no_grad()
    def to_integers(self, latent: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """The integers [n], the factors of the steps and the factors of the means by axis, all int64 on the CPU."""
        steps = [(part * STEP_PACE / STEP_GRID).round().long().cpu() for part in self.steps]
        levels = [(part * LEVEL_PACE / GRID).round().long().cpu() for part in self.levels]
        return self.counts(latent).round().long().cpu().reshape(-1), steps, levels

    @torch.no_grad()
    def from_integers(self, integers: Tensor, steps: list[Tensor], levels: list[Tensor]) -> Tensor:
        """Undo `to_integers`: set the factors, and return the latents."""
        for own, part in zip(self.steps, steps, strict=True):
            own.copy_(part * STEP_GRID / STEP_PACE)
        for own, part in zip(self.levels, levels, strict=True):
            own.copy_(part * GRID / LEVEL_PACE)
        return integers.reshape(self.shape).float() / self._pace

    @torch.no_grad()
    def start(self, integers: Tensor, log_steps: list[Tensor]) -> None:
        """Set the logarithms of steps by axis, and fit the means to integers of the parameter's shape."""
        for own, part in zip(self.steps, log_steps, strict=True):
            own.copy_(part / STEP_PACE)
        for own, part in zip(self.levels, fitted_levels(integers), strict=True):
            own.copy_(part / LEVEL_PACE)


def _rounded(values: Tensor, grid: float, largest: float | None = None) -> Tensor:
    """The nearest multiples of `grid`, differentiable as if nothing were rounded."""
    nearest = (values.detach() / grid).round()
    if largest is not None:
        nearest = nearest.clamp(-largest, largest)
    return values + (nearest * grid - values).detach()


def outer_sum(parts: list[Tensor]) -> Tensor:
    """The sum over axes of [n₁], [n₂], …: [n₁, n₂, …]."""
    total = parts[0]
    for part in parts[1:]:
        total = total.unsqueeze(-1) + part
    return total


@torch.no_grad()
def fitted_levels(integers: Tensor) -> list[Tensor]:
    """Logarithms of the factors of the mean by axis, fitted to the absolute values of integers (iterative proportional fitting)."""
    sizes = integers.abs().float()
    if sizes.dim() < 2:
        return [torch.tensor([GRID * level_of(integers)])]
    factors = [torch.ones(size) for size in sizes.shape]
    axes = range(sizes.dim())
    for _ in range(6):
        for axis in axes:
            others = torch.ones(())
            for other in axes:
                if other != axis:
                    shape = [-1 if place == other else 1 for place in axes]
                    others = others * factors[other].reshape(shape)
            expected = float(others.mean())
            factors[axis] = (sizes.mean([other for other in axes if other != axis]) + 0.02) / expected
    return [factor.log() for factor in factors]


# -- a whole representation ------------------------------------------------------------------------------------------


def is_coded(module: nn.Module) -> bool:
    """Whether the parameters of a representation are coded already; until coding starts, they are plain floats."""
    return any(isinstance(part, EntropyCoded) for part in module.modules())


@attrs.frozen(eq=False)
class CodedParameter:
    """A parameter of a representation together with its `EntropyCoded` module."""

    name: str
    latent: Tensor
    code: EntropyCoded


def coded_parameters(module: nn.Module) -> Iterator[CodedParameter]:
    """The coded parameters of a module, in a fixed order; a shared parameter comes once."""
    seen: set[int] = set()
    for place, owner in module.named_modules():
        if not parametrize.is_parametrized(owner):
            continue
        for name, chain in owner.parametrizations.items():  # type: ignore[union-attr, operator]
            if isinstance(chain[0], EntropyCoded) and id(chain.original) not in seen:
                seen.add(id(chain.original))
                yield CodedParameter(f"{place}{'.' if place else ''}{name}", chain.original, chain[0])


@torch.no_grad()
def code_parameters(module: nn.Module, values: Mapping[str, tuple[Tensor, list[Tensor]]] | None = None) -> None:
    """Turn every floating-point parameter of a module into a coded one, in place.

    Args:
        values: by parameter name, the latents at the start of training, and the logarithms of the steps by axis. Without them every
            step is 1, which is meant for modules into which integers are loaded afterwards.
    """
    shared: dict[int, EntropyCoded] = {}
    for name, parameter in list(module.named_parameters(remove_duplicate=False)):
        place, _, last = name.rpartition(".")
        if not parameter.is_floating_point() or parameter.numel() == 0:
            continue
        if id(parameter) in shared:
            continue
        code = shared[id(parameter)] = EntropyCoded(parameter.shape).to(parameter.device)
        latent, steps = (values or {}).get(name, (None, []))
        if latent is not None:
            code.start(latent.round(), steps)
        owner = module.get_submodule(place)
        parametrize.register_parametrization(owner, last, code, unsafe=True)
        if latent is not None:
            owner.parametrizations[last].original.copy_(latent / code._pace)  # type: ignore[union-attr, index]


@attrs.frozen(eq=False)
class StoredBits:
    """The bits that the coded parameters of a representation take in its file."""

    total: Tensor
    """All bits, a scalar that is differentiable in the latents and in the distribution."""
    exact: Tensor
    """All bits of the rounded integers, a scalar without gradient."""
    weights: int
    """Number of represented weights."""


def stored_bits(module: nn.Module, weights: int, seed: int, step: int) -> StoredBits:
    """Count the bits of a module's coded parameters.

    Args:
        weights: how many weights the module represents.
        seed, step: determine the noise that replaces rounding.
    """
    relaxed, exact, source = [], [], generator(seed, step)
    for parameter in coded_parameters(module):
        noise = torch.rand(parameter.latent.shape, generator=source) - 0.5
        free, counted = parameter.code.bits(parameter.latent, noise.to(parameter.latent.device))
        relaxed.append(free)
        exact.append(counted)
    counted = torch.stack(exact).sum()
    return StoredBits(torch.stack(relaxed).sum() + counted - counted.detach(), counted.detach(), weights)


def refit_distributions(module: nn.Module) -> None:
    """Fit the means of all coded parameters to their present integers, in place. Values stay the same; only the bits change.

    A parameter keeps its distribution where the fitted one does not take fewer bits.
    """
    for parameter in coded_parameters(module):
        code, integers = parameter.code, parameter.code.counts(parameter.latent).detach()

        def taken(code: EntropyCoded = code, integers: Tensor = integers) -> Tensor:
            return bits(integers, code.log_means().expand(code.shape))

        before, kept = float(taken().detach()), [part.detach().clone() for part in code.levels]
        with torch.enable_grad():
            levels = [part.requires_grad_() for part in code.levels]
            optimizer = torch.optim.Adam(levels, lr=0.03 / LEVEL_PACE)
            for _ in range(60):
                optimizer.zero_grad()
                taken().backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        with torch.no_grad():
            if float(taken()) > before:
                for part, old in zip(code.levels, kept, strict=True):
                    part.copy_(old)
        for part in code.levels:
            part.grad = None
