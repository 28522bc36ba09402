"""What the steps of training ask of samplers, optimisers and losses.

Each function says in one line what is wrong, or gives None where nothing is. A run checks these parts of the contracts before its
first step, and some of them in every step; `nern.testing` checks more.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nern.interfaces import Kernels, Sampler
from nern.outputs.nested import tensors_of
from nern.representation.entropy import StoredBits
from nern.support.contracts import described_value
from nern.support.messages import first_line


def problem_with_sampler(sampler: Sampler, norms: Tensor, layers: Tensor, seed: int, step: int) -> str | None:
    """What is wrong with what a sampler starts for kernels with these norms and layers [n], and with what that draws in a step."""
    before = norms.clone(), layers.clone()
    draw: Any = sampler.start(norms, layers, seed)
    if not callable(draw):
        return f"start() must give a function of the step, gave {described_value(draw)}"
    if not all(map(torch.equal, before, (norms, layers))):
        return "start() changes the norms or layers that it is given"
    if hasattr(draw, "observe") and not (hasattr(draw, "state_dict") and hasattr(draw, "load_state_dict")):
        return "start() gives an object with observe(), which must have state_dict() and load_state_dict(): a resumed run would differ"
    first = draw(step)
    problem = problem_with_draw(first.cpu() if isinstance(first, Tensor) and not first.is_meta else first, len(norms))
    if problem or first is None or torch.equal(draw(step), first):
        return problem
    return "the same step must draw the same rows again, and draws others: a resumed run would differ"


def problem_with_draw(drawn: Any, kernels: int) -> str | None:
    """What is wrong with what a sampler drew in a step from so many kernels (or groups of them).

    A GPU is not waited for: rows beyond the kernels are found on the CPU alone.
    """
    if drawn is None:
        return None
    if not isinstance(drawn, Tensor) or drawn.dtype != torch.int64 or drawn.dim() != 1:
        return f"a step must draw [m] int64 or None, drew {described_value(drawn)}"
    if not len(drawn):
        return "a step must draw at least one kernel, drew none"
    if drawn.device.type == "cpu" and (int(drawn.min()) < 0 or int(drawn.max()) >= kernels):
        return f"a step must draw rows from 0 to {kernels - 1}, drew {int(drawn.min())} to {int(drawn.max())}"
    return None


def problem_with_factor(factor: Any) -> str | None:
    """What is wrong with a multiple of the learning rate."""
    if isinstance(factor, (int, float)) and math.isfinite(factor):
        return None
    return f"factor() must give a finite number, gave {factor if isinstance(factor, float) else described_value(factor)}"


def problem_with_optimizers(started: Any, parameters: Sequence[tuple[str, nn.Parameter]]) -> str | None:
    """What is wrong with the result of `Optimizer.start` for named parameters."""
    if not isinstance(started, list) or not started or not all(isinstance(one, torch.optim.Optimizer) for one in started):
        return f"start() must return a list of torch optimisers, returned {described_value(started)}"
    names = {id(value): name for name, value in parameters}
    stepped = [id(value) for one in started for group in one.param_groups for value in group["params"]]
    if any(key not in names for key in stepped):
        return "start() must hand on the parameters that it is given, and steps another one"
    for key, name in names.items():
        times = stepped.count(key)
        if times != 1:
            return f"start() must hand every parameter to exactly one optimiser, once: '{name}' is stepped {times} times"
    return None


def problem_with_loss(value: Any) -> str | None:
    """What is wrong with what a loss returned; a GPU is not waited for."""
    if isinstance(value, Tensor) and value.dim() == 0 and value.is_floating_point():
        return None
    return f"__call__() must return a scalar tensor of floating-point numbers, returned {described_value(value)}"


def problem_with_comparison(compare: Callable[..., Any], sides: tuple[Any, Any], device: torch.device, *further: Any) -> str | None:
    """What is wrong with how a loss compares two sides.

    Args:
        sides: the original and the reconstructed side as a step hands them to the loss: kernels, outputs, feature maps or stored
            bits. The loss must be differentiable in the reconstructed side, which requires gradients.
        device: where the result must be.
        further: the targets, where the loss needs them.
    """
    original, reconstructed = sides
    before = [value.detach().clone() for value in [*_tensors_of_side(original), *_tensors_of_side(reconstructed)]]
    wanted = [side for side in _tensors_of_side(reconstructed) if side.requires_grad]
    value: Any = compare(original, reconstructed, *further)
    problem = problem_with_loss(value)
    if problem:
        return problem
    if value.device.type != device.type:
        return f"__call__() must return a tensor on {device.type}, returned one on {value.device.type}"
    after = [*_tensors_of_side(original), *_tensors_of_side(reconstructed)]
    if len(after) != len(before) or not all(torch.equal(a, b) for a, b in zip(before, after, strict=True)):
        return "__call__() changes what it is given, which other losses are given, too"
    if not bool(value.isfinite()):
        return f"__call__() must return a finite number, returned {float(value.detach())}"
    gradients: list[Tensor] = []
    if value.requires_grad and wanted:
        gradients = [one for one in torch.autograd.grad(value, wanted, allow_unused=True, retain_graph=True) if one is not None]
    if not gradients:
        return "__call__() must be differentiable in what was reconstructed, and no gradient reaches it"
    if not all(bool(one.isfinite().all()) for one in gradients):
        return "__call__() must have a finite gradient, and has another"
    return None


def _tensors_of_side(side: Any) -> list[Tensor]:
    if isinstance(side, StoredBits):
        return [side.total]
    return [side.values] if isinstance(side, Kernels) else tensors_of(side)


def problem_with_state(keeper: Any) -> str | None:
    """What is wrong with what a sampler or a loss keeps between steps: it is written and read as a resumed run would read it."""
    content = io.BytesIO()
    try:
        torch.save(keeper.state_dict(), content)
        content.seek(0)
        torch.load(content, weights_only=True)
    except (AttributeError, TypeError, pickle.PickleError) as error:
        allowed = "state_dict() must hold tensors, numbers, text, lists and dictionaries alone, and no checkpoint can hold this"
        return f"{allowed}: {first_line(error)}"
    return None
