"""Compares the ordering of tiles, which linear layers are cut into, with the exact greedy path: seconds, and length of the paths.

Layers of a vision transformer have few tiles of many numbers, and the path through them is exact. A large classifier has many tiles,
which are ordered in parts: its path is not the exact one.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from torch import Tensor

from benchmarks.baseline import quadratic_path
from benchmarks.report import publish, table
from nern.kernels.distances import path_length
from nern.kernels.greedy_path import greedy_path
from nern.networks.layers import map_layers
from nern.networks.state_dicts import read_state_dict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transformer", default="vit_tiny_patch16_224", help="name of a timm model, all of whose layers are ordered")
    parser.add_argument("--weights", help="file of weights; without it a random matrix of the same shape is ordered")
    parser.add_argument("--entry", default="classifier.weight", help="matrix in this file")
    parser.add_argument("--shape", type=int, nargs=2, default=[1000, 1280], help="shape of the random matrix")
    parser.add_argument("--side", type=int, default=5, help="side of the matrix's tiles")
    parser.add_argument("--compare", type=int, nargs="*", default=[6400, 12800, 51200], help="how many of its tiles are ordered")
    options = parser.parse_args()
    rows = [compared(f"{options.transformer}, all layers", layers_of(options.transformer))]
    matrix = torch.randn(options.shape, generator=torch.Generator().manual_seed(0))
    if options.weights is not None:
        matrix = read_state_dict(options.weights)[options.entry].float()
    tiles = cut(matrix, options.side)
    name = options.entry if options.weights is not None else f"random {matrix.shape[0]} × {matrix.shape[1]}"
    for count in options.compare:
        rows.append(compared(f"{name}, {'all' if count >= len(tiles) else 'some'} tiles", [tiles[:: max(1, len(tiles) // count)][:count]]))
    head = [
        "what",
        "tiles",
        "numbers in each",
        "processor seconds",
        "times faster than the exact way",
        "path, times as long as the exact one",
    ]
    cells = [
        [row["what"], f"{row['tiles']:,}", row["numbers"], f"{row['seconds']:.1f}", f"{row['faster']:.1f}", f"{row['longer']:.3f}"]
        for row in rows
    ]
    publish("tiles", {"rows": rows}, table(head, cells))


def layers_of(name: str) -> list[Tensor]:
    """The tiles [n, k] of every represented layer of a timm model with fresh weights."""
    import timm

    torch.manual_seed(0)
    network = timm.create_model(name).eval()
    inputs = torch.zeros(1, *network.pretrained_cfg["input_size"])
    state = network.state_dict()
    return [layer.split(state[layer.parameter]).flatten(1) for layer in map_layers(network, inputs, "all")]


def cut(matrix: Tensor, side: int) -> Tensor:
    """The whole tiles of a matrix: [n, side²]."""
    rows, columns = (length // side for length in matrix.shape)
    return matrix[: rows * side, : columns * side].reshape(rows, side, columns, side).transpose(1, 2).reshape(rows * columns, side * side)


def compared(what: str, layers: list[Tensor]) -> dict[str, Any]:
    """Order layers in both ways."""
    seconds, length = clocked(layers, greedy_path)
    exact_seconds, exact_length = clocked(layers, quadratic_path)
    return {
        "what": what,
        "tiles": sum(map(len, layers)),
        "numbers": layers[0].shape[1],
        "seconds": seconds,
        "length": length,
        "faster": exact_seconds / seconds,
        "longer": length / exact_length,
    }


def clocked(layers: list[Tensor], order: Any) -> tuple[float, float]:
    """Processor seconds of ordering layers one after the other, and the length of all paths."""
    began = time.process_time()
    paths = [order(layer) for layer in layers]
    return time.process_time() - began, sum(path_length(layer[path]) for layer, path in zip(layers, paths, strict=True))


if __name__ == "__main__":
    main()
