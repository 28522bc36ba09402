"""Checks a task."""

from __future__ import annotations

from typing import Any, Literal, cast

import torch

from nern.interfaces import Data, Preprocessing, Task
from nern.outputs.component_contracts import problem_with_outputs
from nern.outputs.kinds import ClassLogits
from nern.outputs.nested import count, tensors_of
from nern.run.task_data import problem_with_data
from nern.support.contracts import described_value
from nern.testing.assertions import check_tensor, expect, expect_none
from nern.testing.options import check_options


def check_task(task: Task, preprocessing: Preprocessing | None = None, heldout: float = 0.25, example: Any = None) -> None:
    """Check that every split gives normalised images of the right size, in an order that depends on seed and step alone.

    Args:
        preprocessing: the preprocessing with which the task is opened.
        heldout: the fraction that is held out.
        example: example inputs of the network, where its inputs are no images (`Architecture.example_inputs`).
    """
    check_options("task", task)
    preprocessing = preprocessing or Preprocessing()
    state = torch.get_rng_state()
    device = torch.device("cpu")
    data, again = (task.open(preprocessing, heldout, 3) for _ in range(2))
    expect_none(problem_with_data(data))
    splits = set(data.splits)
    if "train" in splits:
        draw, other = data.inputs(4, 5, device), again.inputs(4, 5, device)
        batches = [draw(step) for step in range(4)]
        for batch in batches:
            if data.gives_targets:
                pair = isinstance(batch, tuple) and len(batch) == 2
                expect(pair, "gives_targets is set, so that inputs(4, …)(step) must give (inputs, targets)")
                expect(count(batch[1]) == 4, f"inputs(4, …)(step) gives 4 inputs and {count(batch[1])} targets")
            _check_inputs(batch[0] if data.gives_targets else batch, 4, preprocessing, example, "inputs(4, …)(step)")
        expect(_same(draw(1), batches[1]), "step 1 drawn again gives other images: a resumed run would differ")
        expect(_same(other(2), batches[2]), "opening the task again gives other images for the same seed and step")
        expect(not _same(batches[0], batches[1]), "two steps give the same images")
    expect_none(problem_with_outputs(task.outputs()))
    for split in sorted(splits - {"train"}):
        _check_split(task, data, cast(Literal["heldout", "test"], split), preprocessing, example, device)
    expect(torch.equal(torch.get_rng_state(), state), "the task draws from torch's global generator; use nern.generator(seed, step)")


def _check_split(
    task: Task, data: Data, split: Literal["heldout", "test"], preprocessing: Preprocessing, example: Any, device: torch.device
) -> None:
    what, outputs = f"batches('{split}', …)", task.outputs()
    first, second = (list(data.batches(split, 16, device)) for _ in range(2))
    expect(len(first) > 0, f"{what} holds no image, though splits names it")
    for (images, labels), (images2, labels2) in zip(first, second, strict=True):
        number = count(images)
        expect(example is not None or 1 <= number <= 16, f"{what} gives a batch of {number} images where 16 were asked for")
        _check_inputs(images, number, preprocessing, example, what)
        expect(_same((images, labels), (images2, labels2)), f"{what} is in another order each time")
        if labels is None or not isinstance(outputs, ClassLogits):
            continue
        expect(list(labels.shape) == [number] and labels.dtype == torch.int64, f"{what} must give labels [b] int64")
        expect(bool((labels >= 0).all()), f"{what} gives labels below 0")
        if data.classes is not None:
            expect(bool((labels < data.classes).all()), f"{what} gives labels outside 0 … {data.classes - 1}")


def _check_inputs(inputs: Any, number: int, preprocessing: Preprocessing, example: Any, what: str) -> None:
    if example is None:
        check_tensor(inputs, [number, *preprocessing.size], what)
        return
    tensors, wanted = tensors_of(inputs), tensors_of(example)
    expect(len(tensors) == len(wanted), f"{what} gives {len(tensors)} tensors where the network takes {len(wanted)}")
    for tensor, like in zip(tensors, wanted, strict=True):
        right = described_value(like[:1].expand(number, *like.shape[1:]))
        expect(described_value(tensor) == right, f"{what} must give {right}, gave {described_value(tensor)}")
        expect(bool(tensor.isfinite().all()), f"{what} must give finite numbers, and gives others")


def _same(a: Any, b: Any) -> bool:
    ours, theirs = tensors_of(a), tensors_of(b)
    return len(ours) == len(theirs) and all(torch.equal(x, y) for x, y in zip(ours, theirs, strict=True))
