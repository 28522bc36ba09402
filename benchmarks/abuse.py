"""Robustness: reads damaged artifacts, checkpoints, weights files and configurations, and kills runs, and counts the outcomes.

Every case is made from a seed. The cases of a kind are tried in one process, which is replaced when it hangs, dies or takes too
much memory. A case counts as hanging when it computes for more than ten seconds, or waits for more than a hundred, since other
processes may occupy the machine. `--only` tries some kinds, and keeps the earlier counts of the others.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import resource
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.report import RESULTS, ROOT, machine, table

KINDS = ("artifact", "checkpoint", "weights", "yaml")
PAGE = ROOT / "docs" / "promises.md"
HANG_SECONDS, WAIT_SECONDS, START_SECONDS, MEMORY_MB = 10, 100, 300, 1000
EXPERIMENT = """architecture: {{name: cifar-resnet, depth: 8, width: 2, weights: {folder}/w.pth}}
task: uniform-noise
predictor: {{name: mlp, hidden: 8}}
smoother: none
losses: {{reconstruction: {{}}}}
phases: [{{iterations: {steps}}}]
evaluate_every: 0
checkpoint_every: {every}
log_every: {every}
observers: {{}}
heldout: 0.0
device: cpu
output: {folder}/run
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=250, help="mutated files of each kind")
    parser.add_argument("--kills", type=int, default=20, help="times that a run is killed with SIGKILL")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=[*KINDS, "kills"], default=[*KINDS, "kills"], help="what to try")
    parser.add_argument("--worker", nargs=3, metavar=("KIND", "FOLDER", "FIRST"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker[0], Path(options.worker[1]), options.seed, int(options.worker[2]), options.cases)
        return
    file = RESULTS / "abuse.json"
    results = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        honest(folder)
        for kind in options.only:
            if kind == "kills":
                row, words = kills(folder, options.kills, options.seed), f"--kills {options.kills}"
            else:
                row, words = abused(kind, folder, options.cases, options.seed), f"--cases {options.cases}"
            command = f"python -m benchmarks.abuse --only {kind} {words} --seed {options.seed}"
            results[kind] = {"command": command, "machine": machine(), **row}
            RESULTS.mkdir(exist_ok=True)
            file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            publish(results)
    print(json.dumps(results, indent=1))


def honest(folder: Path) -> None:
    """Make the undamaged weights, configuration and finished run from which cases are made."""
    import torch

    from nern import Engine
    from nern.builtin.architectures.cifar_resnet import CifarResNet

    torch.manual_seed(0)
    torch.save(CifarResNet(depth=8, width=2).build().state_dict(), folder / "w.pth")
    (folder / "e.yaml").write_text(EXPERIMENT.format(folder=folder, steps=4, every=2), encoding="utf-8")
    Engine.from_yaml(folder / "e.yaml").fit()


# -- files -------------------------------------------------------------------------------------------------------------


def abused(kind: str, folder: Path, cases: int, seed: int) -> dict[str, Any]:
    """Try cases of one kind; returns how often each outcome occurred."""
    outcomes: Counter[str] = Counter()
    worst: list[str] = []
    first, most, longest = 0, 0, 0.0
    while first < cases:
        command = [sys.executable, "-m", "benchmarks.abuse", "--worker", kind, str(folder), str(first), "--seed", str(seed)]
        with subprocess.Popen(
            [*command, "--cases", str(cases)], bufsize=0, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT
        ) as process:
            assert process.stdout is not None
            waiting = selectors.DefaultSelector()
            waiting.register(process.stdout, selectors.EVENT_READ)
            ready = False
            while first < cases:
                line = _line(process, waiting, HANG_SECONDS if ready else START_SECONDS)
                if line in (b"hang", b""):
                    outcomes["hang" if line else "death"] += 1
                    worst.append(f"{kind} {first}: {'hang' if line else 'death'}")
                    first += 1
                    break
                case = json.loads(line)
                if case.get("ready"):
                    ready = True
                    continue
                outcomes[case["outcome"]] += 1
                outcomes["over 1 GB"] += case["mb"] > MEMORY_MB
                outcomes["over 10 s"] += case["seconds"] > HANG_SECONDS
                most, longest = max(most, case["mb"]), max(longest, case["seconds"])
                if case["outcome"] == "traceback":
                    worst.append(f"{kind} {first}: {case['what']}")
                first += 1
                if case["mb"] > MEMORY_MB:
                    break
            process.kill()
        print(f"{kind}: {first} of {cases}, {dict(outcomes)}", file=sys.stderr)
    ran = int((folder / "canary").exists())
    return {
        "kind": kind,
        "cases": cases,
        "code run": ran,
        "largest MB": most,
        "longest s": round(longest, 2),
        "worst": worst[:20],
        **outcomes,
    }


def _line(process: subprocess.Popen[bytes], waiting: selectors.BaseSelector, seconds: float) -> bytes:
    """The next line that a process prints, or `hang` where it computes or waits for too long before it prints one."""
    began, before = time.monotonic(), computed(process.pid)
    while not waiting.select(1):
        if computed(process.pid) - before > seconds or time.monotonic() - began > max(seconds, WAIT_SECONDS):
            return b"hang"
    assert process.stdout is not None
    return process.stdout.readline()


def computed(process: int) -> float:
    """CPU seconds of a process, as Linux counts them."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def work(kind: str, folder: Path, seed: int, first: int, cases: int) -> None:
    """Try the cases from number `first` on; prints one line of JSON for each."""
    from nern.errors import NernError

    attempt = {"artifact": try_artifact, "checkpoint": try_checkpoint, "weights": try_weights, "yaml": try_yaml}[kind]
    place = Path(tempfile.mkdtemp(dir=folder))
    os.environ["NERN_CACHE"] = ""
    report = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    attempt(folder, place, None)  # the first read imports all modules
    print(json.dumps({"ready": True}), file=report)
    for case in range(first, cases):
        began, outcome, what = time.process_time(), "read", ""
        try:
            attempt(folder, place, random.Random(f"{seed} {kind} {case}"))
        except NernError as error:
            outcome, what = "refused", str(error)[:200]
        except BaseException as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            outcome, what = "traceback", f"{type(error).__name__} {str(error)[:120]} {last.filename}:{last.lineno}"
        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        seconds = round(time.process_time() - began, 3)
        print(json.dumps({"case": case, "outcome": outcome, "what": what, "seconds": seconds, "mb": largest}), file=report)


class Evil:
    """A pickle that creates a file if a reader executes it."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mknod, (str(self.canary),)


def value(draw: random.Random) -> Any:
    """A random value that is wrong in any place."""
    import torch

    return draw.choice(
        [
            None, True, 0, -1, 1, 3, 2**31, 2**63, 10**12, 10**30, 0.0, -0.5, 1e300, float("inf"), float("nan"), "", "x", "none", "int8",
            "../..",
            "~/x", "a" * 5000, [], [[]], {}, [1, 2], {"a": 1}, {"name": "mlp"}, [None] * 9,
            torch.zeros(0), torch.zeros(2, 3), torch.tensor(1), b"x",
            (1, 2), 1 + 2j,
        ]
    )  # fmt: skip


def mutate(content: Any, draw: random.Random, allowed: Callable[[Any], bool] = lambda _: True) -> None:
    """Change one place in nested dictionaries and lists."""
    at = content
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not keys:
            return
        key = draw.choice(keys)
        if isinstance(at[key], (dict, list)) and at[key] and draw.random() < 0.75:
            at = at[key]
            continue
        new = value(draw)
        while not allowed(new):
            new = value(draw)
        action = draw.random()
        if action < 0.2:
            del at[key]
        elif action < 0.3 and isinstance(at, dict):
            at[draw.choice(["x", "name", "0", "weights", "a.b", ""])] = new
        elif action < 0.4 and type(at[key]) in (int, float):
            at[key] = at[key] * draw.choice([-1, 0, 2, 1000, 10**6, 10**9])
        else:
            at[key] = new
        return


def damage(path: Path, draw: random.Random) -> None:
    """Damage bytes: flip bits, cut off the end, or repeat a part."""
    whole = bytearray(path.read_bytes())
    action = draw.randrange(3)
    if action == 0:
        for _ in range(draw.randrange(1, 20)):
            whole[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
    elif action == 1:
        whole = whole[: draw.randrange(len(whole))]
    else:
        start = draw.randrange(len(whole))
        whole[start:start] = whole[start : start + draw.randrange(1, 500)]
    path.write_bytes(bytes(whole))


def try_artifact(folder: Path, place: Path, draw: random.Random | None) -> None:
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    import nern
    from nern.artifact.layout import compact, seal
    from nern.studies.opening import evaluate_file

    path = place / "m.nern"
    shutil.copyfile(folder / "run" / "model.nern", path)
    if draw is not None and draw.random() < 0.2:
        damage(path, draw)
    elif draw is not None:
        with safe_open(str(path), "pt") as file:
            tensors, about = {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["nern"])  # noqa: SIM118
        del about["sha256"]
        for _ in range(draw.randrange(1, 4)):
            if draw.random() < 0.7:
                mutate(about, draw, lambda new: isinstance(new, (type(None), bool, int, float, str, list, dict)))
            else:
                name = draw.choice(list(tensors))
                new = draw.choice(
                    [torch.zeros(0), tensors[name].reshape(-1)[1:], tensors[name].double(), tensors[name][None], torch.ones(7).int()]
                )
                tensors[draw.choice([name, name, "x", "copied.float16"])] = new.contiguous().clone()
        if isinstance(about, dict):
            save_file(tensors, path, {"nern": compact({"sha256": seal(about, tensors), **about})})
    artifact = nern.load(path)
    artifact.state_dict()
    artifact.reconstruct()
    if draw is not None and draw.random() < 0.5:  # with the task noise there is no test set, so that the command ends with a refusal
        evaluate_file(path)


def try_checkpoint(folder: Path, place: Path, draw: random.Random | None) -> None:
    import torch

    from nern import Engine

    run = place / "run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(folder / "run", run)
    path = run / "checkpoint.pt"
    if draw is not None and draw.random() < 0.2:
        damage(path, draw)
    elif draw is not None:
        state = torch.load(path, weights_only=True)
        mutate(state, draw)
        if draw.random() < 0.05:
            state["evil"] = Evil(folder / "canary")
        torch.save(state, path)
    Engine.from_yaml(folder / "e.yaml", {"output": str(run), "phases.0.iterations": 6}).fit(resume=True)


def try_weights(folder: Path, place: Path, draw: random.Random | None) -> None:
    import torch
    from safetensors.torch import save_file

    from nern.builtin.architectures.cifar_resnet import CifarResNet

    state: Any = torch.load(folder / "w.pth", weights_only=True)
    path = place / "w.pth"
    if draw is not None:
        state = dict(state)
        for _ in range(draw.randrange(3)):
            name = draw.choice(list(state))
            state[draw.choice([name, f"module.{name}", "x", f"{name}_orig", f"{name}_mask", f"{name}_g"])] = draw.choice(
                [
                    state[name],
                    state[name].double() if isinstance(state[name], torch.Tensor) else [state[name]],
                    torch.zeros(0),
                    torch.zeros(1).expand(1 << 40),
                    torch.ones(3, dtype=torch.complex64),
                    value(draw),
                ]
            )
        for _ in range(draw.randrange(3)):
            state = draw.choice(
                [{"state_dict": state, "epoch": 3}, {f"module.{n}": v for n, v in state.items()}, {"a": state, "b": state}, {"x": [state]}]
            )
        if draw.random() < 0.05:
            state["evil"] = Evil(folder / "canary")
    if draw is not None and draw.random() < 0.2 and all(isinstance(v, torch.Tensor) and v.numel() < 1 << 20 for v in state.values()):
        save_file({str(n): v.contiguous().clone() for n, v in state.items()}, path)
    else:
        torch.save(copy.copy(state), path)
    if draw is not None and draw.random() < 0.3:
        damage(path, draw)
    architecture = CifarResNet(depth=8, width=2, weights=str(path))
    architecture.load(architecture.build())


def try_yaml(folder: Path, place: Path, draw: random.Random | None) -> None:
    import yaml

    from nern.config.loading import load_experiment
    from nern.config.structuring import to_yaml

    content = yaml.safe_load((folder / "e.yaml").read_text(encoding="utf-8"))
    path = place / "e.yaml"
    if draw is not None:
        plain = (type(None), bool, int, float, str, list, dict)
        for _ in range(draw.randrange(1, 4)):
            mutate(content, draw, lambda new: isinstance(new, plain))
    text = yaml.safe_dump(content)
    if draw is not None and draw.random() < 0.4:
        at = draw.randrange(len(text))
        bomb = "&a [" + ", ".join(["*a"] * 9) + "]"
        text = text[:at] + draw.choice(
            ["!!int x", "!!timestamp x", "!!python/name:os.system", bomb, "&a [*a]", "[" * 3000, "{" * 3000, "'\\0'", '"\\0"', "? [a]\n: b",
             "1: 2\n",
             "\t", "---\n", "%", "9" * 9999, "<<: *b", "0x", "1:30", "\u0000", "\ufeff", "extends: e.yaml\n", "set: {1: 2}\n",
             "x" * 300_000]
        ) + text[at:]  # fmt: skip
    path.write_text(text, encoding="utf-8")
    overrides: dict[str, Any] = {"output": str(place / "run")}
    if draw is not None and draw.random() < 0.2:
        overrides[draw.choice(["a", "phases.0", "phases.².x", "optimizer.lr", "losses", "task.name", ".", "..", "a." * 40])] = value(draw)
    to_yaml(*load_experiment(path, overrides))


# -- kills -------------------------------------------------------------------------------------------------------------


def kills(folder: Path, count: int, seed: int) -> dict[str, Any]:
    """Kill runs at random moments, resume each until it ends, and compare it with an uninterrupted run."""
    draw, done, lost, unequal, doubled, runs = random.Random(seed), 0, 0, 0, 0, 0
    text = EXPERIMENT.format(folder=folder, steps=400, every=20).replace(f"output: {folder}/run", "output: {run}")
    whole = folder / "whole"
    (folder / "k.yaml").write_text(text.replace("{run}", str(whole)), encoding="utf-8")
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "nern", "train", str(folder / "k.yaml")], check=True, capture_output=True, cwd=ROOT)
    length = time.monotonic() - began
    while done < count:
        run = folder / f"killed{runs}"
        runs += 1
        command = [sys.executable, "-m", "nern", "train", str(folder / "k.yaml"), f"output={run}"]
        while True:
            resume = ["--resume"] if (run / "config.yaml").exists() else []
            with subprocess.Popen([*command, *resume], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT) as process:
                try:
                    process.wait(length * draw.uniform(0.3, 1.0) if done < count else None)
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    done += 1
                    continue
            lost += process.returncode != 0
            break
        if (run / "model.nern").exists():
            unequal += (run / "model.nern").read_bytes() != (whole / "model.nern").read_bytes()
            lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
            doubled += len({(line["iteration"], *sorted(line)) for line in lines}) != len(lines)
        print(f"kills: {done} of {count}, {lost} lost, {unequal} unequal, {doubled} doubled", file=sys.stderr)
    return {"kills": done, "runs": runs, "lost": lost, "unequal": unequal, "with doubled metrics": doubled}


def publish(results: dict[str, Any]) -> None:
    """Write the table to the documentation page."""
    head = ["files", "mutated", "read", "refused", "tracebacks", "hangs", "deaths", "over 1 GB", "code run", "largest, MB", "longest, s"]
    keys = ["kind", "cases", "read", "refused", "traceback", "hang", "death", "over 1 GB", "code run", "largest MB", "longest s"]
    rows = [[str(results[kind].get(key, 0)) for key in keys] for kind in KINDS if kind in results]
    text = table(head, rows) + "\n"
    if "kills" in results:
        killed = results["kills"]
        text += (
            f"\nRuns killed with SIGKILL {killed['kills']} times in all: {killed['lost']} lost, "
            f"{killed['unequal']} with another file than the run that was left alone, "
            f"{killed['with doubled metrics']} with a metric twice.\n"
        )
    commands = "\n".join(results[kind]["command"] for kind in (*KINDS, "kills") if kind in results)
    text += f"\n<!-- test: long -->\n```bash\n{commands}\n```\n"
    start, end = "<!-- abuse -->\n", "<!-- /abuse -->"
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(start)
    PAGE.write_text(f"{before}{start}\n{text}\n{end}{rest.partition(end)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
