"""The paper's figures from what runs, sweeps and studies wrote. matplotlib is imported when a figure is drawn."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nern.errors import ArtifactError, ConfigError, DataError
from nern.toolkit.optional import import_optional

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

    from nern.interfaces import Embedding
    from nern.studies.opening import OpenRepresentation

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLE = {
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
    "svg.hashsalt": "nern", "svg.fonttype": "none", "figure.dpi": 150,
}  # fmt: skip


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
    figure, (axes,) = _figure(1)
    for colour, (label, settings) in zip(_colours(len(lines)), lines.items(), strict=True):
        settings = sorted(settings, key=lambda setting: float(setting["values"][factor]))
        factors = [setting["values"][factor] for setting in settings]
        for name, style in (("original_top1", "--"), ("reconstructed_top1", "-")):
            means = [setting["figures"][name]["mean"] for setting in settings]
            bars = [setting["figures"][name]["interval"] or 0 for setting in settings]
            text = f"{name.partition('_')[0]} {label}".strip()
            axes.errorbar(factors, means, yerr=bars, fmt=style, marker="o", markersize=4, capsize=3, color=colour, label=text)
    if all(float(setting["values"][factor]) > 0 for setting in sweep["settings"]):
        axes.set_xscale("log")
    axes.set(xlabel="smoothness factor", ylabel="top-1 %")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def training(runs: Mapping[str, Path]) -> Figure:
    """Figure 4: held-out accuracy over the steps of several runs, from their `metrics.jsonl`; label → run directory.

    Raises:
        DataError: a run has no such file, or was never measured on held-out images.
    """
    figure, (axes,) = _figure(1)
    for above, (colour, (label, run)) in enumerate(zip(_colours(len(runs)), runs.items(), strict=True)):
        points, width = _heldout(run), 1.5 + 2 * (len(runs) - 1 - above)  # runs may share their first phase: wide ones lie below
        axes.plot([step for step, _ in points], [top1 for _, top1 in points], color=colour, label=label, marker=".", linewidth=width)
    axes.set(xlabel="step", ylabel="held-out top-1 %")
    axes.legend(frameon=False)
    return figure


def pruning(curve: Mapping[str, Any]) -> Figure:
    """Figure 5, left: accuracy against the part of the predictor that was pruned and against bytes on disk, from `pruning.json`.

    Raises:
        DataError: the test set had no labels.
    """
    points = curve["points"]
    if any(point["score"].get("top1") is None for point in points):
        raise DataError("the curve holds no accuracies: its test set had no labels, or its task has other figures")
    accuracies = [point["score"]["top1"] for point in points]
    figure, (left, right) = _figure(2)
    left.plot([100 * point["ratio"] for point in points], accuracies, marker="o", markersize=4, color=COLOURS[0], label="reconstructed")
    right.plot([point["bytes"]["total"] / 1000 for point in points], accuracies, marker="o", markersize=4, color=COLOURS[0])
    if curve["original"] is not None:
        for axes in (left, right):
            axes.axhline(curve["original"]["top1"], color="#666666", linestyle="--", linewidth=1, label="original")
    left.set(xlabel="pruned entries of the predictor, %", ylabel="top-1 %")
    right.set(xlabel="bytes on disk, KB (all parts of the file)")
    left.legend(frameon=False)
    return figure


def importance(folder: Path) -> Figure:
    """Figure 5, right: mean activation maps of the filters with the lowest and the highest error, from `nern importance`.

    Raises:
        DataError: the folder holds no such files.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    found = _read_json(folder / "importance.json")
    try:
        tensors = load_file(str(folder / "importance.safetensors"))
    except (OSError, SafetensorError) as error:
        raise DataError(f"{folder} holds no complete importance.safetensors ({error}); write it with nern importance RUN") from error
    errors = found["errors"][found["layer"]]["filters"]
    limit = max(float(tensors[name].abs().max()) for name in ("lowest", "highest"))
    count = max(len(found["lowest"]), len(found["highest"]))
    with _styled() as figures:
        figure: Figure = figures.Figure(figsize=(1.1 * count + 0.8, 3.4), layout="constrained")
        grid = figure.subplots(2, count, squeeze=False)
        for row, name in enumerate(("lowest", "highest")):
            for column, axes in enumerate(grid[row]):
                axes.set_axis_off()
                if column < len(found[name]):
                    shown = axes.imshow(tensors[name][column].numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit)
                    index = found[name][column]
                    axes.set_title(f"{index}: {errors[index]:.2f}", fontsize=8)
        figure.colorbar(shown, ax=grid, shrink=0.8, label="mean activation")
        figure.suptitle(f"{found['layer']}: filters of lowest (top) and highest (bottom) relative error", fontsize=10)
    return figure


