"""Every code block of README.md and docs/ runs, or is checked where it needs data, a network or an hour."""

from __future__ import annotations

import os
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.docs.markdown_blocks import Block, blocks, commands, pages
from tests.docs.page_runner import run_page

ROOT = Path(__file__).resolve().parents[2]
RUNNER = Path(__file__).with_name("page_runner.py")
PAGES = [str(page) for page in pages(ROOT)]
SECONDS = 900  # after which a page hangs; an idle machine needs less than 30


def reader(folder: Path) -> dict[str, str]:
    """A fresh Python environment in which nern is installed, as the environment variables of a reader's shell."""
    venv.create(folder, with_pip=False, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = [path for path in [*site.getsitepackages(), *sys.path] if path.endswith(("site-packages", "dist-packages"))]
    lines = [str(ROOT), *(f"import site; site.addsitedir({path!r})" for path in dict.fromkeys(packages))]
    (folder / "lib" / version / "site-packages" / "parent.pth").write_text("\n".join(lines) + "\n")
    for name, module in (("nern", "nern"), ("pip", "pip")):
        script = folder / "bin" / name
        script.write_text(f'#!/bin/sh\nexec "{folder}/bin/python" -m {module} "$@"\n')
        script.chmod(0o755)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "NERN_DISABLE", "PYTHONPATH"))}
    return {
        **inherited,
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "MPLBACKEND": "Agg",
        "NO_COLOR": "1",
        # what is needed is installed already: nothing is fetched
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "WHERE": str(folder / "where"),
    }


def run(page: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a page's blocks in an empty folder."""
    environment = reader(folder / "environment")
    empty = folder / "empty"
    empty.mkdir()
    python = folder / "environment" / "bin" / "python"
    return subprocess.run(
        [python, RUNNER, page], cwd=empty, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SECONDS
    )


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_blocks_run(page: str, tmp_path: Path) -> None:
    done = run(ROOT / page, tmp_path)
    assert done.returncode == 0, f"{page}\n{done.stdout[-4000:]}"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in which pages run inside this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WHERE", str(tmp_path / ".where"))
    return tmp_path


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("```python\nassert 1 == 2\n```\n", "AssertionError"),
        ("```bash\nfalse\necho done\n```\n", "exit code 1, expected 0"),
        ("<!-- test: fails -->\n```bash\necho seed is wrong; exit 2\n```\n\n```text\nseed is fine\n```\n", "lacks 'seed is fine'"),
        ("<!-- test: fails -->\n```bash\necho seed\n```\n\n```text\nseed\n```\n", "exit code 0, expected 2"),
        ("<!-- test: fails -->\n```bash\nexit 2\n```\n", "needs a text block"),
        ("```yaml\nsmother: none\n```\n", "did you mean 'smoother'"),
        ('```yaml title="a.yaml"\ntask: digits\n```\n', "architecture: is missing"),
        ("<!-- test: needs-cifar -->\n```bash\nnern train resnet20-cifar10 predictor.hiden=1\n```\n", "did you mean 'hidden'"),
        ("<!-- test: long -->\n```bash\nnern sweep digits predictor.hiden=16..64\n```\n", "did you mean 'hidden'"),
        ("<!-- test: long -->\n```bash\nnern trian digits\n```\n", "no verb 'nern trian'"),
        ("<!-- test: long -->\n```bash\nmake coffee\n```\n", "no target 'coffee'"),
        ("<!-- test: long -->\n```bash\npython docs/missing.py\n```\n", "no file docs/missing.py"),
        ("<!-- test: long -->\n```bash\npython -m nowhere\n```\n", "no module nowhere"),
        ("<!-- test: long -->\n```bash\nif nern\n```\n", "syntax error"),
        ("<!-- test: long -->\n```python\nnern.load(\n```\n", "SyntaxError"),
        ("```rust\n```\n", "no test understands"),
        ("```bash\nls\n", "not closed"),
        ("<!-- test: sometimes -->\n```bash\n```\n", "no mark 'sometimes'"),
    ],
)
def test_wrong_blocks_are_found(text: str, problem: str, here: Path) -> None:
    (here / "page.md").write_text(text)
    with pytest.raises((SystemExit, Exception)) as caught:
        run_page(here / "page.md")
    assert problem in f"{caught.type.__name__}: {caught.value}"


def test_blocks_follow_the_shell_and_continue_files(here: Path) -> None:
    (here / "page.md").write_text(
        "```bash\nmkdir inner\ncd inner\n```\n"
        '```python title="a.py"\nx = 1\n```\n```python title="a.py"\ny = x + 1\n```\n'
        "```python\nz = [*open('a.py')]\n```\n```python\nassert len(z) == 2\n```\n"
    )
    run_page(here / "page.md")
    assert (here / "inner" / "a.py").read_text() == "x = 1\ny = x + 1\n"


def test_parsing() -> None:
    text = 'a\n<!-- test: long -->\n```bash\nnern train a \\\n  b=1 # why\n```\n```yaml title="x.yaml"\na: 1\n```\n'
    assert blocks(text) == [
        Block("bash", "nern train a \\\n  b=1 # why\n", 3, None, "long"),
        Block("yaml", "a: 1\n", 7, "x.yaml"),
    ]
    assert commands(blocks(text)[0].code) == [["nern", "train", "a", "b=1"]]
