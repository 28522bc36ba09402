"""Runs the blocks of one page in the current folder, in order, as a reader would: `page_runner.py PAGE`.

Python blocks share one namespace and run where the shell blocks before them went.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.docs.markdown_blocks import CHECKED_ONLY, Block, blocks, commands

ROOT = Path(__file__).resolve().parents[2]


def run_page(page: Path) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    written: set[str] = set()
    code_blocks = blocks(page.read_text(encoding="utf-8"))
    for block, following in zip(code_blocks, [*code_blocks[1:], None], strict=False):
        place = f"{page.name}:{block.line}"
        if block.mark in CHECKED_ONLY and block.language == "python":
            compile(block.code, place, "exec")
        elif block.mark in CHECKED_ONLY:
            check_commands(block, place)
        elif block.title is not None:
            write_file(block, written)
            if block.language == "yaml" and block.mark != "file":
                check_experiment(block.title, place)
        elif block.language == "python":
            exec(compile("\n" * block.line + block.code, str(page), "exec"), namespace)  # noqa: S102 (that is its task)
        elif block.language == "bash":
            run_shell(block, following, place)
        elif block.language == "yaml":
            check_fragment(block.code, place)


def run_shell(block: Block, following: Block | None, place: str) -> None:
    """Run a block, follow its `cd`, and hold exit code and output against what the page says."""
    script = f"set -euo pipefail\ntrap 'pwd > \"$WHERE\"' EXIT\n{block.code}"
    where = Path(os.environ["WHERE"])
    process = subprocess.run(["bash", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(process.stdout, flush=True)
    os.chdir(where.read_text().strip())
    expected = 2 if block.mark == "fails" else 0
    if process.returncode != expected:
        sys.exit(f"{place}: exit code {process.returncode}, expected {expected}")
    if block.mark == "fails":
        if following is None or following.language != "text":
            sys.exit(f"{place}: a command that fails needs a text block with its message behind it")
        for line in following.code.splitlines():
            if line not in process.stdout:
                sys.exit(f"{place}: the output lacks {line!r}")


def write_file(block: Block, written: set[str]) -> None:
    assert block.title is not None
    path = Path(block.title)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a" if block.title in written else "w", encoding="utf-8") as file:
        file.write(block.code)
    written.add(block.title)
    if block.language == "toml" and sys.version_info >= (3, 11):
        import tomllib

        tomllib.loads(path.read_text(encoding="utf-8"))


def check_experiment(path: str, place: str) -> None:
    from nern.config.loading import load_experiment
    from nern.errors import NernError

    try:
        load_experiment(path)
    except NernError as error:
        sys.exit(f"{place}: {error}")


def check_fragment(code: str, place: str) -> None:
    """A part of a configuration has to fit into a whole one."""
    from nern.config.sources import presets
    from nern.config.structuring import structure
    from nern.config.yaml_reading import read_yaml
    from nern.errors import NernError
    from nern.registry.discovery import create_registry

    whole = read_yaml(presets()["digits"], "digits")
    part = read_yaml(code, place)
    try:
        structure({**whole, **part}, create_registry(), place)
    except NernError as error:
        sys.exit(str(error))


def check_commands(block: Block, place: str) -> None:
    """Commands that are not run: experiments and overrides must be right, verbs, files, modules and targets exist."""
    from nern.cli.main import cli
    from nern.config.loading import load_experiment
    from nern.errors import NernError
    from nern.studies.search import Range
    from nern.studies.sweep import parse_grid

    syntax = subprocess.run(["bash", "-n", "-c", block.code], capture_output=True, text=True)
    if syntax.returncode:
        sys.exit(f"{place}: {syntax.stderr}")
    for words in commands(block.code):
        problem = None
        if words[0] == "nern":
            if words[1] not in cli.commands:
                problem = f"there is no verb 'nern {words[1]}'"
            elif words[1] in ("train", "pretrain", "sweep"):
                reference, *overrides = [word for word in words[2:] if not word.startswith("-") and ("=" in word or word == words[2])]
                try:
                    axes, single = parse_grid(overrides)
                    swept = {path: axis.at(0.5) if isinstance(axis, Range) else axis[0] for path, axis in axes.items()}
                    load_experiment(reference, {**single, **swept})
                except NernError as error:
                    problem = str(error)
        elif words[0] == "make" and f"\n{words[1]}:" not in (ROOT / "Makefile").read_text():
            problem = f"the Makefile has no target '{words[1]}'"
        elif words[:2] == ["python", "-m"]:
            sys.path.insert(0, str(ROOT))
            problem = None if find_spec(words[2]) else f"there is no module {words[2]}"
        elif words[0] == "python" and not (ROOT / words[1]).is_file():
            problem = f"there is no file {words[1]}"
        if problem:
            sys.exit(f"{place}: {problem}")


if __name__ == "__main__":
    run_page(Path(sys.argv[1]))
