"""A small finished run that tests of what comes after training share."""

from __future__ import annotations

from pathlib import Path

from nern.engine import Engine

SMALL = {
    "architecture.width": 4, "pretrain.epochs": 2, "predictor.hidden": 32,
    "phases.0.iterations": 150, "phases.1.iterations": 10, "phases.1.batch": 16, "observers": {},
}  # fmt: skip


def finished(folder: Path) -> Path:
    """Train the digits preset, small and short, in `folder`."""
    Engine.from_yaml("digits", {**SMALL, "output": str(folder)}).fit()
    return folder
