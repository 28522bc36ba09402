"""Original weights and images of the recorded runs: the same bits on every machine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

import nern


def write_weights(path: Path, architecture: Mapping[str, Any], kind: str) -> Path:
    """Weights of the architecture's shapes, of numpy's frozen generator: the same bits on every machine.

    Args:
        kind: `float32`, `float16` for a file of half precision, or `pruned` for one with half of its weights at zero.
    """
    options = dict(architecture)
    cls = nern.create_registry(entry_points=False).find("architecture", options.pop("name")).cls
    state, source = {}, np.random.RandomState(0)
    for name, value in cls(**options).build().state_dict().items():
        if not value.is_floating_point():
            state[name] = torch.zeros_like(value)
            continue
        drawn = source.random_sample(tuple(value.shape))  # uniform in [0, 1)
        if value.dim() > 1:
            wide = math.sqrt(6 / math.prod(value.shape[1:])) * (0.3 if value.dim() == 2 else 1.0)  # logits of moderate size
            numbers = np.where(np.abs(drawn - 0.5) < 0.25, 0, drawn - 0.5) if kind == "pruned" else drawn - 0.5
            numbers = 2 * wide * numbers
        elif name.endswith(("running_var", ".weight")):
            numbers = 0.5 + drawn
        else:
            numbers = 0.4 * (drawn - 0.5)
        state[name] = torch.from_numpy(np.asarray(numbers)).to(torch.float16 if kind == "float16" else torch.float32)
    save_file(state, str(path))
    return path


def write_images(root: Path, classes: int, side: int, train: int, test: int) -> Path:
    """Coloured squares with noise as PNG files, which keep every bit: `root/{train,test}/<class>/<number>.png`."""
    from PIL import Image

    source = np.random.RandomState(1)
    colours = source.randint(0, 128, (classes, 1, 1, 3))
    for split, count in (("train", train), ("test", test)):
        for label in range(classes):
            folder = root / split / f"{label:03d}"
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = colours[label] + source.randint(0, 128, (side, side, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    return root
