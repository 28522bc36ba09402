"""Publishes measurements: as JSON files, and as a section of the documentation's performance page."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
import scipy
import torch

import nern
from nern.studies import drawing

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "performance.md"
ASSETS = ROOT / "docs" / "assets"


def machine() -> dict[str, Any]:
    """The processor, cores and versions that figures depend on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": len(names) or os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "nern": nern.__version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
    }


def alternate(
    work: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Measure the seconds of each piece of work, one after the other in each of several rounds, so that other load affects all equally."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, call in work.items():
            began = clock()
            call()
            seconds[name].append(clock() - began)
    return seconds


def ratio(seconds: Mapping[str, Sequence[float]], slow: str, fast: str) -> float:
    """How many times faster `fast` is: the median over rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(seconds[slow], seconds[fast], strict=True))


def publish(name: str, figures: Mapping[str, Any], text: str) -> None:
    """Write results/<name>.json, and put `text` into the section `name` of the page, with machine and command."""
    about = machine()
    command = shlex.join(["python", "-m", f"benchmarks.{name}", *map(without_folders, sys.argv[1:])])
    RESULTS.mkdir(exist_ok=True)
    content = json.dumps({"command": command, "machine": about, **figures}, indent=2)
    (RESULTS / f"{name}.json").write_text(content + "\n", encoding="utf-8")
    versions = ", ".join(f"{package} {about[package]}" for package in ("nern", "torch", "numpy", "scipy", "python"))
    where = f"{about['processor']}, {about['cores']} cores, {about['threads']} threads; {versions}"
    PAGE.write_text(placed(PAGE.read_text(encoding="utf-8"), name, f"{text.strip()}\n\n`{command}`; {where}."), encoding="utf-8")


def without_folders(word: str) -> str:
    """A word of a command line, with the name alone of a file that it names: where files lie differs from machine to machine."""
    option, equals, value = word.rpartition("=")
    return f"{option}{equals}{Path(value).name}" if Path(value).exists() else word


def placed(page: str, name: str, text: str) -> str:
    """The page with `text` between the markers of a section."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    if begin not in page or end not in page:
        raise ValueError(f"the page has no section between {begin} and {end}")
    return re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n{text}\n{end}", page, flags=re.DOTALL)


def table(head: Sequence[str], rows: Sequence[Sequence[object]], words: Sequence[str] = ()) -> str:
    """A Markdown table; all columns but the first and those that hold `words` are aligned right."""
    sides = [" --- |" if number == 0 or name in words else " ---: |" for number, name in enumerate(head)]
    lines = ["| " + " | ".join(head) + " |", "|" + "".join(sides)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])


def save_plot(figure: Any, name: str) -> None:
    """Write docs/assets/<name>.svg in the style of nern's figures: equal figures give equal bytes, and colours follow the page."""
    drawing.save(figure, ASSETS / f"{name}.svg")
