"""Short seeded runs of everything that is registered, and what came out of them, as numbers that can be compared.

A change that moves code without changing what it does must leave every one of these numbers as it was. The module uses
public names only (`nern.Engine`, `nern.load`, `nern.create_registry` and the command line), so that it goes on working
when the modules behind them move. What is run, and how it is hashed and compared, stands in `tests/system/recorded`.
`python -m tests.system.recording` writes `recorded_runs.json` again; that is right only where behaviour was changed on
purpose, and the commit says so.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # before torch is imported
    os.environ.update(OMP_NUM_THREADS="1", NERN_DISABLE_PLUGINS="1", NERN_CACHE=tempfile.mkdtemp())

import torch
from safetensors.torch import load_file

import nern
from tests.system.recorded.cases import RUNS, STUDIES, engine
from tests.system.recorded.command import command_line
from tests.system.recorded.digests import digest
from tests.system.recorded.environment import environment

FILE = Path(__file__).with_name("recorded_runs.json")


class Stopper:
    """An observer that asks the run to stop, as Ctrl-C does, when a step is reported."""

    def __init__(self, step: int) -> None:
        self.step = step

    @nern.hookimpl
    def nern_step(self, iteration: int) -> None:
        if iteration == self.step:
            signal.raise_signal(signal.SIGINT)


def record(name: str, folder: Path) -> dict[str, Any]:
    """Make a run in an empty folder; returns its losses, metrics and hashes."""
    running, stop = engine(name, folder), RUNS[name].get("stop")
    if stop is not None:
        running.registry.register(Stopper(stop), "stopper")
        try:
            running.fit()
        except nern.Interrupted:
            running = nern.Engine.from_run(folder / "run")
        else:
            raise AssertionError("the run was not stopped")
    result = running.fit(resume=stop is not None).to_dict()
    run = folder / "run"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    for line in lines:
        line.pop("seconds", None)
    for key in ("seconds", "run_dir", "artifact", "environment"):
        result.pop(key)
    loaded = nern.load(run / "model.nern", running.registry)
    state = loaded.reconstruct().state_dict()
    hashes = {
        "artifact": digest(load_file(str(run / "model.nern"))),
        "state": digest(state),
        "checkpoint": digest(torch.load(run / "checkpoint.pt", weights_only=True), without=("seconds",)),
        "parameters": digest(dict(running.representation.named_parameters())),
        "weights": digest(running.original().state_dict()),
    }
    if "test" in running.data.splits:
        result["evaluation"] = nern.Engine.from_run(run).evaluate().to_dict()
    same = digest(running.reconstruct().state_dict()) == hashes["state"]
    for size in ("header", "total"):  # names and options may come; what they belong to is compared by its bits
        result["bytes"].pop(size)
    return json.loads(json.dumps({"metrics": lines, "result": result, "file holds what was fitted": same, "sha256": hashes}))


def record_studies(folder: Path) -> dict[str, Any]:
    """Make the first run, and look at it with the verbs of `STUDIES`; returns what they print and the files they write."""
    running, studies = engine(next(iter(RUNS)), folder), {}
    running.fit()
    for name, arguments in STUDIES.items():
        words = [word.format(run=folder / "run", folder=folder) for word in arguments]
        printed = json.loads(command_line(*words))
        printed.pop("folder", None)
        place = folder / {"prune": "pruned"}.get(name, name)
        written = sorted(path for path in place.glob("*") if path.suffix in (".nern", ".safetensors"))
        for point in printed.get("points", []):
            for size in ("header", "total"):
                point["bytes"].pop(size)
        studies[name] = {"printed": printed, "sha256": {path.name: digest(load_file(str(path))) for path in written}}
    return json.loads(json.dumps(studies))


def main() -> None:
    """Record every run and the studies, and write them with the environment that they were recorded in."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--output", type=Path, default=FILE, help="the JSON file to write (default: %(default)s)")
    output = parser.parse_args().output
    torch.set_num_threads(1)
    recorded: dict[str, Any] = {"environment": environment(), "runs": {}, "studies": {}}
    with tempfile.TemporaryDirectory() as name:
        for number, run in enumerate(RUNS):
            folder = Path(name) / str(number)
            folder.mkdir()
            recorded["runs"][run] = record(run, folder)
            print(run, file=sys.stderr)
        folder = Path(name) / "studies"
        folder.mkdir()
        recorded["studies"] = record_studies(folder)
    output.write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
