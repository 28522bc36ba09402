"""Trains shortened variants of the recipe `fast` for ResNet20, each with one change, and judges them by held-out images alone.

    python -m benchmarks.trials task.root=DIR architecture.weights=FILE

Each trial has its own result file, so that several processes can share the list (`--part 1/2`) and the command can be repeated.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.report import RESULTS, machine, publish, table
from nern import Engine
from nern.config.overrides import parse_override
from nern.config.preset_families import spelled
from nern.run.original import relative_error, squared_errors
from nern.support.files import write_text

PRESET = "resnet20-cifar10-fast"
#: What the trials start from; neither the preset nor the recipe has all of these values any more.
RECIPE = {"recipe": "fast", "embedding": {"name": "positional"}}
TRIALS = Path(__file__).with_name("trials.yaml")
KEPT = RESULTS / "trials"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trials", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="key.sub=value for every trial")
    parser.add_argument("--part", default="1/1", help="I/N: every N-th trial, from the I-th on")
    parser.add_argument("--publish", action="store_true", help="run nothing; write the tables from the results that are there")
    options = parser.parse_args()
    studies = yaml.safe_load(TRIALS.read_text(encoding="utf-8"))
    if options.publish:
        measured = [row for study in studies for row in rows(study)]
        publish("trials", {"trials": measured}, "\n\n".join(text(study) for study in studies))
        return
    first, step = (int(number) for number in options.part.split("/"))
    trials = [(study, name) for study in studies for name in study["trials"]]
    for study, name in trials[first - 1 :: step]:
        if not file_of(study, name).exists():
            run(study, name, dict(parse_override(text) for text in options.overrides))


def run(study: dict[str, Any], name: str, overrides: dict[str, Any]) -> None:
    """Train one trial without a test set, and save its result."""
    changes = {**study["set"], **study["trials"][name]}
    with tempfile.TemporaryDirectory() as folder:
        training = Path(folder) / "images"  # no test images, since they must not influence any choice
        training.mkdir()
        (training / "train").symlink_to(Path(overrides["task.root"]).resolve() / "train")
        places = {**overrides, "task.root": str(training), "output": f"{folder}/run", "observers": {}, "evaluate_every": 0}
        engine = Engine.from_yaml(PRESET, {**RECIPE, **changes, **places})
        began = time.process_time()
        result = engine.fit()
        seconds = time.process_time() - began
        heldout = result.checkpoints["final"]["heldout"]
        kept = {"study": study["name"], "trial": name, "changes": changes, "error": error_of(engine), "bytes": result.bytes.total}
        kept |= {"processor": machine()["processor"], "processor_seconds": round(seconds, 1)}
        kept |= heldout
    file_of(study, name).parent.mkdir(parents=True, exist_ok=True)
    write_text(file_of(study, name), json.dumps(kept, indent=1) + "\n")
    print(kept, file=sys.stderr, flush=True)


def error_of(engine: Engine) -> float:
    """‖W − Ŵ‖² / ‖W‖² over all represented weights."""
    return relative_error(squared_errors(engine.representation.grid, engine.original().state_dict(), engine.reconstruct().state_dict()))


def file_of(study: dict[str, Any], name: str) -> Path:
    slug = "".join(letter if letter.isalnum() else "-" for letter in name).strip("-")
    return KEPT / f"{study['name']}.{slug}.json"


def rows(study: dict[str, Any]) -> list[dict[str, Any]]:
    files = [file_of(study, name) for name in study["trials"]]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files if file.exists()]


def text(study: dict[str, Any]) -> str:
    """A study's table, best first."""
    trials = sorted(rows(study), key=lambda row: row["kl"])
    base = {row["trial"]: row for row in trials}.get("as the recipe")
    head = ["change", "‖W − Ŵ‖² / ‖W‖²", "held-out KL", "held-out top-1 %", "bytes"]
    cells = [
        [name_of(row, row is base), f"{row['error']:.4f}", f"{row['kl']:.4f}", f"{row['top1']:.2f}", f"{row['bytes']:,}"] for row in trials
    ]
    missing = [name for name in study["trials"] if not file_of(study, name).exists()]
    lines = [f"**{study['title']}** ({settings(study['set'])})", table(head, cells)]
    if trials:
        lines.append(f"Run on {', '.join(sorted({row['processor'] for row in trials}))}.")
    if missing:
        lines.append(f"*Not run*: {', '.join(missing)}.")
    return "\n\n".join(lines)


def name_of(row: dict[str, Any], preset: bool) -> str:
    return f"*{row['trial']}*" if preset else row["trial"]


def settings(changes: dict[str, Any]) -> str:
    return ", ".join(f"`{key}={spelled(value)}`" for key, value in changes.items())


if __name__ == "__main__":
    main()
