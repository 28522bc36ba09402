"""Chooses the speed-ups with which a network still computes the same, by trying them.

A network that flattens its maps with `view`, that reads a weight twice, or that carries hooks may fail or give other
logits where images lie in memory channels last, where batch norms are folded, or in bfloat16. Before training, every
combination is therefore compared with the plain network, the fastest first, on one batch of noise: outputs, feature maps
and gradients. One kind of layer can crash the process instead of raising an error: see `nern.networks.crashes`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from nern.errors import ConfigError
from nern.networks.crashes import crashing_layer
from nern.networks.pair import NetworkPair, Speedups
from nern.outputs.nested import call, laid_out, map_tensors, part, tensors_of
from nern.support.messages import first_line
from nern.support.seeding import generator

BATCH = 2
FLOAT32_ERROR = 1e-2  # largest relative error allowed in float32, where rounding alone causes about 1e-5
BFLOAT16_ERROR = 0.5  # largest relative error of outputs allowed in bfloat16, where rounding alone causes a few per cent


def bearable(
    network: nn.Module,
    features: Sequence[str],
    changing: Sequence[str],
    inputs: Any,
    *,
    device: torch.device,
    dtype: torch.dtype,
    trained: Collection[str] = (),
) -> tuple[Speedups, list[str]]:
    """The speed-ups under which a pair of networks computes the same as the plain network, and one line for each that was left out.

    Args:
        features: names of feature maps, see `NetworkPair`.
        changing: names of the represented and the trained parameters.
        inputs: example inputs of the network; their floating-point numbers are replaced by noise.
        dtype: torch.bfloat16 where the run wants it.
        trained: see `NetworkPair`.

    Raises:
        ConfigError: the network cannot run forwards and backwards at all.
    """

    def pair_with(speedups: Speedups) -> NetworkPair:
        return NetworkPair(
            network,
            features,
            device=device,
            dtype=speedups.dtype,
            fold=speedups.fold,
            channels_last=speedups.channels_last,
            trained=trained,
        )

    def tried(pair: NetworkPair) -> _Results:
        return _results(pair, batch, weights)

    batch = map_tensors(lambda values: noise_like(values).to(device), inputs)
    state = network.state_dict()
    # weights that differ from the original's, as predictions do: folding has to scale replaced weights, too
    weights = {name: (state[name] * 1.01).float().to(device).requires_grad_() for name in changing}
    plain = Speedups(channels_last=False, fold=False)
    pair = pair_with(plain)
    try:
        expected = tried(pair)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"the network cannot run forwards and backwards ({first_line(error)}); see its forward method") from error
    if pair.keeps_graph:
        try:
            tried(pair)
        except RuntimeError as error:
            raise ConfigError(
                "the network keeps a tensor of one forward pass for the next, so that a second backward pass would go through the first "
                "one, too; detach that tensor in its forward method"
            ) from error

    def difference(speedups: Speedups) -> str:
        try:
            return expected.differs(tried(pair_with(speedups)), speedups.dtype)
        except Exception as error:
            return f"it fails ({first_line(error)})"

    images = [values for values in tensors_of(inputs) if values.dim() == 4]
    crash = crashing_layer(network, images[0].shape[1:]) if device.type == "cpu" and images else None
    reason = f"the backward pass of '{crash}' ends the process" if crash else ""
    for channels_last, fold in ((True, True), (True, False), (False, True), (False, False)):
        speedups = Speedups(channels_last, fold)
        if channels_last and crash:
            continue
        refusal = "" if speedups == plain else difference(speedups)
        if not refusal:
            break
        reason = reason or refusal
    lines = []
    names = [name for name, used in (("channels-last memory", channels_last), ("folded batch norms", fold)) if not used]
    if names:
        lines.append(f"the network runs without {' and '.join(names)}, with which {reason}")
    if dtype != torch.float32:
        reduced = attrs.evolve(speedups, dtype=dtype)
        reason = difference(reduced)
        if reason:
            lines.append(f"the network runs in float32, since in {str(dtype).removeprefix('torch.')} {reason}")
        else:
            speedups = reduced
    return speedups, lines


@torch.no_grad()
def memory_layout(network: nn.Module, inputs: Any, *, trains: bool = False) -> torch.memory_format:
    """The layout "channels last" where a network in eval mode gives the same outputs in it, otherwise the usual layout.

    Args:
        inputs: some inputs on the network's device, of which the first two are run.
        trains: whether a backward pass will follow, which can end the process (see `nern.networks.crashes`).
    """
    some = part(inputs, slice(BATCH))
    images = [values for values in tensors_of(some) if values.dim() == 4]
    if not images or not any(value.dim() == 4 for value in network.parameters()):  # channels last would not be faster
        return torch.contiguous_format
    if trains and images[0].device.type == "cpu" and crashing_layer(network, images[0].shape[1:]):
        return torch.contiguous_format
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        plain = _floats(call(network, laid_out(some, torch.contiguous_format)))
        try:
            torch.manual_seed(0)
            faster = _floats(call(network, laid_out(some, torch.channels_last)))
            same = all(_relative(a, b) <= FLOAT32_ERROR for a, b in zip(plain, faster, strict=True))
        except Exception:
            same = False
    return torch.channels_last if same else torch.contiguous_format


@attrs.frozen(eq=False)
class _Results:
    """The results of a pair of networks for one batch."""

    outputs: list[Tensor]  # outputs of the original and of the reconstructed network
    features: list[Tensor]  # feature maps of both
    gradients: list[Tensor]  # gradients of outputs and feature maps by the weights

    def differs(self, other: _Results, dtype: torch.dtype) -> str:
        """Says how another pair's results differ from these; an empty text where they agree."""
        allowed = FLOAT32_ERROR if dtype == torch.float32 else BFLOAT16_ERROR
        parts = [("outputs", self.outputs, other.outputs)]
        if dtype == torch.float32:
            parts += [("feature maps", self.features, other.features), ("gradients", _joined(self), _joined(other))]
        for name, mine, its in parts:
            error = max((_relative(a, b) for a, b in zip(mine, its, strict=True)), default=0.0)
            if not error <= allowed:
                return f"its {name} differ by {100 * error:.3g} %"
        return ""


