"""Writes docs/reproduction.md: the paper's numbers, the numbers measured and the commands, side by side.

The measured numbers are also written to nern/studies/report/measured.json, from which `nern presets` and `nern train` show them.

    python -m benchmarks.reproduction [--check]

All measured numbers come from the files that `benchmarks.rows` wrote to docs/results.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.rows import RESULTS, ROOT, changed_since
from nern.config.preset_families import spelled
from nern.config.sources import presets
from nern.config.structuring import structure_component
from nern.errors import ConfigError
from nern.kernels.coordinates import LayerMapping
from nern.kernels.orders import FilterOrder, KernelOrder, pack_orders
from nern.registry.discovery import create_registry
from nern.studies.tables import Mean

PAGE = ROOT / "docs" / "reproduction.md"
PAPER = ROOT / "nern" / "studies" / "report" / "paper.yaml"
MEASURED = PAPER.with_name("measured.json")  # the page's numbers for `nern presets` and `nern train`
FAST = "-fast"
NOT_RUN = "*not run*"

INTRODUCTION = """# Reproduction

The paper's numbers, the numbers measured with this library, and the command for each. Percentages are top-1 on the test set.
The command beside a number is the one that made it; the folder of the images and the file of the weights are added to it, as
here:

<!-- test: needs-cifar -->
```bash
nern train table1/resnet20-cross-filter-160-fast task.root=DIR architecture.weights=FILE
```

`DIR` is the folder of the images and `FILE` has the original weights. `nern presets` with the row's name prints its
configuration. A row with several seeds was made by several such commands, with `seed=0`, `seed=1` and so on. Without `-fast` at
its end, a row is the paper's own recipe, which takes a day on a CPU.

| what | where from | SHA-256 begins |
| --- | --- | --- |
| CIFAR-10 and CIFAR-100 | `task.download=true` fetches them into `DIR` | |
| ResNet20, 91.73 % | `resnet20-12fca82f.th` of [Y. Idelbayev][trained] | `12fca82f0bebc413` |
| ResNet56, 93.39 % | `resnet56-4bfd9763.th`, the same | `4bfd97631478d6b6` |
| ResNet18 | torchvision, `ResNet18_Weights.IMAGENET1K_V1` | |

[trained]: https://github.com/akamaster/pytorch_resnet_cifar10

