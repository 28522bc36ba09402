"""Draws the paper's figures from the files of runs, sweeps and studies. matplotlib is imported when a figure is drawn."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nern.errors import ConfigError, DataError
from nern.studies import run_figures
from nern.studies.curves import read_curves
from nern.studies.drawing import colours, empty_figure, in_style, legend_beside, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from nern.interfaces import Embedding
    from nern.studies.opening import OpenRepresentation


@in_style
def smoothness(sweep: Mapping[str, Any]) -> Figure:
    """Figure 3: accuracy of original and reconstructed networks against the smoothness factor, from a `sweep.json`.

    Raises:
        DataError: the sweep did not vary `pretrain.smoothness`.
    """
    factor = "pretrain.smoothness"
    if factor not in sweep.get("axes", ()):
        raise DataError(f"this sweep did not vary {factor}: nern sweep PRESET {factor}=1e-6,5e-6,1e-5")
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for setting in sweep["settings"]:
        label = ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in setting["values"].items() if key != factor)
        lines.setdefault(label, []).append(setting)
    figure, (axes,) = new_figure()
    for above, (colour, (label, settings)) in enumerate(zip(colours(len(lines)), lines.items(), strict=True)):
        settings = sorted(settings, key=lambda setting: float(setting["values"][factor]))
        factors = [setting["values"][factor] for setting in settings]
        for name, style, marker in (("original_top1", "--", "s"), ("reconstructed_top1", "-", "o")):
            means = [setting["figures"][name]["mean"] for setting in settings]
            bars = [setting["figures"][name]["interval"] for setting in settings]
            text = f"{name.partition('_')[0]} {label}".strip()
            # settings may have the same original: where lines coincide, the lower one is wider
            size = {"linewidth": 1.3 + 1.8 * (len(lines) - 1 - above), "markersize": 4 + 3 * (len(lines) - 1 - above)}
            shown: dict[str, Any] = {"fmt": style, "marker": marker, "color": colour, "label": text, **size}
            if any(bar is not None for bar in bars):
                shown |= {"yerr": [bar or 0 for bar in bars], "capsize": 3}
            axes.errorbar(factors, means, **shown)
    positive = [float(setting["values"][factor]) for setting in sweep["settings"] if float(setting["values"][factor]) > 0]
    if len(positive) == len(sweep["settings"]):
        axes.set_xscale("log")
    elif positive:  # a network without regularisation stands at 0, left of the others
        axes.set_xscale("symlog", linthresh=min(positive))
    axes.set(xlabel="smoothness factor", ylabel="top-1, %")
    legend_beside(axes)
    return figure


@in_style
def training(runs: Mapping[str, Path]) -> Figure:
    """Figure 4: held-out accuracy over the steps of several runs, from their `metrics.jsonl`; label → run directory.

    Raises:
        DataError: a run has no such file, or was never measured on held-out images.
    """
    return run_figures.heldout({label: read_curves(run) for label, run in runs.items()})


@in_style
def pruning(curves: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Figure 5, left: accuracy against the part of the predictor that was pruned and against bytes on disk.

    Args:
        curves: by label, what `nern prune` wrote to `pruning.json`.

    Raises:
        DataError: the test set had no labels, or the curves belong to different original networks.
    """
    if any(point["score"].get("top1") is None for curve in curves.values() for point in curve["points"]):
        raise DataError("the curve holds no accuracies: its test set had no labels, or its task has other figures")
    originals = {curve["original"]["top1"] for curve in curves.values() if curve["original"] is not None}
    if len(originals) > 1:
        raise DataError(f"the curves belong to different original networks: their top-1 accuracies are {sorted(originals)}")
    figure, (left, right) = new_figure(2)
    for colour, (label, curve) in zip(colours(len(curves)), curves.items(), strict=True):
        accuracies = [point["score"]["top1"] for point in curve["points"]]
        shown: dict[str, Any] = {"marker": "o", "markersize": 4, "color": colour, "label": label}
        left.plot([100 * point["ratio"] for point in curve["points"]], accuracies, **shown)
        right.plot([point["bytes"]["total"] / 1000 for point in curve["points"]], accuracies, **shown)
    for original in originals:
        for axes in (left, right):
            axes.axhline(original, color="#666666", linestyle="--", linewidth=1, label="original")
    left.set(xlabel="pruned entries of the predictor, %", ylabel="top-1, %")
    right.set(xlabel="bytes on disk, KB (all parts of the file)")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=min(3, len(curves) + 1), frameon=False)
    return figure


