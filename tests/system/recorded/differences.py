"""Compares what was recorded with what is there now: bit for bit, or within a tolerance."""

from __future__ import annotations

from typing import Any

from tests.system.recorded.cases import RUNS

#: Elsewhere numbers may differ by these parts of themselves, and percentages of images by these points. Emulated
#: processors (`ATEN_CPU_CAPABILITY=default`, `ONEDNN_MAX_CPU_ISA=SSE41`, and both with AVX2) moved no number by more than
#: 1.2e-5, no percentage at all. A parameter that training rounds to an integer may fall to the other side of a boundary,
#: and one step of four bits is much: such runs moved by up to 3.3e-2, and one image of 140.
TOLERANCE, TOLERANCE_OF_INTEGERS = {"relative": 1e-3, "points": 1.5}, {"relative": 0.15, "points": 5.0}


def differences(recorded: Any, now: Any, relative: float = 0.0, points: float = 0.0, path: str = "") -> list[str]:
    """One line for everything that differs: its path, what was recorded, what is there now.

    Args:
        relative: by how much numbers may differ, as a part of the larger one; hashes are compared only where it is 0.
        points: by how much a percentage of images may differ, where `relative` is not 0.
    """
    if isinstance(recorded, dict) and isinstance(now, dict):
        lines = []
        for key in dict.fromkeys([*recorded, *now]):
            where = f"{path}.{key}" if path else str(key)
            if key not in recorded:  # results may grow
                continue
            if key not in now:
                lines.append(f"{where} is missing")
            elif key != "sha256" or relative == 0:
                lines += differences(recorded[key], now[key], relative, points, where)
        return lines
    if isinstance(recorded, list) and isinstance(now, list) and len(recorded) == len(now):
        pairs = enumerate(zip(recorded, now, strict=True))
        return [line for index, (a, b) in pairs for line in differences(a, b, relative, points, f"{path}[{index}]")]
    same = type(recorded) is type(now) and recorded == now
    if not same and relative > 0 and type(recorded) is type(now) and type(now) in (int, float):
        same = abs(recorded - now) <= _allowed(path, recorded, now, relative, points)
    return [] if same else [f"{path} was {recorded!r}, is {now!r}"]


def _allowed(path: str, recorded: float, now: float, relative: float, points: float) -> float:
    key = path.rpartition(".")[2]
    if isinstance(now, int):
        return 0
    return points if key.endswith(("top1", "top5", "agreement")) else relative * max(abs(recorded), abs(now))


def tolerance(name: str) -> dict[str, float]:
    """How far a run may be from its record on a machine that computes other bits."""
    return TOLERANCE_OF_INTEGERS if str(RUNS[name].get("storage")).startswith("int") else TOLERANCE
