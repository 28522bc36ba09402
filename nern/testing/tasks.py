"""Checks a task."""

from __future__ import annotations

from typing import Literal, cast

import torch

from nern.interfaces import Data, Preprocessing, Task
from nern.outputs.kinds import OutputKind
from nern.testing.assertions import check_tensor, equal, expect
from nern.testing.options import check_options


def check_task(task: Task, preprocessing: Preprocessing | None = None, heldout: float = 0.25) -> None:
    """Every split gives normalised images of the size that was asked for, in an order that seed and step alone decide."""
    check_options("task", task)
    preprocessing = preprocessing or Preprocessing()
    state = torch.get_rng_state()
    device = torch.device("cpu")
    data, again = (task.open(preprocessing, heldout, 3) for _ in range(2))
    expect(isinstance(data, Data), "open() must return a nern.Data")
    splits = set(data.splits)
    expect(bool(splits) and splits <= {"train", "heldout", "test"}, f'splits must be among "train", "heldout" and "test", are {splits}')
    if "train" in splits:
        draw, other = data.inputs(4, 5, device), again.inputs(4, 5, device)
        batches = [draw(step) for step in range(4)]
        for batch in batches:
            check_tensor(batch, [4, *preprocessing.size], "inputs(4, …)(step)")
        expect(torch.equal(draw(1), batches[1]), "step 1 drawn again gives other images: a resumed run would differ")
        expect(torch.equal(other(2), batches[2]), "opening the task again gives other images for the same seed and step")
        expect(not torch.equal(batches[0], batches[1]), "two steps give the same images")
    expect(isinstance(task.outputs(), OutputKind), "outputs() must return a kind of outputs, such as nern.toolkit.outputs.ClassLogits()")
    for split in sorted(splits - {"train"}):
        _check_split(data, cast(Literal["heldout", "test"], split), preprocessing, device)
    expect(torch.equal(torch.get_rng_state(), state), "the task draws from torch's global generator; use nern.generator(seed, step)")


def _check_split(data: Data, split: Literal["heldout", "test"], preprocessing: Preprocessing, device: torch.device) -> None:
    what = f"batches('{split}', …)"
    first, second = (list(data.batches(split, 16, device)) for _ in range(2))
    expect(len(first) > 0, f"{what} holds no image, though splits names it")
    for (images, labels), (images2, labels2) in zip(first, second, strict=True):
        expect(1 <= len(images) <= 16, f"{what} gives a batch of {len(images)} images where 16 were asked for")
        check_tensor(images, [len(images), *preprocessing.size], what)
        expect(torch.equal(images, images2) and equal(labels, labels2), f"{what} is in another order each time")
        if labels is None:
            continue
        expect(list(labels.shape) == [len(images)] and labels.dtype == torch.int64, f"{what} must give labels [b] int64")
        expect(data.classes is not None, f"{what} gives labels, but classes is None")
        expect(
            bool(((labels >= 0) & (labels < cast(int, data.classes))).all()),
            f"{what} gives labels outside 0 … {cast(int, data.classes) - 1}",
        )