@in_style
def importance(folder: Path) -> Figure:
    """Figure 5, right: mean activation maps of the filters with the lowest and the highest error, from `nern importance`.

    Raises:
        DataError: the folder holds no such files.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    measured = _read_json(folder / "importance.json")
    try:
        tensors = load_file(str(folder / "importance.safetensors"))
    except (OSError, SafetensorError) as error:
        raise DataError(f"{folder} holds no complete importance.safetensors ({error}); write it with nern importance RUN") from error
    errors = measured["errors"][measured["layer"]]["filters"]
    limit = max(float(tensors[name].abs().max()) for name in ("lowest", "highest"))
    count = max(len(measured["lowest"]), len(measured["highest"]))
    figure = empty_figure(7.4, 1.1 + 1.9 * max(1.0, 5 / count))
    grid = figure.subplots(2, count, squeeze=False)
    for row, (name, title) in enumerate((("lowest", "lowest\nerror"), ("highest", "highest\nerror"))):
        for column, axes in enumerate(grid[row]):
            axes.set_axis_off()
            if column < len(measured[name]):
                shown = axes.imshow(tensors[name][column].numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit)
                index = measured[name][column]
                axes.set_title(f"filter {index}\n{errors[index]:.2f}" if count <= 6 else f"#{index}\n{errors[index]:.2f}", fontsize=9)
        grid[row][0].text(-0.25, 0.5, title, transform=grid[row][0].transAxes, ha="right", va="center", fontsize=9)
    figure.colorbar(shown, ax=grid, shrink=0.8, label="mean activation")
    number = "" if count <= 6 else " (# is the filter's number)"
    figure.suptitle(f"{measured['layer'].removesuffix('.weight')}: mean activation and relative error of filters{number}", fontsize=10)
    return figure


@in_style
def kernels(opened: OpenRepresentation, layer: str | None = None, channel: int = 0, side: int = 8) -> Figure:
    """Figure 6: the kernels of one channel in `side`² filters, original and reconstructed.

    Args:
        layer: parameter or module name; by default the second represented layer, as in the paper.

    Raises:
        ConfigError: the original weights are not found, or there is no such layer or channel.
    """
    if opened.original_weights is None:
        raise ConfigError("original kernels are shown beside the reconstructed ones: name their file with architecture.weights=FILE")
    layers = {mapping.parameter: mapping for mapping in opened.artifact.representation.grid.layers}
    names = {name for parameter in layers for name in (parameter, parameter.rpartition(".")[0])}
    if layer is not None and layer not in names:
        raise ConfigError(f"layer '{layer}' is not represented (there are: {', '.join(layers)})")
    name = next(name for name in layers if layer in (name, name.rpartition(".")[0])) if layer else list(layers)[min(1, len(layers) - 1)]
    mapping = layers[name]
    if not 0 <= channel < mapping.channels:
        raise ConfigError(f"channel {channel} is outside 0 … {mapping.channels - 1} of {name}")
    weights: dict[str, dict[str, Tensor]] = {
        "original": dict(opened.original_weights),
        "reconstructed": opened.artifact.representation.reconstruct(),
    }
    shape = (mapping.filters, mapping.channels, *mapping.kernel)
    pictures = {
        title: _mosaic(mapping.split(state[name].detach().cpu()).reshape(shape)[:, channel], side) for title, state in weights.items()
    }
    limit = float(pictures["original"].nan_to_num().abs().max())
    figure, axes = new_figure(2, width=7.4, gap=0.14)
    for axis, (title, picture) in zip(axes, pictures.items(), strict=True):
        image = axis.imshow(picture.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit)
        axis.set_title(title)
        axis.set_axis_off()
    figure.suptitle(f"{name.removesuffix('.weight')}, channel {channel}", fontsize=10)
    figure.colorbar(image, ax=list(axes), shrink=0.8, label="weight")
    return figure


@in_style
def embeddings(variants: Mapping[str, Embedding], channels: int = 64, at: int = 31) -> Figure:
    """Figure 8: normalised cosine similarity between embeddings of (0, 0, c) and that of (0, 0, `at`); label → embedding."""
    from nern.studies.embedding_similarity import embedding_similarity

    figure, (axes,) = new_figure()
    for colour, (label, embedding) in zip(colours(len(variants)), variants.items(), strict=True):
        axes.plot(embedding_similarity(embedding, channels, at).numpy(), color=colour, label=label)
    axes.set(xlabel="channel coordinate c", ylabel=f"normalised cosine similarity to c = {at}")
    legend_beside(axes)
    return figure


@in_style
def comparison(table: Mapping[str, Any]) -> Figure:
    """Accuracy against bytes on disk, a line for each kind of baseline, from a `compare.json`."""
    rows = table["rows"]
    name = next(key for key in rows[0] if key not in ("family", "name", "bytes"))
    if rows[0][name] is None:
        raise DataError("this comparison has no labels: there is no figure to draw bytes against")
    figure, (axes,) = new_figure()
    families: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows[1:]:
        families.setdefault(row["family"], []).append(row)
    families = dict(sorted(families.items(), key=lambda family: family[0] != "representation"))
    for colour, (family, members) in zip(colours(len(families)), families.items(), strict=True):
        given = family == "representation"
        points = sorted((row["bytes"] / 1000, row[name]) for row in members)
        style: dict[str, Any] = {"marker": "*", "markersize": 12, "zorder": 3} if given else {"marker": "o", "markersize": 4}
        axes.plot([size for size, _ in points], [value for _, value in points], label=family, color=colour, **style)
    axes.axhline(rows[0][name], color="grey", linestyle="--", linewidth=1, label=f"original, {rows[0]['bytes'] / 1000:,.0f} KB")
    shown = [row[name] for row in rows if row[name] is not None]
    best = max(shown)
    near = [value for value in shown if value > best - 10]  # a destroyed network would compress the scale of all others
    axes.set_ylim(min(near) - 0.5, best + 0.5)
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="bytes on disk, KB (1,000 bytes)", ylabel="top-1 %" if name == "top1" else name)
    legend_beside(axes)
    return figure


#: What the files of studies must hold to be drawn, and the verb that writes them.
WRITTEN = {"sweep.json": ("settings", "sweep"), "pruning.json": ("points", "prune"), "compare.json": ("rows", "compare")}


def read(path: Path, name: str) -> Any:
    """What a study wrote: a JSON file, or the one called `name` in a folder.

    Raises:
        DataError: there is none, it is no JSON, or another study wrote it.
    """
    file = path / name if path.is_dir() else path
    key, verb = WRITTEN[name]
    if not file.exists():
        raise DataError(f"cannot read {file}: there is no such file; name the folder of a nern {verb}")
    content = _read_json(file)
    if not isinstance(content, dict) or not content.get(key):
        raise DataError(f"{file} is not what nern {verb} writes: it has no '{key}'; name the folder of a nern {verb}")
    return content


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path} ({getattr(error, 'strerror', None) or error})") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not complete JSON ({error})") from error


def _mosaic(kernels: Tensor, side: int) -> Tensor:
    """The first side² kernels [n, kh, kw] as one picture [h, w], with one pixel (NaN) between them."""
    count, height, width = kernels.shape
    side = min(side, math.ceil(math.sqrt(count)))
    framed = kernels.new_full((side * side, height + 1, width + 1), math.nan)
    shown = kernels[: side * side]
    framed[: len(shown), :height, :width] = shown
    return framed.reshape(side, side, height + 1, width + 1).permute(0, 2, 1, 3).reshape(side * (height + 1), -1)[:-1, :-1]
