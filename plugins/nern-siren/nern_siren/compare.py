"""SIREN and trained embeddings beside the paper's MLP at equal bytes: `python -m nern_siren.compare --weights FILE --data DIR`.

Every row has the bytes (predictor and embedding together, float32) of the paper's MLP with the given hidden size, or
the most below it that a hidden size gives. Training is reconstruction alone, the same number of steps for each.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save_file
from torch import nn

from nern import Architecture, Embedding, Engine, KernelGrid, Predictor, Registry, create_registry

ROWS: list[tuple[str, dict[str, Any]]] = [  # predictor, embedding
    ("mlp", {"name": "positional"}),
    ("siren", {"name": "positional"}),
    ("mlp", {"name": "learned"}),
    ("siren", {"name": "learned"}),
    ("mlp", {"name": "hash-grid"}),
    ("siren", {"name": "hash-grid"}),
]


def bytes_of(*modules: nn.Module) -> int:
    """Bytes of the parameters of some modules."""
    return sum(value.numel() * value.element_size() for module in modules for value in module.parameters())


def built(predictor: Predictor, embedding: Embedding, grid: KernelGrid) -> int:
    """Bytes of a predictor with its embedding."""
    embed: Any = embedding.build(grid)
    return bytes_of(embed, predictor.build(int(embed.dim), grid.outputs))


def largest_hidden(cls: type[Predictor], embedding: Embedding, grid: KernelGrid, budget: int) -> int:
    """The largest hidden size whose bytes, with the embedding's, stay within the budget."""
    hidden = 1
    while built(cls(hidden=hidden + 1), embedding, grid) <= budget:  # type: ignore[call-arg]
        hidden += 1
    return hidden


def some_images(root: Path, folder: Path, each: int) -> Path:
    """A folder with the first `each` test images of every class."""
    for source in sorted((root / "test").iterdir()):
        target = folder / "test" / source.name
        target.mkdir(parents=True)
        for image in sorted(source.iterdir())[:each]:
            (target / image.name).symlink_to(image.resolve())
    return folder


def main() -> None:
    """Run every row and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", required=True, help="weights of a ResNet20 for CIFAR-10")
    parser.add_argument("--data", required=True, help="folder with train/ and test/ class folders")
    parser.add_argument("--steps", type=int, default=400, help="steps of reconstruction alone")
    parser.add_argument("--hidden", type=int, default=160, help="hidden size of the paper's MLP, which sets the bytes")
    parser.add_argument("--images", type=int, default=100, help="test images of each class")
    arguments = parser.parse_args()
    registry = create_registry()
    architecture: Architecture = registry.find("architecture", "cifar-resnet").cls(depth=20, weights=arguments.weights)
    network = architecture.build()
    architecture.load(network)
    grid = KernelGrid(tuple(architecture.layers(network)))
    paper = registry.find("predictor", "mlp").cls(hidden=arguments.hidden)
    budget = built(paper, registry.find("embedding", "positional").cls(), grid)
    print("| predictor | embedding | hidden | bytes | relative error | top-1 % | seconds |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for predictor, embedding in ROWS:
        cls = registry.find("predictor", predictor).cls
        hidden = largest_hidden(cls, registry.find("embedding", embedding["name"]).cls(), grid, budget)
        with tempfile.TemporaryDirectory() as folder:
            print(row(predictor, hidden, embedding, network, arguments, registry, Path(folder)), flush=True)


def row(
    predictor: str,
    hidden: int,
    embedding: dict[str, Any],
    network: nn.Module,
    arguments: argparse.Namespace,
    registry: Registry,
    folder: Path,
) -> str:
    """Train one predictor with one embedding; returns its line of the table."""
    original = folder / "original.safetensors"
    save_file(network.state_dict(), str(original))
    experiment = {
        "architecture": {"name": "cifar-resnet", "depth": 20, "weights": str(original)},
        "task": {"name": "cifar10", "root": str(some_images(Path(arguments.data), folder / "images", arguments.images))},
        "predictor": {"name": predictor, "hidden": hidden},
        "embedding": embedding,
        "smoother": {"name": "cross-filter"},
        "losses": {"reconstruction": {"form": "mse"}, "kd": None, "fmd": None},
        "sampler": {"name": "uniform", "batch": 4096},
        "optimizer": {"name": "muon", "lr": 2e-2},
        "observers": {"progress": None},
        "phases": [{"name": "reconstruction", "iterations": arguments.steps}],
        "heldout": 0.0,
        "evaluate_every": 0,
        "checkpoint_every": 0,
        "precision": "float32",
        "output": str(folder / "run"),
    }
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(experiment))
    engine = Engine.from_yaml(path, registry=registry)
    result = engine.fit()
    state, rebuilt = network.state_dict(), engine.representation.reconstruct()
    missed = sum(float((state[name] - weight).square().sum()) for name, weight in rebuilt.items())
    error = (missed / sum(float(state[name].square().sum()) for name in rebuilt)) ** 0.5
    size = result.bytes.predictor + result.bytes.embedding
    name = embedding["name"]
    return f"| {predictor} | {name} | {hidden} | {size:,} | {error:.3f} | {result.reconstructed_top1:.2f} | {result.seconds:.0f} |"


if __name__ == "__main__":
    main()
