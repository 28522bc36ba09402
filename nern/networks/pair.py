"""Runs the original and the reconstructed network: two sets of modules that share every tensor but the predicted weights."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import attrs
import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from nern.networks.batch_norm import fold_batch_norms, foldable
from nern.networks.copies import computed_attributes, copied
from nern.networks.feature_maps import FeatureCapture, sums_among
from nern.outputs.nested import call, laid_out, lay_out, to_float32


@attrs.frozen
class Outputs:
    """The results of one forward pass."""

    logits: Any  # the outputs: logits [b, classes] of a classifier, otherwise tensors in any nesting
    features: list[Tensor]  # feature maps [b, ...], in the order of their names


@attrs.frozen
class Speedups:
    """Ways of computing a network faster that must not change what it computes; see `nern.networks.speedups`."""

    channels_last: bool = True  # images and weights lie in memory with the channels of each pixel side by side
    fold: bool = True  # batch norms are folded into the convolutions before them
    dtype: torch.dtype = torch.float32  # torch.bfloat16 runs convolutions and products in it (weights stay float32)

    @property
    def layout(self) -> torch.memory_format:
        """Memory layout of tensors with four dimensions."""
        return torch.channels_last if self.channels_last else torch.contiguous_format


class NetworkPair:
    """The original network and its reconstruction, in eval mode, for training.

    Both share copied parameters and statistics, so the batch norm behind a convolution is folded into the weights of
    both: scale · w and a constant bias. Feature maps behind a folded batch norm are unchanged.

    Args:
        network: the original network; a copy runs, made when a loss first wants it.
        features: names of the feature maps that are compared: modules, and sums in them (`nern.networks.feature_maps`).
        dtype: torch.bfloat16 runs convolutions and products in bfloat16 (weights stay float32).
        fold: whether to fold batch norms.
        trained: names of copied parameters of which the reconstruction has its own, trained values.
        channels_last: whether images and weights lie in memory channels last.
    """

    def __init__(
        self,
        network: nn.Module,
        features: Sequence[str],
        *,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        fold: bool = True,
        trained: Collection[str] = (),
        channels_last: bool = True,
    ) -> None:
        self.device, self.speedups = device, Speedups(channels_last, fold, dtype)
        self.features = list(features)
        # trained bias of a folded batch norm → name of the bias that it became a part of, and the rest of that bias
        self._moved: dict[str, tuple[str, Tensor]] = {}
        self._source, self._trained = network, frozenset(trained)
        sums_among(network, features)  # a wrong name is reported now, not when a loss first needs the map

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which convolutions and products are computed."""
        return self.speedups.dtype

    @cached_property
    def _original(self) -> tuple[_Runner, dict[str, Tensor]]:
        """The runnable original network, and the scales folded into it; made when a loss first needs it."""
        network = copied(self._source, lambda value: value.to(self.device, copy=True)).eval()
        lay_out(network, self.speedups.layout)
        scales = self._folded(network) if self.speedups.fold else {}
        return _Runner(network, self.features, self.speedups, self.device), scales

    def _folded(self, network: nn.Module) -> dict[str, Tensor]:
        """Fold batch norms in place, except those whose scale is trained; returns the scales."""
        pairs = foldable(network, keep=self.features)
        skip = [pair.norm for pair in pairs if self._trained & {f"{pair.norm}.weight", f"{pair.convolution}.bias"}]
        before = {pair: network.get_submodule(pair.norm).bias for pair in pairs if pair.norm not in skip}
        scales = fold_batch_norms(network, self.features, skip, self.speedups.layout)
        for pair, bias in before.items():
            if f"{pair.norm}.bias" in self._trained:
                shift = network.get_submodule(pair.convolution).bias
                self._moved[f"{pair.norm}.bias"] = f"{pair.convolution}.bias", (shift - bias).detach()  # type: ignore[operator]
        return scales

    @cached_property
    def _reconstructed(self) -> _Runner:
        """The runnable reconstructed network: modules of its own, which share the tensors of the original network."""
        return _Runner(copied(self._original[0].network, lambda value: value), self.features, self.speedups, self.device)

    @property
    def network(self) -> nn.Module:
        """The copy that runs, with the original weights."""
        return self._original[0].network

    @property
    def scales(self) -> dict[str, Tensor]:
        """The factors that folding multiplied weights by [filters, 1, 1, 1], by parameter name."""
        return self._original[1]

    def original(self, inputs: Any, features: bool = False) -> Outputs:
        """Run the original network without gradient."""
        with torch.no_grad():
            return self._original[0](inputs, features)

    def reconstructed(self, inputs: Any, weights: Mapping[str, Tensor], features: bool = False) -> Outputs:
        """Run with predicted `weights` and trained copies (parameter name → value), differentiable in them.

        The modules keep the weights until the next run or `release`: a network that computes activations a second
        time in the backward pass (`torch.utils.checkpoint`) needs them there.
        """
        folded, scales = {}, self.scales  # asking for the scales folds the batch norms and fills `_moved`
        for name, weight in weights.items():
            if name in self._moved:
                place, rest = self._moved[name]
                folded[place] = weight + rest
                continue
            scale = scales.get(name)
            weight = weight if scale is None else weight * scale
            folded[name] = weight.contiguous(memory_format=self.speedups.layout) if weight.dim() == 4 else weight
        self._reconstructed.put(folded)
        return self._reconstructed(inputs, features)

    @property
    def keeps_graph(self) -> bool:
        """Whether the last run of the reconstructed network has left tensors with a graph in attributes of its modules."""
        return bool(computed_attributes(self._reconstructed.network))

    def release(self) -> None:
        """Free the predicted weights of the last run, after its backward pass."""
        if "_reconstructed" in self.__dict__:
            self._reconstructed.put({})


