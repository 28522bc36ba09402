"""The command line as a process: what goes to which stream, and the exit codes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers import DISTILLATION, RECONSTRUCTION, environment, process, started, write_experiment


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A folder with a finished run, and the process that made it."""
    folder = tmp_path_factory.mktemp("finished")
    path = write_experiment(folder)
    return folder, process("train", path, "--json", "seed=3", "predictor.hidden=9", "output=run", cwd=folder)


def test_train_prints_one_json_object_and_nothing_else(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = finished
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    result = json.loads(done.stdout)
    assert {"original_top1", "reconstructed_top1", "seconds", "iterations", "bytes", "run_dir", "artifact"} <= result.keys()
    assert {"original", "predictor", "ordering", "copied", "total"} <= result["bytes"].keys()
    assert result["bytes"]["total"] == (folder / "run" / "model.nern").stat().st_size
    assert 0 <= result["reconstructed_top1"] <= 100
    assert 0 <= result["original_top1"] <= 100
    assert result["iterations"] == 24
    assert result["seed"] == 3
    assert (result["run_dir"], result["artifact"]) == ("run", "run/model.nern")
    assert json.loads((folder / "run" / "result.json").read_text()) == result
    assert {"config.yaml", "metrics.jsonl", "checkpoint.pt", "model.nern", "result.json"} <= {e.name for e in (folder / "run").iterdir()}
    assert "hidden: 9" in (folder / "run" / "config.yaml").read_text()


def test_without_a_terminal_progress_is_plain_lines_on_stderr(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    _, done = finished
    assert "\x1b" not in done.stderr
    assert "\r" not in done.stderr
    step = r"^reconstruction, phase 1 of 2: step 1 of 12  [\d.]+ steps/s  \d+:\d\d left in this phase  reconstruction [\d.e-]+"
    assert re.search(step, done.stderr, re.MULTILINE)
    assert re.search(r"^held-out examples at step 24: top1 [\d.]+", done.stderr, re.MULTILINE)


def test_a_run_that_was_moved_and_renamed_measures_the_same(
    finished: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    folder, done = finished
    result = json.loads(done.stdout)
    shutil.copytree(folder / "run", tmp_path / "2026")
    measured = process("evaluate", "--json", "2026", cwd=tmp_path)
    assert measured.returncode == 0, measured.stderr
    assert measured.stdout.count("\n") == 1
    for key in ("original_top1", "reconstructed_top1"):
        assert json.loads(measured.stdout)[key] == result[key]


def test_the_verbs_on_a_file_need_no_original_weights(finished: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    folder, done = finished
    shutil.copy(folder / "run" / "model.nern", tmp_path / "mine.nern")
    rebuilt = process("reconstruct", "mine.nern", "-o", "weights.safetensors", cwd=tmp_path)
    assert (rebuilt.returncode, rebuilt.stdout) == (0, "")
    original, state = load_file(str(folder / "original.safetensors")), load_file(str(tmp_path / "weights.safetensors"))
    assert original.keys() == state.keys()
    assert all(original[name].shape == state[name].shape and original[name].dtype == state[name].dtype for name in original)
    assert torch.equal(original["bn1.running_var"], state["bn1.running_var"])
    assert not torch.equal(original["conv1.weight"], state["conv1.weight"])
    weights = f"architecture.weights={folder / 'original.safetensors'}"
    measured = json.loads(process("evaluate", "mine.nern", weights, "--json", cwd=tmp_path).stdout)
    result = json.loads(done.stdout)
    assert (measured["original_top1"], measured["reconstructed_top1"]) == (result["original_top1"], result["reconstructed_top1"])


def test_a_users_mistake_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    path = write_experiment(tmp_path)
    done = process("train", path, "architecture.weights=original.safetensor", "--json", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "nern: weights file original.safetensor does not exist, did you mean 'original.safetensors'?\n"
    assert not (tmp_path / "run").exists()


def test_a_defect_of_nern_is_a_traceback_and_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "defect.py").write_text("import nern.engine\n\nnern.engine.Engine.fit = lambda *arguments, **options: 1 / 0\n")
    code = "import sys, nern.cli.main, defect; nern.cli.main.main(sys.argv[1:])"
    arguments = [sys.executable, "-c", code, "train", str(write_experiment(tmp_path))]
    done = subprocess.run(arguments, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


def test_a_plugins_defect_is_one_line_and_a_traceback_for_those_who_ask(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(
        "import attrs, nern\n\n@attrs.frozen\nclass Broken(nern.Sampler):\n    def start(self, kernels, layers, seed):\n"
        "        return 1 / 0\n\n@nern.hookimpl\ndef nern_samplers():\n    return {'broken': Broken}\n"
    )
    phase = {**RECONSTRUCTION, "sampler": {"name": "broken"}}
    done = process("train", write_experiment(tmp_path, plugins=["broken.py"], phases=[phase]), cwd=tmp_path, NERN_TRACEBACK="1")
    assert done.returncode == 2
    *trace, line = done.stderr.splitlines()
    assert trace[0].startswith("Traceback")
    assert "return 1 / 0" in map(str.strip, trace)
    assert re.search(r"^nern: component broken:broken \(sampler\): raised ZeroDivisionError: .*broken\.py, line 6\)$", line)


def test_importing_nern_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys, nern; dir(nern); nern.__version__; "
        "print([m for m in ('torch', 'torchvision', 'timm', 'matplotlib', 'sklearn', 'scipy', 'numpy', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.stdout == "[]\n", done.stderr
    code = "import sys, nern; nern.Engine, nern.load; print([m for m in ('torchvision', 'timm', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["train", "--help"],
        ["presets"],
        ["presets", "digits", "-o", "digits.yaml"],
        ["new-plugin", "nern-mine", "--kind", "loss"],
    ],
)
def test_commands_that_need_no_network_start_without_torch(tmp_path: Path, words: list[str]) -> None:
    code = (
        "import sys; from nern.cli.main import run; code = run(sys.argv[1:]); "
        "print([m for m in ('torch', 'torchvision', 'timm', 'scipy', 'numpy', 'pluggy') if m in sys.modules], code, file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert done.stderr.splitlines()[-1] == "[] 0"


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are there on POSIX systems only")
def test_on_a_terminal_progress_is_a_bar(tmp_path: Path) -> None:
    import fcntl
    import pty
    import struct
    import termios

    path = write_experiment(tmp_path, phases=[{**DISTILLATION, "iterations": 30}])
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))  # lines and columns
    child = started("train", path, "--json", cwd=tmp_path, stderr=slave)
    os.close(slave)
    shown, deadline = b"", time.monotonic() + 240
    while time.monotonic() < deadline:
        try:
            part = os.read(master, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(master)
    out, _ = child.communicate(timeout=60)
    assert child.returncode == 0
    assert json.loads(out)["iterations"] == 30
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert "\x1b[" in shown.decode()
    assert "━" in text
    assert "30/30" in text
    assert "steps/s" in text
