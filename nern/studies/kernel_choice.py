"""The kernels that a representation reproduces best and worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
from torch import Tensor

from nern.kernels.coordinates import LayerMapping
from nern.studies.importance import LayerErrors

#: Below this part of its layer's root mean square norm a kernel counts as nearly zero.
SMALL = 0.1


@attrs.frozen(eq=False)
class ChosenKernel:
    """One kernel with its place and its error."""

    parameter: str
    filter: int
    channel: int
    error: float  # relative error ‖ŵ − w‖ / ‖w‖
    original: Tensor  # [kh, kw]
    reconstructed: Tensor  # [kh, kw]


def best_and_worst(
    original: Mapping[str, Tensor],
    reconstructed: Mapping[str, Tensor],
    errors: Mapping[str, LayerErrors],
    layers: Sequence[LayerMapping],
    count: int = 10,
) -> tuple[list[ChosenKernel], list[ChosenKernel]]:
    """The `count` kernels of lowest error, best first, and those of highest error, worst first.

    Kernels with more than one weight are preferred, since a single number makes no picture. Kernels that are nearly zero are
    left out, because any error is large beside them: those whose norm is below `SMALL` of the root mean square of the norms in
    their layer.
    """
    spatial = [layer for layer in layers if layer.area > 1] or list(layers)
    places = []
    for layer in spatial:
        values = errors[layer.parameter].kernels
        flat = values.reshape(-1)
        norms = layer.split(original[layer.parameter].detach().cpu().double()).reshape(len(flat), -1).norm(dim=1)
        counts = norms > SMALL * norms.square().mean().sqrt()
        order = [index for index in flat.argsort(stable=True).tolist() if counts[index]]
        near = dict.fromkeys([*order[:count], *order[-count:]])
        places += [(float(flat[index]), layer, *divmod(index, values.shape[1])) for index in near]
    places.sort(key=lambda place: place[0])

    def shown(place: tuple[float, LayerMapping, int, int]) -> ChosenKernel:
        error, layer, row, channel = place
        pictures = [
            layer.split(weights[layer.parameter].detach().cpu().float()).reshape(layer.filters, layer.channels, *layer.kernel)[row, channel]
            for weights in (original, reconstructed)
        ]
        return ChosenKernel(layer.parameter, row, channel, error, *pictures)

    return [shown(place) for place in places[:count]], [shown(place) for place in places[::-1][:count]]