class _Runner:
    """A network that runs with replaced parameters and captures its feature maps."""

    def __init__(self, network: nn.Module, features: Sequence[str], speedups: Speedups, device: torch.device) -> None:
        self.network, self._speedups, self._device = network, speedups, device
        self._capture = FeatureCapture(network, features)
        self._names: dict[int, list[tuple[nn.Module, str]]] = {}  # all modules and attributes that hold a parameter, by its id
        self._places: dict[str, list[tuple[nn.Module, str]]] = {}
        for place, module in network.named_modules(remove_duplicate=False):
            for name, value in module._parameters.items():
                if value is None:
                    continue
                spots = self._names.setdefault(id(value), [])
                if (module, name) not in spots:
                    spots.append((module, name))
                self._places[f"{place}.{name}" if place else name] = spots
        self._buffers = [(module, name) for module in network.modules() for name, _ in module._buffers.items()]
        self._own = {id(spots): spots[0][0]._parameters[spots[0][1]] for spots in self._places.values()}
        self._changed: list[list[tuple[nn.Module, str]]] = []

    def put(self, weights: Mapping[str, Tensor]) -> None:
        """Replace parameters by these tensors; all other parameters are the network's own again."""
        for spots in self._changed:
            _put(spots, self._own[id(spots)])
        self._changed = [self._places[name] for name in weights]
        for spots, value in zip(self._changed, weights.values(), strict=True):
            _put(spots, value)

    def __call__(self, inputs: Any, features: bool) -> Outputs:
        inputs = laid_out(inputs, self._speedups.layout)
        reduced = self._speedups.dtype != torch.float32
        with torch.autocast(self._device.type, torch.bfloat16, enabled=reduced), _nothing_computed_twice_outside_of_autograd():
            if not features:
                captured, logits = [], call(self.network, inputs)
            else:
                with self._capture.running() as captured:
                    logits = call(self.network, inputs)
        self._detach_buffers()
        if features and self._capture.spoiled:
            return self(inputs, features)
        return Outputs(to_float32(logits), captured)

    def _detach_buffers(self) -> None:
        """Detach buffers that the forward pass has computed, or the next backward pass would go through this one, too."""
        for module, name in self._buffers:
            value = module._buffers[name]
            if isinstance(value, Tensor) and value.requires_grad:  # in tracing, it may be a proxy of one
                module._buffers[name] = value.detach()


def _put(spots: list[tuple[nn.Module, str]], value: Any) -> None:
    for module, name in spots:
        module._parameters[name] = value


class _Plainly:
    """Replaces `torch.utils.checkpoint.CheckpointFunction`, whose outputs have no gradient where its inputs have none, by a plain call."""

    @staticmethod
    def apply(function: Any, preserve_rng_state: bool, *inputs: Any) -> Any:
        return function(*inputs)


@contextmanager
def _nothing_computed_twice_outside_of_autograd() -> Iterator[None]:
    """Switch reentrant activation checkpointing off, under which predicted weights would get no gradient."""
    before = torch.utils.checkpoint.CheckpointFunction
    torch.utils.checkpoint.CheckpointFunction = _Plainly  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        torch.utils.checkpoint.CheckpointFunction = before  # type: ignore[misc]
