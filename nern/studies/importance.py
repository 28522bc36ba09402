"""The errors of a representation by layer, filter and kernel, as a measure of importance (Ashkenazi et al. 2023, sec. 5)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from nern.errors import ArtifactError, ConfigError
from nern.interfaces import Data
from nern.kernels.coordinates import LayerMapping
from nern.outputs.nested import call, described, part
from nern.studies.opening import OpenRepresentation
from nern.support.files import write_tensors, write_text
from nern.support.messages import cannot_write, did_you_mean


@attrs.frozen(eq=False)
class LayerErrors:
    """Relative errors ‖ŵ − w‖ / ‖w‖ in a layer; NaN where the original weights are all zero."""

    layer: float
    filters: Tensor  # [filters] float64
    kernels: Tensor  # [filters, channels] float64


@attrs.frozen(eq=False)
class Activations:
    """Activations of filters of the original network, averaged over images."""

    maps: Tensor  # [filters, h, w] float32: the layer's mean output
    strength: Tensor  # [filters] float64: mean absolute value of the output


@attrs.frozen(eq=False)
class Importance:
    """Errors of every represented layer, and the activations in one of them."""

    errors: dict[str, LayerErrors]  # by parameter name
    layer: str  # parameter name of the layer whose activations were measured
    lowest: list[int]  # the layer's filters with the lowest errors, best first
    highest: list[int]  # the layer's filters with the highest errors, worst first
    activations: Activations
    correlation: float  # Spearman's rank correlation of error and strength over the layer's filters

    def to_dict(self) -> dict[str, Any]:
        """All figures as values for JSON, without the errors of single kernels and the maps, which `save` writes as tensors."""
        errors = {name: {"layer": of_layer.layer, "filters": of_layer.filters.tolist()} for name, of_layer in self.errors.items()}
        strength = self.activations.strength.tolist()
        return {
            "layer": self.layer, "lowest": self.lowest, "highest": self.highest, "correlation": self.correlation,
            "strength": strength, "errors": errors,
        }  # fmt: skip

    def save(self, folder: Path) -> None:
        """Write `importance.json` and `importance.safetensors` (`kernels.<parameter>`, `lowest` and `highest` maps).

        Raises:
            ArtifactError: the folder cannot be written.
        """
        tensors = {f"kernels.{name}": of_layer.kernels for name, of_layer in self.errors.items()}
        tensors |= {"lowest": self.activations.maps[self.lowest], "highest": self.activations.maps[self.highest]}
        text = json.dumps(_without_nan(self.to_dict()), indent=2) + "\n"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_tensors(folder / "importance.safetensors", tensors)
            write_text(folder / "importance.json", text)
        except OSError as error:
            raise ArtifactError(cannot_write(folder, error, "free space or name another folder with -o")) from error


def importance(opened: OpenRepresentation, layer: str | None = None, filters: int = 10, images: int = 1000) -> Importance:
    """Errors of all represented weights, and the activations of a layer's filters with the lowest and highest error.

    Args:
        layer: parameter name or module name; by default the last represented layer.
        filters: how many of the lowest and of the highest.
        images: how many test images activations are averaged over.

    Raises:
        ConfigError: the original weights are not found, or there is no such layer.
    """
    from scipy.stats import spearmanr

    errors = errors_of(opened)
    assert opened.original is not None  # whoever opens for this asks for more than the weights alone
    name = _find(layer, list(errors))
    mapping = next(candidate for candidate in opened.artifact.representation.grid.layers if candidate.parameter == name)
    activations = mean_activations(opened.original, mapping, opened.data, images, opened.device)
    error = errors[name].filters
    order = [index for index in error.argsort(stable=True).tolist() if not bool(error[index].isnan())]
    correlation = float(spearmanr(error[order].numpy(), activations.strength[order].numpy()).statistic)
    return Importance(errors, name, order[:filters], order[::-1][:filters], activations, correlation)


def errors_of(opened: OpenRepresentation) -> dict[str, LayerErrors]:
    """Relative errors of every represented layer, by parameter name; no images are needed.

    Raises:
        ConfigError: the original weights are not found.
    """
    if opened.original_weights is None:
        raise ConfigError("errors are those against the original weights: name their file with architecture.weights=FILE")
    weights = opened.original_weights, opened.artifact.representation.reconstruct()
    return relative_errors(*weights, opened.artifact.representation.grid.layers)


def relative_errors(
    original: Mapping[str, Tensor], reconstructed: Mapping[str, Tensor], layers: Sequence[LayerMapping]
) -> dict[str, LayerErrors]:
    """‖ŵ − w‖ / ‖w‖ of every kernel, filter and layer, in float64, by parameter name."""
    errors = {}
    for layer in layers:
        name, shape = layer.parameter, (layer.filters, layer.channels, -1)
        truth, guess = (layer.split(weights[name].detach().cpu().double()).reshape(shape) for weights in (original, reconstructed))
        wrong, there = (guess - truth).square().sum(2), truth.square().sum(2)
        ratios = [(a / b).sqrt() for a, b in ((wrong.sum(), there.sum()), (wrong.sum(1), there.sum(1)), (wrong, there))]
        ratios = [torch.where(b == 0, torch.nan, ratio) for ratio, b in zip(ratios, (there.sum(), there.sum(1), there), strict=True)]
        errors[name] = LayerErrors(float(ratios[0]), ratios[1], ratios[2])
    return errors


@torch.no_grad()
def mean_activations(network: nn.Module, layer: LayerMapping, data: Data, images: int, device: torch.device) -> Activations:
    """The activations of the filters of one layer of `network`, averaged over the first `images` test images.

    Raises:
        ConfigError: the layer's outputs do not correspond to its filters, as in a table of embeddings.
    """
    network, module = network.to(device).eval(), layer.parameter.rpartition(".")[0]
    captured: list[Tensor] = []
    handle = network.get_submodule(module).register_forward_hook(lambda _, inputs, output: captured.append(output))
    counted, maps, strength = 0, torch.zeros(()), torch.zeros(())
    try:
        for inputs, _ in data.batches("test", 100, device):
            inputs = part(inputs, slice(images - counted))
            call(network, inputs)
            output = by_filters(captured.pop(), layer).double().cpu()
            counted, maps, strength = counted + len(output), maps + output.sum(0), strength + output.abs().mean((2, 3)).sum(0)
            if counted >= images:
                break
    finally:
        handle.remove()
    return Activations((maps / counted).float(), strength / counted)


def by_filters(output: Any, layer: LayerMapping) -> Tensor:
    """Reshape a layer's output to one picture for each of its filters, [b, filters, h, w].

    The filters are the channels of a convolution's output [b, f, …], or the features of a linear layer's output [b, …, f]. A filter
    of tiles contains as many features as a tile is high; these are the rows of its picture.
    """
    if not isinstance(output, Tensor) or output.dim() < 2:
        raise ConfigError(f"'{layer.parameter}' belongs to a module whose output is {described(output)}; name another layer with --layer")
    matrix = len(layer.shape) == 2
    output = output.movedim(-1, 1) if matrix else output
    rows = layer.kernel[0] if matrix else 1
    missing = layer.filters * rows - output.shape[1]
    if not 0 <= missing < rows:
        raise ConfigError(
            f"the outputs of '{layer.parameter}' do not belong to its {layer.filters} filters; name another layer with --layer"
        )
    whole = torch.cat([output, output.new_zeros(len(output), missing, *output.shape[2:])], dim=1) if missing else output
    width = output.shape[-1] if output.dim() > 2 else 1
    return whole.reshape(len(output), layer.filters, -1, width)


def _find(layer: str | None, names: list[str]) -> str:
    if layer is None:
        return names[-1]
    for name in names:
        if layer in (name, name.rpartition(".")[0]):
            return name
    hint = did_you_mean(layer, [name.rpartition(".")[0] for name in names], f" (there are: {', '.join(names)})")
    raise ConfigError(f"layer '{layer}' is not represented{hint}")


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and value != value else value
