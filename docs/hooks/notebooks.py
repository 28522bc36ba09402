"""Makes the notebook of the tutorial from its page, so that they cannot differ: `python docs/hooks/notebooks.py tutorial.ipynb`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "tutorial.md"
BLOCK = re.compile(
    r"(?:^<!-- test: (?P<mark>[\w-]+) -->\n)?^```(?P<language>\w+)(?P<rest>[^\n]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)


@event_priority(50)
def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """Add the notebook as a file to download."""
    files.append(File.generated(config, "tutorial.ipynb", content=json.dumps(notebook(PAGE.read_text(encoding="utf-8")), indent=1)))
    return files


def notebook(page: str) -> dict[str, Any]:
    """A page as a notebook: text as Markdown, Python as code, commands as `%%bash`, files as `%%writefile`.

    Blocks that cannot be run everywhere (`needs-cifar`, `needs-network`, `long`) stay Markdown; cells have no output.
    """
    cells: list[dict[str, Any]] = []
    end = 0
    for block in BLOCK.finditer(page):
        _text(cells, page[end : block.start()])
        end = block.end()
        language, code, title = block["language"], block["code"], re.search(r'title="([^"]+)"', block["rest"])
        if block["mark"] in ("needs-cifar", "needs-network", "long"):
            _text(cells, f"```{language}\n{code}```")
        elif title:
            _code(cells, f"%%writefile {title[1]}\n{code}")
        elif language == "python":
            _code(cells, code)
        elif language == "bash":
            _code(cells, f"%%bash{' --no-raise-error' if block['mark'] == 'fails' else ''}\n{code}")
    _text(cells, page[end:])
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}}, "nbformat": 4, "nbformat_minor": 5}


def _text(cells: list[dict[str, Any]], text: str) -> None:
    text = re.sub(r"\((?!https?:)([\w/.-]+)\.md(#[\w-]*)?\)", r"(\1.html\2)", text).strip()
    if text:
        cells.append({"cell_type": "markdown", "id": f"cell-{len(cells)}", "metadata": {}, "source": text})


def _code(cells: list[dict[str, Any]], code: str) -> None:
    cell = {"cell_type": "code", "execution_count": None, "id": f"cell-{len(cells)}", "metadata": {}, "outputs": []}
    cells.append({**cell, "source": code.rstrip("\n")})


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(notebook(PAGE.read_text(encoding="utf-8")), indent=1) + "\n", encoding="utf-8")
