"""Writes docs/reproduction.md: the paper's numbers, the numbers measured and the commands, side by side.

    python -m benchmarks.reproduction [--check]

Measured numbers come from the files that `benchmarks.rows` left in docs/results, and from nowhere else.
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

from benchmarks.rows import RESULTS, ROOT
from nern.config.preset_families import spelled
from nern.config.structuring import structure_component
from nern.kernels.coordinates import LayerMapping
from nern.kernels.orders import FilterOrder, KernelOrder, pack_orders
from nern.registry.discovery import create_registry
from nern.studies.tables import Mean

PAGE = ROOT / "docs" / "reproduction.md"
PAPER = ROOT / "nern" / "studies" / "report" / "paper.yaml"
FAST = "-fast"
NOT_RUN = "*not run*"

INTRODUCTION = """# Reproduction

The paper's numbers, the numbers measured with this library, and the command for each. Percentages are top-1 on the test
set. A row is run by

<!-- test: needs-cifar -->
```bash
nern train table1/resnet20-cross-filter-160 task.root=DIR architecture.weights=FILE
```

where `DIR` holds the images and `FILE` the original weights; `nern presets` with the row's name prints its configuration.
`nern train table1/resnet20-cross-filter-160-fast` takes the minutes that are given, the row as printed the paper's days.

| what | where from | SHA-256 begins |
| --- | --- | --- |
| CIFAR-10 and CIFAR-100 | `task.download=true` fetches them into `DIR` | |
| ResNet20, 91.73 % | `resnet20-12fca82f.th` of [Y. Idelbayev][trained] | `12fca82f0bebc413` |
| ResNet56, 93.39 % | `resnet56-4bfd9763.th`, the same | `4bfd97631478d6b6` |
| ResNet18 | torchvision, `ResNet18_Weights.IMAGENET1K_V1` | |

[trained]: https://github.com/akamaster/pytorch_resnet_cifar10

*Paper's recipe* is the paper's own length and optimiser, *fast recipe* the row with `-fast` behind its name. Checkpoints are chosen
on held-out training images and the test set is measured once, at the end; the paper reports the best checkpoint on the
test set. Several seeds give mean ± 95 % confidence interval. A number that was not measured is *not run*. *(one run)* marks a
single run that the paper's authors published, and *see the paper* marks a table that could not be transcribed. Minutes were measured on
{machines}. `precision: auto` computes in bfloat16 where the processor can; on a processor that cannot, distillation takes
[nearly twice as long](performance.md#a-step).

This page is written by `python -m benchmarks.reproduction` from the result files in `docs/results`, which
`python -m benchmarks.rows` keeps.
"""

#: Figure → what it shows, and the commands that draw it. The picture is docs/assets/<name>.svg.
FIGURES = {
    "figure3": (
        "Figure 3: accuracy against the smoothness factor, on digits",
        "nern sweep digits pretrain.smoothness=1e-5,1e-4,1e-3,1e-2 predictor.hidden=16,24 smoother.name=none output=smooth\n"
        "nern plot smoothness smooth -o figure3",
    ),
    "figure4": (
        "Figure 4: training with and without distillation",
        "nern train table6/reconstruction-fast task.root=DIR architecture.weights=FILE evaluate_every=200 output=plain\n"
        "nern train table6/reconstruction-kd-fmd-fast task.root=DIR architecture.weights=FILE evaluate_every=200 \\\n"
        "  phases.distillation.iterations=400 output=distilled\n"
        'nern plot training "reconstruction alone=plain" "then distillation=distilled" -o figure4',
    ),
    "figure5-pruning": (
        "Figure 5, left: pruning the predictor",
        "nern train resnet20-cifar10-fast task.root=DIR architecture.weights=FILE output=run\n"
        "nern prune run --ratios 0,0.1,0.2,0.3,0.4,0.5,0.6,0.7 -o pruned\n"
        "nern prune run --ratios 0,0.1,0.2,0.3,0.4 --finetune 200 -o tuned\nnern plot pruning pruned -o figure5-pruning",
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
    found = read_results(results)
    tables = yaml.safe_load(PAPER.read_text(encoding="utf-8"))
    assets = PAGE.parent / "assets" if assets is None else assets
    parts = [
        INTRODUCTION.replace("{machines}", _machines(found)),
        *(_table(table, found) for table in tables),
        _sizes(),
        _files(found),
        _other(found),
        _figures(results, assets),
    ]
    return "\n".join(part for part in parts if part)


def read_results(folder: Path) -> list[dict[str, Any]]:
    """Every result file that a row's run left, sorted by name; other JSON files are not results of rows."""
    found = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))]
    return [result for result in found if isinstance(result, dict) and "preset" in result]


