"""The count of damaged files and killed runs sees what it is there to see."""

from __future__ import annotations

import mmap
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from benchmarks import abuse, kills, mutations
from benchmarks.children import Child
from nern import ArtifactError

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processor time and memory are read as Linux shows them")


def test_every_outcome_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    numbers = {random.Random(f"0 x {case}").random(): case for case in range(7)}

    def attempt(folder: Path, place: Path, draw: random.Random | None) -> None:
        if draw is None:
            return
        case = numbers[draw.random()]
        if case == 0:
            raise ArtifactError("refused")
        if case == 1:
            raise ZeroDivisionError
        if case == 2:
            os._exit(3)
        while case == 3:
            pass
        if case == 4:
            taken = mmap.mmap(-1, abuse.MEMORY_MB << 21)  # the allocator could hand out memory that this process holds already
            for page in range(0, len(taken), mmap.PAGESIZE):
                taken[page] = 1
        if case == 5:
            (folder / "canary").touch()

    monkeypatch.setattr(abuse, "HANG_SECONDS", 1)
    monkeypatch.setattr(abuse, "MEMORY_MB", 100)
    row = abuse.counted("x", attempt, tmp_path, 7, 0)
    counts = {key: row[key] for key in ("refused", "traceback", "death", "hang", "over 1 GB", "read", "code run")}
    assert counts == {"refused": 1, "traceback": 1, "death": 1, "hang": 1, "over 1 GB": 1, "read": 3, "code run": 1}
    assert [line.partition(" ")[2][:8] for line in row["worst"]] == ["1: ZeroD", "2: death", "3: hang", "4: "]
    assert row["largest MB"] >= 2 * abuse.MEMORY_MB - 1


def test_a_child_reports_and_can_be_killed() -> None:
    child = Child(lambda report: [print("a", file=report), time.sleep(60)])
    assert child.line(10) == b"a\n"
    child.kill()
    assert child.wait()[0] == -signal.SIGKILL
    failing = Child(lambda report: 1 / 0)
    assert failing.line(10) == b""
    assert failing.wait()[0] == 1


def test_a_lost_run_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of another kind: they write a file, and after a kill one that is wrong."""

    def started(folder: Path, run: Path) -> Child:
        def train(_: object) -> None:
            run.mkdir(exist_ok=True)
            again = (run / "config.yaml").exists()
            (run / "config.yaml").touch()
            while not again and run.name == "killed":
                pass
            for _ in range(3_000_000):
                pass
            (run / "model.nern").write_bytes(b"other" if again else b"right")
            (run / "metrics.jsonl").write_text('{"iteration": 1, "seconds": 2}\n' * (1 + again))

        return Child(train)

    monkeypatch.setattr(kills, "started", started)
    row = kills.kill_runs(tmp_path, 1, 0)
    assert (row["kills"], row["runs"], row["lost"], row["unequal"], row["with other metrics"]) == (1, 1, 0, 1, 1)


@pytest.mark.slow
def test_a_few_cases_of_each_kind(tmp_path: Path) -> None:
    assert Child(lambda _: mutations.make_honest(tmp_path)).wait()[0] == 0
    for kind, attempt in mutations.ATTEMPTS.items():
        row = abuse.counted(kind, attempt, tmp_path, 5, 1)
        assert row.get("read", 0) + row["refused"] == 5, row["worst"]
    row = kills.kill_runs(tmp_path, 2, 0)
    assert (row["kills"], row["lost"], row["unequal"], row["with other metrics"]) == (2, 0, 0, 0)