def _joined(results: _Results) -> list[Tensor]:
    return [torch.cat([gradient.reshape(-1) for gradient in results.gradients])]


def noise_like(values: Tensor) -> Tensor:
    """Inputs in which floating-point tensors are replaced by standard normal noise, which is the same each time."""
    return torch.randn(values.shape, generator=generator(0, "speed-ups")) if values.is_floating_point() else values


def _results(pair: NetworkPair, inputs: Any, weights: Mapping[str, Tensor]) -> _Results:
    features = bool(pair.features)
    with torch.random.fork_rng(devices=[]):  # so that a network that draws random numbers draws the same ones
        torch.manual_seed(0)
        original = pair.original(inputs, features)
        torch.manual_seed(0)
        reconstructed = pair.reconstructed(inputs, weights, features)
        parts = [*_floats(reconstructed.logits), *(values.float() for values in reconstructed.features)]
        total = torch.stack([values.square().mean() for values in parts]).sum()
        gradients = torch.autograd.grad(total, list(weights.values()), allow_unused=True)
    pair.release()
    filled = [torch.zeros_like(w) if g is None else g for g, w in zip(gradients, weights.values(), strict=True)]
    maps = [values.detach() for outputs in (original, reconstructed) for values in outputs.features]
    outputs = [values.detach() for result in (original, reconstructed) for values in _floats(result.logits)]
    return _Results(outputs, maps, filled)


def _floats(outputs: Any) -> list[Tensor]:
    return [values for values in tensors_of(outputs) if values.is_floating_point()]


def _relative(a: Tensor, b: Tensor) -> float:
    """‖a − b‖ / ‖a‖."""
    wide = a.detach().double()
    return float((wide - b.double()).norm() / wide.norm().clamp_min(1e-12))
