"""Randomness as a function of its place: seed, purpose and step. Nothing to save, nothing to restore on resume."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive(seed: int, *place: object) -> int:
    """A 63-bit seed for a place, such as `derive(0, "sampler", 2, 1500)`; different places are independent."""
    digest = hashlib.blake2b(repr((seed, *place)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def fingerprint(*values: object) -> str:
    """Sixteen hexadecimal digits that tell values apart by what `repr` says of them: for names of files and of the cache."""
    return f"{derive(0, *values):016x}"


def generator(seed: int, *place: object, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator for a place."""
    return torch.Generator(device=device).manual_seed(derive(seed, *place))


@contextmanager
def seeded(seed: int, *place: object) -> Iterator[None]:
    """Run a block under torch's global generator seeded for a place, and put the generator back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, *place))
        yield
