"""The number format `entropy`: whole numbers of trained steps, whose distribution is trained along and stored.

A parameter with two or more axes is `integer · step`. The step of an entry is a product of one factor for each index of each
axis: of a kernel's code [filters, channels, frequencies], one for the filter, one for the channel, one for the frequency. The
mean size of the integer, which says how it is distributed (`nern.representation.laplace`), is such a product, too. A vector
has one step and one mean size. Factors are kept as logarithms on a grid, so that the file holds small integers alone.

Training works on *latents*, the integers before rounding: a gradient passes the rounding as if it were not there
(straight-through estimator; Bengio et al. 2013), and a change of a step leaves the integers as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from nern.representation.laplace import GRID, HIGHEST, LARGEST, LOWEST, bits, level_of
from nern.support.seeding import generator

STEP_GRID = 0.03  # of the logarithms of steps
# How far an optimiser moves each kind of number, as a multiple of what it moves a latent of a kernel's code.
STEP_PACE, LEVEL_PACE, VECTOR_PACE = 0.2, 1.0, 4.0


class EntropyCoded(nn.Module):
    """Turns the latents of one parameter into its values, and says how many bits they take.

    Args:
        shape: of the parameter.
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
        """The integers, of the parameter's shape; differentiable as if they were not rounded."""
        free = latent * self._pace
        return _rounded(free, 1.0, LARGEST)

    def log_steps(self) -> Tensor:
        """Natural logarithm of each entry's step, of the parameter's shape or one that broadcasts to it."""
        return outer_sum([_rounded(part * STEP_PACE, STEP_GRID) for part in self.steps])

    def log_means(self) -> Tensor:
        """Natural logarithm of the mean size of each entry's integer, of the parameter's shape or one that broadcasts to it."""
        return outer_sum([_rounded(part * LEVEL_PACE, GRID) for part in self.levels]).clamp(GRID * LOWEST, GRID * HIGHEST)

    def forward(self, latent: Tensor) -> Tensor:
        """Latents → values, as they stand in a file."""
        return self.counts(latent) * self.log_steps().exp()

    def right_inverse(self, value: Tensor) -> Tensor:
        """Values → latents, at the steps as they are now."""
        return value.detach() / self.log_steps().detach().exp() / self._pace

    def bits(self, latent: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The bits of the integers, twice: with a gradient for the latents, and with one for the distribution.

        The first takes each latent moved by `noise` in [−½, ½), of the same shape, in place of rounding it
        (Ballé et al. 2017, sec. 3); the second takes the integers.
        """
        means = self.log_means().expand(self.shape)
        relaxed = bits(latent * self._pace + noise, means.detach())
        return relaxed, bits(self.counts(latent).detach(), means)

    def entry_levels(self, levels: list[Tensor]) -> Tensor:
        """The level of each entry, int64 of the parameter's shape, from the factors of the mean sizes by axis."""
        return outer_sum(levels).clamp(LOWEST, HIGHEST).expand(self.shape)

    # -- as integers, for a file -------------------------------------------------------------------------------------

    @torch.no_grad()
    def to_integers(self, latent: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """The integers [n], the factors of the steps and those of the mean sizes by axis, all int64 on the CPU."""
        steps = [(part * STEP_PACE / STEP_GRID).round().long().cpu() for part in self.steps]
        levels = [(part * LEVEL_PACE / GRID).round().long().cpu() for part in self.levels]
        return self.counts(latent).round().long().cpu().reshape(-1), steps, levels

    @torch.no_grad()
    def from_integers(self, integers: Tensor, steps: list[Tensor], levels: list[Tensor]) -> Tensor:
        """Undo `to_integers`: take over the factors, and give the latents."""
        for own, part in zip(self.steps, steps, strict=True):
            own.copy_(part * STEP_GRID / STEP_PACE)
        for own, part in zip(self.levels, levels, strict=True):
            own.copy_(part * GRID / LEVEL_PACE)
        return integers.reshape(self.shape).float() / self._pace

    @torch.no_grad()
    def start(self, integers: Tensor, log_steps: list[Tensor]) -> None:
        """Take over the logarithms of steps by axis, and mean sizes that fit integers of the parameter's shape."""
        for own, part in zip(self.steps, log_steps, strict=True):
            own.copy_(part / STEP_PACE)
        for own, part in zip(self.levels, fitted_levels(integers), strict=True):
            own.copy_(part / LEVEL_PACE)


def _rounded(values: Tensor, grid: float, largest: float | None = None) -> Tensor:
    """The nearest multiples of `grid`, differentiable as if they were the values themselves."""
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
    """Factors of the mean size by axis, as logarithms, that fit the sizes of some integers (iterative proportional fitting)."""
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
    """Whether the parameters of a representation are coded already; before, they are plain floats."""
    return any(isinstance(part, EntropyCoded) for part in module.modules())


@attrs.frozen(eq=False)
class CodedParameter:
    """A parameter of a representation together with what codes it."""

    name: str
    latent: Tensor
    code: EntropyCoded


def coded_parameters(module: nn.Module) -> Iterator[CodedParameter]:
    """The coded parameters of a module, in a fixed order; a parameter that several modules share comes once."""
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
        values: by parameter name, the latents that training starts from, and the logarithms of the steps by axis. Without
            them every step is 1, for integers that are about to be loaded.
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
    """What the coded parameters of a representation take in its file."""

    total: Tensor
    """Bits, a scalar; differentiable in the latents and in the distribution."""
    exact: Tensor
    """Bits of the integers as they are, a scalar without gradient."""
    weights: int
    """Represented weights."""


def stored_bits(module: nn.Module, weights: int, seed: int, step: int) -> StoredBits:
    """Count the bits of a module's coded parameters.

    Args:
        weights: how many weights the module represents.
        seed, step: the noise that stands for rounding is a function of both.
    """
    relaxed, exact, source = [], [], generator(seed, step)
    for parameter in coded_parameters(module):
        noise = torch.rand(parameter.latent.shape, generator=source) - 0.5
        free, counted = parameter.code.bits(parameter.latent, noise.to(parameter.latent.device))
        relaxed.append(free)
        exact.append(counted)
    counted = torch.stack(exact).sum()
    return StoredBits(torch.stack(relaxed).sum() + counted - counted.detach(), counted.detach(), weights)


def refit_distributions(module: nn.Module, steps: int = 60) -> None:
    """Fit the mean sizes of all coded integers to the integers as they are now, in place; no value changes, only bits.

    Where fewer bits are not found, a parameter keeps the distribution that it has.
    """
    for parameter in coded_parameters(module):
        code, integers = parameter.code, parameter.code.counts(parameter.latent).detach()

        def taken(code: EntropyCoded = code, integers: Tensor = integers) -> Tensor:
            return bits(integers, code.log_means().expand(code.shape))

        before, kept = float(taken().detach()), [part.detach().clone() for part in code.levels]
        with torch.enable_grad():
            levels = [part.requires_grad_() for part in code.levels]
            optimizer = torch.optim.Adam(levels, lr=0.03 / LEVEL_PACE)
            for _ in range(steps):
                optimizer.zero_grad()
                taken().backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        with torch.no_grad():
            if float(taken()) > before:
                for part, old in zip(code.levels, kept, strict=True):
                    part.copy_(old)
        for part in code.levels:
            part.grad = None
