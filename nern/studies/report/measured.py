"""The measured results of the shipped experiments, as on the reproduction page of the documentation."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from importlib import resources

import attrs


@attrs.frozen
class Measured:
    """The runs of one shipped experiment."""

    top1: str  # reconstructed top-1 %, with the 95 % confidence interval where there are several seeds
    original: float  # top-1 % of the original network
    difference: float  # difference in points, reconstructed minus original
    seeds: int
    minutes: float  # duration of a run
    on: str  # the threads or the GPU with which the time was measured
    bytes: int | None  # size of the whole file; None where it was not recorded

    def __str__(self) -> str:
        return f"{self.top1} of {self.original:.2f} % in {self.minutes:.0f} min"


@functools.cache
def measured() -> Mapping[str, Measured]:
    """The measured results by preset. `python -m benchmarks.reproduction` writes their file `measured.json` from the results of runs."""
    text = resources.files("nern.studies.report").joinpath("measured.json").read_text(encoding="utf-8")
    return {preset: Measured(**values) for preset, values in json.loads(text).items()}
