"""Robustness: reads damaged artifacts, checkpoints, weights files and configurations, and kills runs, and counts the outcomes.

Every case is made from a seed. The cases of a kind are tried in one process, which is replaced when it hangs, dies or takes too
much memory. A case counts as hanging when it computes for more than ten seconds, or waits for more than a hundred, since other
processes may occupy the machine. Memory is what a case takes beyond what its process held before. `--only` tries some kinds, and
keeps the earlier counts of the others.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import torch

from benchmarks.children import Child
from benchmarks.kills import kill_runs
from benchmarks.mutations import ATTEMPTS, make_honest
from benchmarks.report import RESULTS, ROOT, machine, table

PAGE = ROOT / "docs" / "promises.md"
HANG_SECONDS, START_SECONDS, MEMORY_MB = 10, 300, 1000
Attempt = Callable[[Path, Path, random.Random | None], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=250, help="mutated files of each kind")
    parser.add_argument("--kills", type=int, default=20, help="times that a run is killed with SIGKILL")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=[*ATTEMPTS, "kills"], default=[*ATTEMPTS, "kills"], help="what to try")
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["NERN_CACHE"] = ""
    file = RESULTS / "abuse.json"
    results = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        import_nern()
        if Child(lambda _: make_honest(folder)).wait()[0]:
            raise SystemExit("the undamaged run failed")
        for kind in options.only:
            if kind == "kills":
                row, words = kill_runs(folder, options.kills, options.seed), f"--kills {options.kills}"
            else:
                row, words = counted(kind, ATTEMPTS[kind], folder, options.cases, options.seed), f"--cases {options.cases}"
            command = f"python -m benchmarks.abuse --only {kind} {words} --seed {options.seed}"
            results[kind] = {"command": command, "machine": machine(), **row}
            file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            publish(results)
    print(json.dumps(results, indent=1))


def import_nern() -> None:
    """Import what a run needs, once for all processes that are forked from here; nothing is computed."""
    import nern.cli.main
    import nern.engine
    import nern.registry.discovery

    nern.registry.discovery.create_registry(entry_points=False)


def counted(kind: str, attempt: Attempt, folder: Path, cases: int, seed: int) -> dict[str, Any]:
    """Try the cases of one kind; returns how often each outcome occurred."""
    outcomes: Counter[str] = Counter()
    worst: list[str] = []
    first, most, longest, seconds = 0, 0, 0.0, 0.0
    while first < cases:
        start = first
        child = Child(lambda report, start=start: work(kind, attempt, folder, range(start, cases), seed, report))  # type: ignore[misc]
        limit = START_SECONDS
        while first < cases:
            line = child.line(limit)
            if not line:
                outcomes["hang" if line is None else "death"] += 1
                worst.append(f"{kind} {first}: {'hang' if line is None else 'death'}")
                first += 1
                break
            case = json.loads(line)
            limit = HANG_SECONDS
            if case.get("ready"):
                continue
            outcomes[case["outcome"]] += 1
            outcomes["over 1 GB"] += case["mb"] > MEMORY_MB
            most, longest = max(most, case["mb"]), max(longest, case["seconds"])
            if case["outcome"] == "traceback" or case["mb"] > MEMORY_MB:
                worst.append(f"{kind} {first}: {case['what']}")
            first += 1
            if case["mb"] > MEMORY_MB:
                break
        if not child.ended:
            child.kill()
        seconds += child.wait()[1]
        print(f"{kind}: {first} of {cases}, {dict(outcomes)}", file=sys.stderr)
    return {
        "kind": kind,
        "cases": cases,
        "code run": int((folder / "canary").exists()),
        "largest MB": most,
        "longest s": round(longest, 2),
        "processor seconds": round(seconds),
        "worst": worst[:20],
        **outcomes,
    }


def work(kind: str, attempt: Attempt, folder: Path, cases: range, seed: int, report: TextIO) -> None:
    """Try cases in this process; reports one line of JSON when it is ready, and one for each case."""
    from nern.errors import NernError

    place = Path(tempfile.mkdtemp(dir=folder))
    attempt(folder, place, None)  # imports the remaining modules, and ends this process where the undamaged file is refused
    print(json.dumps({"ready": True}), file=report)
    for case in cases:
        held, began, outcome, what = resident("VmRSS"), time.process_time(), "read", ""
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the largest amount of memory is counted anew
        try:
            attempt(folder, place, random.Random(f"{seed} {kind} {case}"))
        except NernError as error:
            outcome, what = "refused", str(error)[:200]
        except BaseException as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            outcome, what = "traceback", f"{type(error).__name__} {str(error)[:120]} {last.filename}:{last.lineno}"
        seconds, taken = round(time.process_time() - began, 3), max(0, resident("VmHWM") - held)
        print(json.dumps({"case": case, "outcome": outcome, "what": what, "seconds": seconds, "mb": taken}), file=report)


def resident(name: str) -> int:
    """Memory of this process in MB: what it holds now (VmRSS), or the largest amount (VmHWM)."""
    line = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert line is not None
    return int(line[1]) >> 10


def publish(results: dict[str, Any]) -> None:
    """Write the table to the documentation page."""
    head = ["files", "mutated", "read", "refused", "tracebacks", "hangs", "deaths", "over 1 GB", "code run", "largest, MB", "longest, s"]
    keys = ["kind", "cases", "read", "refused", "traceback", "hang", "death", "over 1 GB", "code run", "largest MB", "longest s"]
    text = table(head, [[str(results[kind].get(key, 0)) for key in keys] for kind in ATTEMPTS if kind in results]) + "\n"
    if "kills" in results:
        killed = results["kills"]
        text += (
            f"\n{killed['runs']} runs were killed with SIGKILL {killed['kills']} times in all: {killed['lost']} lost, "
            f"{killed['unequal']} with another file than the run that was left alone, "
            f"{killed['with other metrics']} with other lines of metrics.\n"
        )
    rows = [results[kind] for kind in (*ATTEMPTS, "kills") if kind in results]
    minutes = sum(row["processor seconds"] for row in rows) / 60
    text += f"\nAll of it took {minutes:.0f} minutes of one processor ({machine()['processor']}).\n"
    commands = "\n".join(row["command"] for row in rows)
    text += f"\n<!-- test: long -->\n```bash\n{commands}\n```\n"
    start, end = "<!-- abuse -->\n", "<!-- /abuse -->"
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(start)
    PAGE.write_text(f"{before}{start}\n{text}\n{end}{rest.partition(end)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