*Hidden* is the predictor's hidden size, and *inputs* are what both networks see in distillation. The *recipe* is either the
*paper's*, with its own length and optimiser, or *fast*, with GELU, Muon and two short phases, the first of which compares weights
alone. On CIFAR-10 and CIFAR-100, and for SqueezeNet with its classifier, *fast* also has Fourier features in place of the positional
embedding, and so a slightly larger file. *To the original* is the difference in points from the original network that was used
here. Checkpoints are chosen on held-out training images and the test set is measured once, at the end; the paper
reports the best checkpoint on the test set. For several seeds the table has the mean ± the 95 % confidence interval. Rows
without a measurement are marked *not run*. *(one run)* marks a single run that the paper's authors published, and *see the
paper* marks a table that could not be transcribed. Minutes were measured on {machines}. `precision: auto` computes in bfloat16
where the processor can; on a processor that cannot, distillation takes [nearly twice as long](performance.md#a-step).

This page is written by `python -m benchmarks.reproduction` from the result files in `docs/results`, which
`python -m benchmarks.rows` keeps.
"""

#: For each figure, what it shows and the commands that draw it. The picture is docs/assets/<name>.svg.
FIGURES = {
    "figure3": (
        "Figure 3: accuracy against the smoothness factor, on digits",
        "nern sweep digits pretrain.smoothness=1e-5,1e-4,1e-3,1e-2 predictor.hidden=16,24 smoother.name=none output=smooth\n"
        "nern plot smoothness smooth -o figure3",
    ),
    "figure3-resnet20": (
        "Figure 3: accuracy against the smoothness factor, ResNet20",
        "nern sweep resnet20-cifar10-fast task.root=DIR pretrain.weights=FILE pretrain.epochs=2 pretrain.lr=0.01 threads=1 \\\n"
        "  pretrain.smoothness=0,1e-5,5e-5,5e-4,5e-3 predictor.hidden=80,140 smoother=none output=smooth20\n"
        "nern plot smoothness smooth20 -o figure3-resnet20",
    ),
    "figure4": (
        "Figure 4: training with and without distillation",
        "nern train resnet20-cifar10-fast recipe=fast embedding=positional task.root=DIR architecture.weights=FILE evaluate_every=200 \\\n"
        "  phases.reconstruction.iterations=2000 phases.distillation=null output=plain\n"
        "nern train resnet20-cifar10-fast recipe=fast embedding=positional task.root=DIR architecture.weights=FILE evaluate_every=200 \\\n"
        "  phases.reconstruction.iterations=2000 phases.distillation.iterations=400 output=distilled\n"
        'nern plot training "reconstruction alone=plain" "then distillation=distilled" -o figure4',
    ),
    "figure5-pruning": (
        "Figure 5, left: pruning the predictor",
        "nern train resnet20-cifar10-fast recipe=fast embedding=positional task.root=DIR architecture.weights=FILE output=run\n"
        "nern prune run --ratios 0,0.1,0.2,0.3,0.4,0.5,0.6,0.7 -o smallest\n"
        "nern prune run --ratios 0.1,0.2,0.3,0.4 --finetune 200 -o smallest-tuned\n"
        "nern prune run --ratios 0,0.1,0.2,0.3,0.4 --method compensated -o compensated\n"
        "nern prune run --ratios 0.1,0.2,0.3,0.4,0.5 --method compensated --finetune 200 -o compensated-tuned\n"
        'nern plot pruning "smallest entries=smallest" "fine-tuned=smallest-tuned" "compensated=compensated" \\\n'
        '  "compensated, fine-tuned=compensated-tuned" -o figure5-pruning',
    ),
    "figure5-importance": (
        "Figure 5, right: activations of the filters with the lowest and highest error",
        "nern importance run --layer layer3.0.conv2 -o importance\nnern plot importance importance -o figure5-importance",
    ),
    "figure6": ("Figure 6: original and reconstructed kernels", "nern plot kernels run -o figure6"),
    "figure8": ("Figure 8: similarity of positional embeddings", "nern plot embeddings -o figure8"),
}

#: Table 9: architecture, classes, and the paper's MB of in-filter and cross-filter orderings.
OVERHEADS = (
    ("ResNet20, CIFAR-10", {"name": "cifar-resnet", "depth": 20, "classes": 10}, 0.02, 0.04),
    ("ResNet56, CIFAR-10", {"name": "cifar-resnet", "depth": 56, "classes": 10}, 0.065, 0.128),
    ("ResNet20, CIFAR-100", {"name": "cifar-resnet", "depth": 20, "classes": 100}, 0.02, 0.04),
    ("ResNet56, CIFAR-100", {"name": "cifar-resnet", "depth": 56, "classes": 100}, 0.065, 0.128),
    ("ResNet18, ImageNet", {"name": "imagenet-resnet", "depth": 18}, 1.246, 2.505),
)


def page(results: Path = RESULTS, assets: Path | None = None) -> str:
    """The whole page as Markdown."""
    rows = read_results(results)
    tables = yaml.safe_load(PAPER.read_text(encoding="utf-8"))
    assets = PAGE.parent / "assets" if assets is None else assets
    parts = [
        INTRODUCTION.replace("{machines}", _machines(rows)),
        *(_table(table, measured(rows)) for table in tables),
        _sizes(),
        _files(rows),
        _other(rows),
        _figures(results, assets),
    ]
    return "\n".join(part for part in parts if part)


def read_results(folder: Path) -> list[dict[str, Any]]:
    """The result files of rows' runs, sorted by name; other JSON files are ignored.

    Raises:
        ConfigError: a result was made before its preset was changed.
    """
    files = {file: json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))}
    results = {file: result for file, result in files.items() if isinstance(result, dict) and "preset" in result}
    for file, result in results.items():
        if changed := changed_since(result):
            raise ConfigError(
                f"{file}: {result['preset']} had other values when this was measured ({', '.join(changed)}); "
                f"delete the file, or measure again with python -m benchmarks.rows {result['preset']} --seeds {result['seed']}"
            )
    return list(results.values())


def measured(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The measurements of each unchanged preset: accuracies, bytes, minutes and seeds (see `nern.studies.report.measured`)."""
    by_preset: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        if not result["overrides"] and result["reconstructed_top1"] is not None:
            by_preset.setdefault(result["preset"], []).append(result)
    return {preset: _summary(runs) for preset, runs in sorted(by_preset.items())}


def _summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    top1, original = (Mean.of([run[key] for run in runs]) for key in ("reconstructed_top1", "original_top1"))
    return {
        "top1": str(top1),
        "original": round(original.mean, 2),
        "difference": round(top1.mean - original.mean, 2),
        "seeds": len(runs),
        "minutes": round(Mean.of([run["seconds"] for run in runs]).mean / 60, 2),
        "on": " or ".join(sorted({_place(run["environment"]) for run in runs})),
        "bytes": round(Mean.of([run["bytes"]["total"] for run in runs]).mean) if all("bytes" in run for run in runs) else None,
    }


def _machines(results: Sequence[Mapping[str, Any]]) -> str:
    """The machines of the results as text, such as `one Intel(R) Xeon(R) Processor in bfloat16`."""
    machines = sorted({(result["environment"]["processor"], result["environment"]["dtype"]) for result in results})
    return " or ".join(f"one {processor} in {dtype}" for processor, dtype in machines) or "no machine yet"


def _place(environment: Mapping[str, Any]) -> str:
    if environment["device"] != "cpu":
        return str(environment["processor"])
    return f"{environment['threads']} thread{'s' if environment['threads'] > 1 else ''}"


HEADS = (
    "network", "ordering", "hidden", "inputs", "paper", "recipe", "measured", "to the original", "seeds", "minutes", "bytes", "command",
)  # fmt: skip


def _table(table: Mapping[str, Any], by_preset: Mapping[str, Mapping[str, Any]]) -> str:
    """The table with one line for every measured preset, and one for every row without measurements."""
    lines = [f"## {table['title']}\n"]
    if table.get("note"):
        lines.append(f"{table['note']}\n")
    lines += [f"| {' | '.join(HEADS)} |", f"|{' --- |' * len(HEADS)}"]
    for row, reported in table["rows"].items():
        preset = f"{table['family']}/{row}"
        both = {preset: "paper's", preset + FAST: "fast"}
        shown = [name for name in both if name in by_preset] or [preset + FAST]
        for name in shown:
            cells = [*_setting(name), _reported(reported, row, table["original"]), both[name], *_figures_of(by_preset.get(name))]
            lines.append(f"| {' | '.join(cells)} | `nern train {name}` |")
    return "\n".join(lines) + "\n"


def _setting(preset: str) -> list[str]:
    """Network, ordering, hidden size and inputs of a preset."""
    values = presets().values_of(preset)
    architecture, phases = values["architecture"], values["phases"]
    network = {"cifar-resnet": "ResNet", "imagenet-resnet": "ResNet", "squeezenet": "SqueezeNet"}[architecture["name"]]
    network += str(architecture.get("depth", architecture.get("version", "")))
    network += " with classifier" if architecture.get("layers") == "convolutions" else ""
    smoothness = (values.get("pretrain") or {}).get("smoothness")
    network += f", smoothness {smoothness:g}" if smoothness else ""
    seen = [_inputs(phase, values) for phase in phases if _compares_networks(phase.get("losses", values.get("losses", {})))]
    return [network, values["smoother"]["name"], str(values["predictor"]["hidden"]), " and ".join(dict.fromkeys(seen)) or "none"]


def _compares_networks(losses: Mapping[str, Any]) -> bool:
    """Whether a loss runs the networks; null switches a loss off."""
    return any(losses.get(name) is not None for name in ("kd", "fmd"))


def _inputs(phase: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    name = str((phase.get("inputs") or values["task"])["name"])
    return {"uniform-noise": "noise", **dict.fromkeys(("image-folder", "photographs", "cifar10", "cifar100"), "images")}.get(name, name)


def _figures_of(summary: Mapping[str, Any] | None) -> list[str]:
    if summary is None:
        return [NOT_RUN, *[""] * 4]
    size = "" if summary["bytes"] is None else f"{summary['bytes']:,}"
    minutes = f"{summary['minutes']:.0f} on {summary['on']}"
    difference = f"{summary['difference']:+.2f}".replace("-", "−")
    return [f"**{summary['top1']}** of {summary['original']:.2f}", difference, str(summary["seeds"]), minutes, size]


def _reported(reported: object, row: str, originals: Mapping[str, float]) -> str:
    text = str(reported)
    original = next((value for name, value in originals.items() if row.startswith(name)), None)
    return f"{text} of {original:.2f}" if original is not None and text[0].isdigit() else text


def _other(results: Sequence[Mapping[str, Any]]) -> str:
    runs = [result for result in results if result["overrides"] and result["reconstructed_top1"] is not None]
    if not runs:
        return ""
    lines = [
        "## Other runs\n",
        "These runs are rows of the tables with some values changed.\n",
        "| reconstructed | original | command |",
        "| --- | --- | --- |",
    ]
    lines += [f"| {run['reconstructed_top1']:.2f} | {run['original_top1']:.2f} | `{run['command']}` |" for run in runs]
    return "\n".join(lines) + "\n"


def _files(results: Sequence[Mapping[str, Any]]) -> str:
    """The table of the sizes of measured runs' files, the smallest part of the original first."""
    runs = [run for run in results if run["reconstructed_top1"] is not None and "bytes" in run]
    if not runs:
        return ""
    by_preset: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        words = [run["preset"], *(f"{key}={spelled(value)}" for key, value in run["overrides"].items())]
        by_preset.setdefault(" ".join(words), []).append(run)
    lines = [
        "## Files\n",
        "The table has the bytes of the whole file, of its parts, and of the original network's state dict in the same format.\n",
        "| preset | top-1 % | original | file | predictor | embedding | ordering | kept zeros | copied | original's file | part of it |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for preset, same in sorted(by_preset.items(), key=lambda item: item[1][0]["bytes"]["total"] / item[1][0]["bytes"]["original"]):
        sizes = same[0]["bytes"]
        parts = [f"{sizes[part]:,}" for part in ("total", "predictor", "embedding", "ordering", "zeros", "copied", "original")]
        top1, original = (Mean.of([run[key] for run in same]) for key in ("reconstructed_top1", "original_top1"))
        lines.append(f"| `{preset}` | {top1} | {original.mean:.2f} | {' | '.join(parts)} | {sizes['total'] / sizes['original']:.1%} |")
    return "\n".join(lines) + "\n"


def _sizes() -> str:
    """Tables 8 and 9, which are computed from the architectures without training."""
    registry = create_registry(entry_points=False)
    lines = [
        "## Tables 8 and 9: sizes\n",
        "A MB is 2²⁰ bytes here. An entry of an ordering that has n choices is packed into ⌈log₂ n⌉ bits; "
        "the paper's formulas do not round up.\n",
        "| network | all parameters and buffers | represented | in-filter: paper | packed | cross-filter: paper | packed |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for title, options, in_filter, cross_filter in OVERHEADS:
        architecture = structure_component("architecture", options, registry, title)
        network = architecture.build()
        layers = list(architecture.layers(network))
        state = sum(value.numel() * value.element_size() for value in network.state_dict().values())
        represented = sum(4 * torch.Size(layer.shape).numel() for layer in layers)
        packed = [ordering_bytes(layers, cross) for cross in (False, True)]
        cells = [f"{bytes_ / 2**20:.3f}" for bytes_ in (state, represented, *packed)]
        lines.append(f"| {title} | {cells[0]} | {cells[1]} | {in_filter} | {cells[2]} | {cross_filter} | {cells[3]} |")
    return "\n".join(lines) + "\n"


def ordering_bytes(layers: Sequence[LayerMapping], cross: bool) -> int:
    """Bytes of the packed orderings of these layers."""
    orders = []
    for layer in layers:
        filters, channels = layer.filters, layer.channels
        if cross:
            orders.append(KernelOrder(filters, channels, torch.arange(filters * channels)))
        else:
            orders.append(FilterOrder(filters, channels, torch.arange(channels).expand(filters, channels), torch.arange(filters)))
    return len(pack_orders(orders))


def _figures(results: Path, assets: Path) -> str:
    lines = ["## Figures\n"]
    for name, (title, commands) in FIGURES.items():
        lines.append(f"### {title}\n")
        mark = "" if name == "figure8" else "<!-- test: long -->\n"  # the only figure that needs no run
        lines.append(f"{mark}```bash\n{commands}\n```\n")
        lines.append(f"![{title}](assets/{name}.svg)\n" if (assets / f"{name}.svg").exists() else f"{NOT_RUN}\n")
        data = results / f"{name}.md"
        if data.exists():
            lines.append(data.read_text(encoding="utf-8"))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reproduction", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the page is not up to date")
    chosen = parser.parse_args(arguments)
    try:
        wanted = {PAGE: page(RESULTS), MEASURED: json.dumps(measured(read_results(RESULTS)), indent=1, ensure_ascii=False) + "\n"}
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    for path, text in wanted.items():
        if not chosen.check:
            path.write_text(text, encoding="utf-8")
            print(path)
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            print(f"{path} is not up to date: python -m benchmarks.reproduction", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
