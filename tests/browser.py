"""A real browser for the tests of pages: what does its layout say, and what does it show?"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SWITCHES = (
    "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
    "disable-component-update", "disable-sync", "disable-dev-shm-usage", "hide-scrollbars", "virtual-time-budget=100000",
)  # fmt: skip


def find_browser() -> str:
    """The command of a Chromium; the test that asks is skipped where there is none."""
    command = next(filter(None, map(shutil.which, NAMES)), None)
    if command is None:
        pytest.skip(f"needs a browser ({', '.join(NAMES)})")
    return command


def answer_of(browser: str, page: str, profile: Path, *more: str) -> Any:
    """Open a page and read the JSON that its script wrote into `<pre id="answer">`."""
    switches = [*SWITCHES, f"user-data-dir={profile}", "dump-dom", *more]
    process = subprocess.run([browser, *(f"--{switch}" for switch in switches), page], capture_output=True, text=True, timeout=240)
    match = re.search(r'<pre id="answer">(.*?)</pre>', process.stdout, re.DOTALL)
    assert match, f"the browser did not finish: {process.stderr[-2000:]}"
    return json.loads(html.unescape(match[1]))
