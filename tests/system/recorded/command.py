"""The command line with built-ins only, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]


def command_line(*arguments: str) -> str:
    """What `python -m nern …` prints, with built-ins only.

    Raises:
        AssertionError: it failed; holds its messages.
    """
    place = {**os.environ, "PYTHONPATH": str(REPOSITORY), "NERN_DISABLE_PLUGINS": "1"}
    process = subprocess.run([sys.executable, "-m", "nern", *arguments], env=place, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    return process.stdout
