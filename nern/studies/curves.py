"""Reads the curves of a run: losses and held-out figures by step, and where its phases begin and end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import attrs

from nern.errors import ConfigError, DataError

Points = list[tuple[int, float]]


@attrs.frozen
class PhaseSpan:
    """The steps of one phase."""

    name: str
    first: int  # number of steps before the phase
    last: int  # last step of the phase so far


@attrs.frozen
class Curves:
    """The contents of a run's `metrics.jsonl`: (step, value) pairs by name."""

    losses: dict[str, Points]  # unweighted terms of the loss, and `total`, their weighted sum
    # Figures on held-out images, such as `top1` in per cent; on a part of these images where the run recorded a curve
    heldout: dict[str, Points]
    phases: list[PhaseSpan]


def read_curves(run: Path) -> Curves:
    """The curves of a run folder, finished or not.

    Raises:
        DataError: the folder holds no run, or a line before the last is not readable.
    """
    file = run / "metrics.jsonl"
    if not file.is_file():
        where = f"there is no {file}" if run.is_dir() else "there is no such folder"
        raise DataError(f"{run} holds no run ({where}); name the folder that nern train wrote")
    losses: dict[str, Points] = {}
    heldout: dict[str, Points] = {}
    curve: dict[str, Points] = {}
    phases: list[PhaseSpan] = []
    lines = file.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            step, phase = int(record["iteration"]), str(record.get("phase", ""))
            for target, key in ((losses, "losses"), (heldout, "heldout"), (curve, "curve")):
                for name, value in record.get(key, {}).items():
                    target.setdefault(name, []).append((step, float(value)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if number == len(lines):  # the run is still writing this line, or was killed while it wrote it
                continue
            raise DataError(f"{file}, line {number}: is not what a run writes ({error}); remove the line, or name another run") from error
        if phases and phases[-1].name == phase:
            phases[-1] = attrs.evolve(phases[-1], last=step)
        else:
            phases.append(PhaseSpan(phase, phases[-1].last if phases else 0, step))
    return Curves(losses, {**heldout, **curve}, phases)  # figures on different images must not be joined by a line


def thinned(points: Points) -> Points:
    """At most about 400 of the points, evenly spaced, including the first and the last."""
    stride = max(1, -(-len(points) // 400))
    return [*points[:-1:stride], *points[-1:]]


def labelled(words: Sequence[str]) -> dict[str, Path]:
    """Places by label, from texts `LABEL=PLACE` or `PLACE`. The label of a plain place is its name, or its path where the name is taken.

    Raises:
        ConfigError: two places have the same label.
    """
    places: dict[str, Path] = {}
    for word in words:
        label, _, place = word.partition("=") if "=" in word and not Path(word).exists() else ("", "", word)
        path = Path(place)
        name = label or path.absolute().name
        if name in places and not label:
            name = str(path)
        if name in places:
            raise ConfigError(f"two runs are called '{name}'; give each a name of its own: LABEL={place}")
        places[name] = path
    return places