def measured(results: Sequence[Mapping[str, Any]], preset: str) -> str:
    """`91.50 ± 0.10 of 91.73 (4 seeds, 12 min on 1 thread)`, or that it was not run."""
    runs = [result for result in results if result["preset"] == preset and not result["overrides"]]
    runs = [result for result in runs if result["reconstructed_top1"] is not None]
    if not runs:
        return NOT_RUN
    original = Mean.of([result["original_top1"] for result in runs]).mean
    minutes = Mean.of([result["seconds"] for result in runs]).mean / 60
    seeds = f"{len(runs)} seed{'s' if len(runs) > 1 else ''}"
    places = sorted({_place(result["environment"]) for result in runs})
    top1 = Mean.of([result["reconstructed_top1"] for result in runs])
    return f"**{top1}** of {original:.2f} ({seeds}, {minutes:,.0f} min on {' or '.join(places)})"


def _machines(results: Sequence[Mapping[str, Any]]) -> str:
    """`an Intel(R) Xeon(R) Processor in bfloat16`, and what else there was."""
    found = sorted({(result["environment"]["processor"], result["environment"]["dtype"]) for result in results})
    return " or ".join(f"one {processor} in {dtype}" for processor, dtype in found) or "no machine yet"


def _place(environment: Mapping[str, Any]) -> str:
    if environment["device"] != "cpu":
        return str(environment["processor"])
    return f"{environment['threads']} thread{'s' if environment['threads'] > 1 else ''}"


def _table(table: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> str:
    lines = [f"## {table['title']}\n"]
    if table.get("note"):
        lines.append(f"{table['note']}\n")
    lines += ["| paper | paper's recipe, measured | fast recipe, measured | command |", "| --- | --- | --- | --- |"]
    for row, reported in table["rows"].items():
        preset = f"{table['family']}/{row}"
        cells = [_reported(reported, row, table["original"]), measured(results, preset), measured(results, preset + FAST)]
        lines.append(f"| {' | '.join(cells)} | `nern train {preset}` |")
    return "\n".join(lines) + "\n"


def _reported(reported: object, row: str, originals: Mapping[str, float]) -> str:
    text = str(reported)
    original = next((value for name, value in originals.items() if row.startswith(name)), None)
    return f"{text} of {original:.2f}" if original is not None and text[0].isdigit() else text


def _other(results: Sequence[Mapping[str, Any]]) -> str:
    runs = [result for result in results if result["overrides"] and result["reconstructed_top1"] is not None]
    if not runs:
        return ""
    lines = ["## Other runs\n", "Rows with some values changed.\n", "| reconstructed | original | command |", "| --- | --- | --- |"]
    lines += [f"| {run['reconstructed_top1']:.2f} | {run['original_top1']:.2f} | `{run['command']}` |" for run in runs]
    return "\n".join(lines) + "\n"


def _files(results: Sequence[Mapping[str, Any]]) -> str:
    """What the files of the measured runs weigh, a line for each preset, the smallest part of its original first."""
    runs = [run for run in results if run["reconstructed_top1"] is not None and "bytes" in run]
    if not runs:
        return ""
    by_preset: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        words = [run["preset"], *(f"{key}={spelled(value)}" for key, value in run["overrides"].items())]
        by_preset.setdefault(" ".join(words), []).append(run)
    lines = [
        "## Files\n",
        "Bytes of the whole file, of its parts, and of the original network's state dict in the same format.\n",
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
    """Tables 8 and 9: computed from the architectures, nothing to train."""
    registry = create_registry(entry_points=False)
    lines = [
        "## Tables 8 and 9: sizes\n",
        "MB of 2²⁰ bytes. Orderings are packed at ⌈log₂ n⌉ bits an entry; the paper's formulas do not round up.\n",
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
        mark = "" if name == "figure8" else "<!-- test: long -->\n"  # the one figure that needs no run
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
    text = page()
    if chosen.check:
        current = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
        if current != text:
            print(f"{PAGE} is not up to date: python -m benchmarks.reproduction", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(text, encoding="utf-8")
    print(PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