def kernels(opened: OpenRepresentation, layer: str | None = None, channel: int = 0, side: int = 8) -> Figure:
    """Figure 6: the kernels of one channel in `side`² filters, original and reconstructed.

    Args:
        layer: parameter or module name; by default the second represented layer, as in the paper.

    Raises:
        ConfigError: the original weights are not at hand, or there is no such layer or channel.
    """
    if opened.original is None:
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
        "original": dict(opened.original.named_parameters()),
        "reconstructed": opened.artifact.representation.reconstruct(),
    }
    shape = (mapping.filters, mapping.channels, *mapping.kernel)
    pictures = {
        title: _mosaic(mapping.split(found[name].detach().cpu()).reshape(shape)[:, channel], side) for title, found in weights.items()
    }
    limit = float(pictures["original"].nan_to_num().abs().max())
    figure, axes = _figure(2, width=4.2, height=4.4)
    for axis, (title, picture) in zip(axes, pictures.items(), strict=True):
        axis.imshow(picture.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit)
        axis.set_title(f"{title}: {name}, channel {channel}", fontsize=9)
        axis.set_axis_off()
    return figure


def embeddings(variants: Mapping[str, Embedding], channels: int = 64, at: int = 31) -> Figure:
    """Figure 8: normalised cosine similarity between embeddings of (0, 0, c) and that of (0, 0, `at`); label → embedding."""
    from nern.studies.embedding_similarity import embedding_similarity

    figure, (axes,) = _figure(1)
    for colour, (label, embedding) in zip(_colours(len(variants)), variants.items(), strict=True):
        axes.plot(embedding_similarity(embedding, channels, at).numpy(), color=colour, label=label)
    axes.set(xlabel="channel coordinate c", ylabel=f"normalised cosine similarity to c = {at}")
    axes.legend(frameon=False)
    return figure


def save(figure: Figure, path: Path) -> list[Path]:
    """Write a figure as PNG and SVG beside each other, the same bytes each time.

    Raises:
        ArtifactError: the folder cannot be written.
    """
    stem = path.with_suffix("") if path.suffix in (".png", ".svg") else path
    written = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "svg")]
    try:
        with _styled():
            figure.savefig(written[0], metadata={"Software": None})
            figure.savefig(written[1], metadata={"Date": None, "Creator": None})
    except OSError as error:
        raise ArtifactError(f"cannot write {error.filename or stem} ({error.strerror}); name another place with -o") from error
    return written


def read(path: Path, name: str) -> Any:
    """A JSON file, or the one called `name` in a folder.

    Raises:
        DataError: there is none, or it is no JSON.
    """
    return _read_json(path / name if path.is_dir() else path)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path} ({getattr(error, 'strerror', None) or error})") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not complete JSON ({error})") from error


def _heldout(run: Path) -> list[tuple[int, float]]:
    """Steps at which a run was measured on held-out images, and its top-1 % there."""
    file = run / "metrics.jsonl"
    if not file.is_file():
        raise DataError(f"{run} holds no run (there is no {file})")
    points = []
    for line in file.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if "top1" in record.get("heldout", {}):
            points.append((record["iteration"], record["heldout"]["top1"]))
    if not points:
        raise DataError(f"{run} was never measured on labelled held-out images; train with heldout above 0 and evaluate_every")
    return points


def _mosaic(kernels: Tensor, side: int) -> Tensor:
    """The first side² kernels [n, kh, kw] on a grid with a pixel between them: [h, w], not a number where there is nothing."""
    count, height, width = kernels.shape
    side = min(side, math.ceil(math.sqrt(count)))
    framed = kernels.new_full((side * side, height + 1, width + 1), math.nan)
    shown = kernels[: side * side]
    framed[: len(shown), :height, :width] = shown
    return framed.reshape(side, side, height + 1, width + 1).permute(0, 2, 1, 3).reshape(side * (height + 1), -1)[:-1, :-1]


def _colours(count: int) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(count)]


@contextmanager
def _styled() -> Iterator[Any]:
    """Within it nern's style holds; gives `matplotlib.figure`."""
    matplotlib: Any = import_optional("matplotlib", "plot", "a figure")
    with matplotlib.rc_context(STYLE):
        yield import_optional("matplotlib.figure", "plot", "a figure")


def _figure(panels: int, width: float = 5.2, height: float = 3.6) -> tuple[Figure, Sequence[Axes]]:
    with _styled() as figures:
        figure = figures.Figure(figsize=(width * panels, height), layout="constrained")
        figure.get_layout_engine().set(wspace=0.06)
        return figure, list(figure.subplots(1, panels, squeeze=False)[0])
