"""Random generators that depend on seed, purpose and step alone, so that a resumed run draws the same numbers as an uninterrupted one."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive(seed: int, *place: object) -> int:
    """A seed of 63 bits for one purpose, such as `derive(0, "sampler", 2, 1500)`; seeds of different purposes are independent."""
    digest = hashlib.blake2b(repr((seed, *place)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def fingerprint(*values: object) -> str:
    """Sixteen hexadecimal digits that differ where `repr` of the values differs: for names of files and of entries of the cache."""
    return f"{derive(0, *values):016x}"


def generator(seed: int, *place: object, device: torch.device | str = "cpu") -> torch.Generator:
    """A new random generator, seeded by `derive(seed, *place)`."""
    return torch.Generator(device=device).manual_seed(derive(seed, *place))


@contextmanager
def seeded(seed: int, *place: object) -> Iterator[None]:
    """Run a block with the global generators of torch, NumPy and Python seeded by `derive(seed, *place)`.

    Afterwards all three are as they were before. A GPU's generators, where one is used, are seeded and stay as the block leaves them.
    """
    own, torchs, pythons = derive(seed, *place), torch.get_rng_state(), random.getstate()
    numpys = np.random.get_bit_generator()  # type: ignore[attr-defined]
    torch.default_generator.manual_seed(own)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(own)
    np.random.set_bit_generator(np.random.MT19937(own))  # type: ignore[attr-defined]
    random.seed(own)
    try:
        yield
    finally:
        torch.set_rng_state(torchs)
        np.random.set_bit_generator(numpys)  # type: ignore[attr-defined]
        random.setstate(pythons)
