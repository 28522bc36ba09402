"""Kills runs with SIGKILL at random moments, resumes them until they end, and compares them with a run that was left alone."""

from __future__ import annotations

import json
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.children import Child

#: Small enough for hundreds of kills: two phases, one without and one with the networks, figures and checkpoints at every step.
EXPERIMENT = """architecture: {{name: cifar-resnet, depth: 8, width: 2, size: 8, weights: {folder}/w.pth}}
task: uniform-noise
predictor: {{name: mlp, hidden: 8}}
smoother: none
losses: {{reconstruction: {{}}, kd: {{}}}}
phases:
- {{iterations: 20, name: reconstruction, losses: {{reconstruction: {{}}}}}}
- {{iterations: 20, batch: 4}}
evaluate_every: 5
checkpoint_every: 1
log_every: 1
observers: {{}}
device: cpu
threads: 1
output: {folder}/whole
"""
JITTER_SECONDS = 0.02  # about twice the grain in which Linux counts processor time


def kill_runs(folder: Path, count: int, seed: int) -> dict[str, Any]:
    """Kill a run again and again until it ends by itself, then the next one; returns how often something was lost.

    Args:
        folder: of the undamaged weights `w.pth`; the runs are made here.
        count: kills in all.

    Raises:
        RuntimeError: the run that is left alone fails.
    """
    draw, done, runs, lost, unequal, doubled, seconds = random.Random(seed), 0, 0, 0, 0, 0, 0.0
    (folder / "k.yaml").write_text(EXPERIMENT.format(folder=folder), encoding="utf-8")
    whole, run = folder / "whole", folder / "killed"
    code, length = started(folder, whole).wait()
    if code:
        raise RuntimeError(f"the run that is left alone ended with {code}")
    while done < count:
        runs += 1
        shutil.rmtree(run, ignore_errors=True)
        killed = True
        while killed:
            child = started(folder, run)
            moment = draw.uniform(0, length) if done < count else float("inf")
            while not child.ended and child.computed() < moment:
                time.sleep(0.005)
            time.sleep(draw.uniform(0, JITTER_SECONDS))
            child.kill()  # has no effect where the run has ended
            code, used = child.wait()
            killed = code == -signal.SIGKILL
            done, seconds = done + killed, seconds + used
        lost += code != 0
        if not code:
            unequal += (run / "model.nern").read_bytes() != (whole / "model.nern").read_bytes()
            doubled += figures(run) != figures(whole)
        print(f"kills: {done} of {count}, {runs} runs, {lost} lost, {unequal} unequal, {doubled} with other metrics", file=sys.stderr)
    return {
        "kills": done, "runs": runs, "lost": lost, "unequal": unequal, "with other metrics": doubled, "processor seconds": round(seconds),
    }  # fmt: skip


def started(folder: Path, run: Path) -> Child:
    """A process that starts a run, or resumes it where its folder has a configuration; it ends with the command's exit code."""
    resume = ["--resume"] if (run / "config.yaml").exists() else []

    def train(_: object) -> None:
        from nern.cli.main import run as command

        code = command(["train", str(folder / "k.yaml"), f"output={run}", *resume])
        if code:
            raise SystemExit(code)

    return Child(train)


def figures(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics without their times."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]
