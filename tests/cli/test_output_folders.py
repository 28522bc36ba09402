"""Output folders that cannot be written, or are full."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.cli.mistakes import QUICK, Capture, mistake
from tests.helpers import command_line, write_experiment


def test_an_output_folder_that_cannot_be_made(capsys: Capture, tmp_path: Path) -> None:
    path = write_experiment(tmp_path)
    line = mistake(capsys, "train", path, f"output={path / 'below'}")
    assert line == f"cannot write the run directory {path / 'below'} (Not a directory); free space or set output"


def test_a_read_only_output_folder(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_experiment(tmp_path)
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked").chmod(0o555)
    if os.access(tmp_path / "locked", os.W_OK):  # rights do not bind this user: the system's answer has to be made up

        def refuse(self: Path, *arguments: object, **options: object) -> None:
            raise PermissionError(13, "Permission denied", str(self))

        monkeypatch.setattr(Path, "mkdir", refuse)
    line = mistake(capsys, "train", path, f"output={tmp_path / 'locked' / 'run'}")
    assert line == f"cannot write the run directory {tmp_path / 'locked' / 'run'} (Permission denied); free space or set output"


def test_a_disk_that_fills_up_loses_nothing(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_experiment(tmp_path, checkpoint_every=1)
    flush, calls = os.fsync, []

    def filling(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 8:
            raise OSError(28, "No space left on device")
        flush(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", filling)
        line = mistake(capsys, "train", path, *QUICK)
    assert line == f"cannot write the run directory {tmp_path / 'run'} (No space left on device); free space or set output"
    left = {entry.name for entry in (tmp_path / "run").iterdir()} - {".lock"}  # whose file stays, unlocked
    assert left == {"checkpoint.pt", "config.yaml", "metrics.jsonl"}
    for text in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        json.loads(text)
    assert command_line("train", path, *QUICK, "--resume") == 0
    assert command_line("train", path, *QUICK, f"output={tmp_path / 'whole'}") == 0
    assert (tmp_path / "run" / "model.nern").read_bytes() == (tmp_path / "whole" / "model.nern").read_bytes()
