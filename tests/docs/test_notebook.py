"""The notebook that is made of the tutorial has every block of it, and runs."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.docs.markdown_blocks import CHECKED_ONLY, blocks

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def notebooks() -> ModuleType:
    pytest.importorskip("mkdocs", reason="needs the extra 'docs'")
    spec = importlib.util.spec_from_file_location("notebooks", ROOT / "docs" / "hooks" / "notebooks.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_block_of_the_tutorial_is_a_cell(notebooks: ModuleType) -> None:
    code = [cell["source"] for cell in notebooks.notebook(PAGE)["cells"] if cell["cell_type"] == "code"]
    expected = [block for block in blocks(PAGE) if block.mark not in CHECKED_ONLY and block.language != "text"]
    assert len(code) == len(expected) > 5
    for source, block in zip(code, expected, strict=True):
        assert source.endswith(block.code.rstrip("\n"))


def test_output_is_not_a_cell_and_links_lead_to_the_site(notebooks: ModuleType) -> None:
    page = "Read [this](runs.md#bytes).\n\n<!-- test: fails -->\n```bash\nnern x\n```\n\n```text\nnern: no\n```\n"
    cells = notebooks.notebook(page)["cells"]
    assert [cell["source"] for cell in cells] == ["Read [this](runs.html#bytes).", "%%bash --no-raise-error\nnern x"]


@pytest.mark.slow
def test_the_notebook_runs(notebooks: ModuleType, tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="needs nbformat, nbclient and ipykernel")
    nbclient = pytest.importorskip("nbclient", reason="needs nbformat, nbclient and ipykernel")
    pytest.importorskip("ipykernel", reason="needs nbformat, nbclient and ipykernel")
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    script = bin_folder / "nern"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m nern "$@"\n')
    script.chmod(0o755)
    (tmp_path / "tutorial.ipynb").write_text(json.dumps(notebooks.notebook(PAGE)))
    notebook = nbformat.read(tmp_path / "tutorial.ipynb", as_version=4)
    nbformat.validate(notebook)
    path = f"{bin_folder}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NERN_DISABLE_PLUGINS": "1"}
    client = nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env=environment)
    assert (tmp_path / "runs" / "tutorial" / "model.nern").is_file()
    assert subprocess.run([script, "--version"], env=environment, capture_output=True).returncode == 0
