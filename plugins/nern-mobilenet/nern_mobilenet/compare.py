"""What tiling pointwise kernels changes: `python -m nern_mobilenet.compare`.

Trains a MobileNetV2 of quarter width on scikit-learn's digits, then represents it with one weight to a pointwise kernel
and with blocks, at the same predictor, and prints the table of the README. With --count it trains nothing.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import load_file

from nern import Engine, KernelGrid, Result, create_registry
from nern_mobilenet.architecture import MobileNet

NETWORK = {"width": 0.25, "classes": 10, "channels": 1, "size": 8, "stem_stride": 1, "mean": [0.3], "std": [0.37]}


def experiment(folder: Path, block: int | None, smoother: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One row of the table; the first row's run trains the original network, the others read it."""
    original = folder / "original.safetensors"
    return {
        "architecture": {"name": "mobilenet", "weights": str(original) if original.exists() else None, "block": block, **NETWORK},
        "task": {"name": "digits"},
        "pretrain": {"epochs": 20, "batch": 64, "lr": 0.05},
        "predictor": {"name": "mlp", "hidden": arguments.hidden, "activation": "gelu"},
        "smoother": {"name": smoother},
        "losses": {"reconstruction": {"form": "mse"}, "kd": None, "fmd": None},
        "sampler": {"name": "uniform", "batch": 4096},
        "optimizer": {"name": "muon", "lr": 2e-2},
        "observers": {"progress": None},
        "phases": [{"name": "reconstruction", "iterations": arguments.steps}],
        "evaluate_every": 0,
        "checkpoint_every": 0,
        "precision": "float32",
        "output": str(folder / f"{block}-{smoother}"),
    }


def relative_error(engine: Engine, original: Path) -> float:
    """‖W − Ŵ‖ / ‖W‖ over all represented weights."""
    state, rebuilt = load_file(str(original)), engine.representation.reconstruct()
    missed = sum(float((state[name] - weight).square().sum()) for name, weight in rebuilt.items())
    error: float = (missed / sum(float(state[name].square().sum()) for name in rebuilt)) ** 0.5
    return error


def count() -> None:
    """Rows to predict and bytes of a cross-filter ordering (⌈log₂ F·C⌉ bits a kernel) for torchvision's networks."""
    print("| network | block | rows | predicted numbers | used | ordering, bytes |")
    print("| --- | --- | --- | --- | --- | --- |")
    for model in ("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"):
        for block in (1, None):
            architecture = MobileNet(model=model, block=block)
            network = architecture.build()
            grid = KernelGrid(tuple(architecture.layers(network)))
            weights = sum(network.get_parameter(layer.parameter).numel() for layer in grid.layers)
            bits = sum(layer.count * math.ceil(math.log2(layer.count)) for layer in grid.layers)
            used = 100 * weights / (grid.rows * grid.outputs)
            print(
                f"| {model} | {block or grid.size[0]} | {grid.rows:,} | {grid.rows * grid.outputs:,} | {used:.0f} % | {-(-bits // 8):,} |"
            )


def main() -> None:
    """Run every row and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3000, help="steps of reconstruction alone")
    parser.add_argument("--hidden", type=int, default=128, help="hidden size of the predictor")
    parser.add_argument("--smoothers", default="cross-filter", help="orderings to compare, separated by commas")
    parser.add_argument("--count", action="store_true", help="count rows and bits of the full networks instead, without training")
    arguments = parser.parse_args()
    if arguments.count:
        count()
        return
    registry = create_registry()
    print("| block | ordering | rows | ordering, bytes | predictor, bytes | relative error | top-1 % | seconds |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for block in (1, None):
            for smoother in arguments.smoothers.split(","):
                path = folder / "experiment.yaml"
                path.write_text(yaml.safe_dump(experiment(folder, block, smoother, arguments)))
                engine = Engine.from_yaml(path, registry=registry)
                result = engine.fit()
                if not (folder / "original.safetensors").exists():
                    engine.run.original.rename(folder / "original.safetensors")
                print(row(engine, result, folder / "original.safetensors", block, smoother), flush=True)
    print(f"\nThe original network has a top-1 of {result.original_top1:.2f} %.")


def row(engine: Engine, result: Result, original: Path, block: int | None, smoother: str) -> str:
    """One line of the table."""
    sizes, rows = result.bytes, engine.representation.grid.rows
    figures = [f"{rows:,}", f"{sizes.ordering:,}", f"{sizes.predictor:,}", f"{relative_error(engine, original):.3f}"]
    return f"| {block or 3} | {smoother} | {' | '.join(figures)} | {result.reconstructed_top1:.2f} | {result.seconds:.0f} |"


if __name__ == "__main__":
    main()
