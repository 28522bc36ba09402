"""The handwritten digits that scikit-learn contains: real images that need no download."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import attrs
import torch

from nern import Data, DataError, Preprocessing, Task, generator, hookimpl
from nern.toolkit.images import ImageData

TEST_IMAGES = 397


@attrs.frozen
class Digits(Task):
    """1,797 digits of 8 × 8 grey pixels (Alpaydin & Kaynak 1998), 397 of them the test set."""

    gives_images: ClassVar[bool] = True

    def check(self, preprocessing: Preprocessing) -> None:
        if preprocessing.size != (1, 8, 8):
            raise DataError(
                f"digits have 1 channel and 8 × 8 pixels, the network takes {preprocessing.size}: set architecture.channels=1, size=8"
            )

    def open(self, preprocessing: Preprocessing, heldout: float, seed: int) -> Data:
        from sklearn.datasets import load_digits

        self.check(preprocessing)
        digits = load_digits()
        images = torch.from_numpy(digits.images).mul(255 / 16).round().to(torch.uint8)[:, None]
        labels = torch.from_numpy(digits.target).long()
        # A fixed seed, so that all runs have the same test set
        order = torch.randperm(len(images), generator=generator(0, "digits", "test"))
        test, train = order[:TEST_IMAGES], order[TEST_IMAGES:]
        return ImageData(
            (images[train], labels[train]), (images[test], labels[test]), preprocessing, classes=10, heldout=heldout, seed=seed
        )


@hookimpl
def nern_tasks() -> Mapping[str, type[Task]]:
    return {"digits": Digits}
