"""Times imports and the commands that need no torch, each in fresh processes, beside `import torch`."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

import nern
from benchmarks.report import alternate, publish, ratio, table

LIMIT = 1.5  # times `import torch`, which reading a file may take
SHORT: dict[str, Any] = {
    "phases.reconstruction.iterations": 1,
    "phases.distillation.iterations": 1,
    "phases.distillation.batch": 2,
    "observers": {},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="fresh processes for each row")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seconds = alternate({name: lambda code=code: fresh(code) for name, code in codes(Path(folder)).items()}, options.rounds)
    times = {name: ratio(seconds, name, "import torch") for name in seconds}
    rows = [[f"`{name}`", f"{value:.2f}"] for name, value in times.items()]
    text = f"Each in {options.rounds} fresh processes, taken in turns; the median over the rounds. Reading a file may take {LIMIT} times "
    text += "as long as `import torch`.\n\n" + table(["what", "times `import torch`"], rows)
    publish("imports", {"seconds": seconds, "times": times}, text)


def codes(folder: Path) -> dict[str, str]:
    """What is timed: a label → Python code that a fresh process runs."""
    file = small_file(folder)
    return {
        "import torch": "import torch",
        "import nern; nern.load(FILE)": f"import nern; nern.load({str(file)!r})",
        "import nern; nern.load(FILE).state_dict()": f"import nern; nern.load({str(file)!r}).state_dict()",
        "import nern": "import nern",
        **{f"nern {words}": command(words) for words in ("--help", "presets", "new-plugin x --kind loss")},
    }


def small_file(folder: Path) -> Path:
    """A representation of a small network."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))
    result = nern.represent(model, torch.randn(20, 3, 8, 8), overrides=SHORT, output=folder / "run", quiet=True)
    result.save(folder / "small.nern")
    return folder / "small.nern"


def command(words: str) -> str:
    """Python code that runs a verb as its command does, in a folder of its own."""
    return f"import os, tempfile; os.chdir(tempfile.mkdtemp()); from nern.cli.main import run; raise SystemExit(run({words.split()!r}))"


def fresh(code: str) -> None:
    """Run code in a fresh process.

    Raises:
        RuntimeError: it fails; with what it said.
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{code}: {done.stderr}")


if __name__ == "__main__":
    main()
