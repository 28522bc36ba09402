"""Draws original and reconstructed kernels side by side: `python docs/make_figures.py RUN_DIR PICTURE.png`."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from torch import Tensor

import nern
from nern.weights import read_state_dict


def kernels(state: dict[str, Tensor], parameter: str, side: int = 8) -> Tensor:
    """The first side² kernels of a convolution, laid out on a square with one pixel between them: [h, w]."""
    weight = state[parameter]
    first = weight.reshape(-1, *weight.shape[2:])[: side * side]
    framed = first.new_full((side * side, weight.shape[2] + 1, weight.shape[3] + 1), float("nan"))
    framed[:, :-1, :-1] = first
    return framed.reshape(side, side, *framed.shape[1:]).permute(0, 2, 1, 3).reshape(side * framed.shape[1], -1)[:-1, :-1]


def draw(run: Path, picture: Path, parameter: str = "layer1.0.conv1.weight") -> None:
    """Write the picture of one convolution of a run."""
    original = kernels(read_state_dict(run / "original.safetensors"), parameter)
    rebuilt = kernels(nern.load(run / "model.nern").reconstruct().state_dict(), parameter)
    limit = float(original.nan_to_num().abs().max())
    figure, axes = plt.subplots(1, 2, figsize=(8, 4.3))
    for axis, values, title in zip(axes, (original, rebuilt), ("original", "reconstructed"), strict=True):
        axis.imshow(values, cmap="RdBu", vmin=-limit, vmax=limit)
        axis.set_title(f"{title}: {parameter}", fontsize=10)
        axis.set_axis_off()
    figure.tight_layout()
    figure.savefig(picture, dpi=120, metadata={"Software": None})


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
