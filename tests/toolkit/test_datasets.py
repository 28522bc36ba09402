"""Data sets and loaders as tasks: what a step gives depends on its number alone, and nothing is lost or seen twice."""

from __future__ import annotations

from itertools import chain
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import nern
from nern.errors import DataError
from nern.testing import check_task
from nern.toolkit.datasets import DatasetData, LoaderData

CPU = torch.device("cpu")


class Noisy(Dataset):
    """Numbered items that draw from torch's global generator, as augmentation does."""

    def __init__(self, count: int, noise: float = 0.01) -> None:
        self.count, self.noise = count, noise

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return index + self.noise * torch.randn(3), index % 5


def seen(data: Any, batch: int, steps: range) -> list[list[int]]:
    draw = data.inputs(batch, 7, CPU)
    return [draw(step)[0][:, 0].round().int().tolist() for step in steps]


@pytest.mark.parametrize("loader", [False, True])
def test_an_epoch_holds_every_item_once_and_steps_can_be_taken_up_anywhere(loader: bool) -> None:
    data: Any = LoaderData(DataLoader(Noisy(24), batch_size=6, shuffle=True)) if loader else DatasetData(Noisy(24))
    before = torch.get_rng_state()
    rows = seen(data, 6, range(8))
    assert sorted(chain(*rows[:4])) == sorted(chain(*rows[4:])) == list(range(24))
    assert rows[:4] != rows[4:]  # each epoch has an order of its own
    draw, again = data.inputs(6, 7, CPU), data.inputs(6, 7, CPU)
    whole = [draw(step) for step in range(8)]
    for step in (6, 1, 7):  # with the noise of the items, too
        assert all(torch.equal(a, b) for a, b in zip(again(step), whole[step], strict=True))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_stream_without_length_starts_again_and_resumes_exactly() -> None:
    class Stream(IterableDataset):
        def __iter__(self):
            return (torch.full((1,), float(i)) + 0.01 * torch.randn(1) for i in range(7))

    data = LoaderData(DataLoader(Stream(), batch_size=3), targets=False)
    draw, again = data.inputs(3, 1, CPU), data.inputs(3, 1, CPU)
    whole = [draw(step) for step in range(9)]
    assert [len(batch) for batch in whole] == [3, 3, 1] * 3
    assert torch.equal(again(5), whole[5])
    assert torch.equal(again(2), whole[2])


def test_held_out_items_are_never_trained_on() -> None:
    data = DatasetData(Noisy(20), Noisy(4), heldout=0.3, seed=1, classes=5, heldout_set=Noisy(20, 0.0))
    assert data.splits == {"train", "heldout", "test"}
    trained = set(chain(*seen(data, 7, range(6))))
    held = torch.cat([inputs for inputs, _ in data.batches("heldout", 4, CPU)])
    assert torch.equal(held, held.round())  # from the set without noise
    assert len(held) == 6
    assert len(trained) == 14
    assert not trained & set(held[:, 0].int().tolist())
    assert len(list(data.batches("test", 3, CPU))) == 2


def test_what_does_not_fit_is_refused() -> None:
    loader = DataLoader(Noisy(8), batch_size=4)
    with pytest.raises(DataError, match="gives batches of 4 and the phase asks for 256: set the phase's batch to 4"):
        LoaderData(loader).inputs(256, 0, CPU)
    with pytest.raises(DataError, match="train is an iterator, which can be gone through only once"):
        LoaderData(iter(loader))
    with pytest.raises(DataError, match=r"train is a generator, which has no len\(\) and no numbered items"):
        DatasetData(item for item in range(3))
    with pytest.raises(DataError, match=r"a batch is no pair \(inputs, targets\); say targets=False"):
        list(LoaderData(test=DataLoader(TensorDataset(torch.zeros(3, 2)))).batches("test", 3, CPU))
    with pytest.raises(DataError, match="the training loader gives no batch"):
        LoaderData([]).inputs(4, 0, CPU)(0)
    with pytest.raises(DataError, match="the task gives no targets with its training inputs"):
        DatasetData(Noisy(4), targets=False).pairs(2, 0, CPU)


@attrs.frozen
class Sequences(nern.Task):
    """Waves [1, 20] in three classes, from a data set or from loaders."""

    loader: bool = nern.option(False, help="whether loaders give the batches")

    def open(self, preprocessing, heldout, seed):
        def waves(count, name):
            labels = torch.arange(count) % 3
            phases = torch.rand(count, 1, 1, generator=nern.generator(0, name))
            return TensorDataset(torch.sin((labels[:, None, None] + 1) * torch.arange(20) * 0.3 + 6 * phases), labels)

        if self.loader:
            loaders = [DataLoader(waves(96, split), batch_size=16, shuffle=split == "train") for split in ("train", "heldout", "test")]
            return LoaderData(*loaders, classes=3)
        return DatasetData(waves(96, "train"), waves(30, "test"), heldout=heldout, seed=seed, classes=3)


@pytest.mark.parametrize("loader", [False, True])
def test_the_contract_holds_for_what_is_no_image(loader: bool) -> None:
    task = Sequences(loader=loader)
    if not loader:  # a loader's batches have a size of their own
        check_task(task, example=torch.zeros(2, 1, 20))
    data = task.open(nern.Preprocessing(), 0.25, 0)
    assert data.examples == (96 if loader else 72)
