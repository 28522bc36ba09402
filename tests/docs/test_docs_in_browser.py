"""The built pages in a real browser, as wide as a phone and as a screen: nothing sticks out, is cut or cannot be found."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.browser import SWITCHES, answer_of, find_browser

WIDTHS = (390, 1440)

# Loads each page into a frame as wide as a phone and reports what is wider than it and cannot be scrolled to, and how
# many equations have a fraction whose numerator is not above its denominator.
MEASURE = """<!doctype html><body><script>
const reachable = (element, frame) => {
  for (let up = element.parentElement; up && up !== frame.body; up = up.parentElement)
    if (/auto|scroll/.test(frame.defaultView.getComputedStyle(up).overflowX) && up.getBoundingClientRect().right <= WIDTH + 1) return true;
  return false;
};
const measure = page => new Promise(done => {
  const frame = document.createElement("iframe");
  frame.style = "border:0;width:WIDTHpx;height:844px";
  frame.onload = () => {
    const inside = frame.contentDocument, content = inside.querySelector(".md-content") || inside.body;
    const wide = [...content.querySelectorAll("*")].filter(
      element => element.getBoundingClientRect().right > WIDTH + 1 && !reachable(element, inside));
    const fractions = [...inside.querySelectorAll("mfrac")];
    const flat = fractions.filter(f => f.children[0].getBoundingClientRect().bottom > f.children[1].getBoundingClientRect().top + 1);
    const shown = what => [...content.querySelectorAll(what)].filter(element => element.getBoundingClientRect().height);
    done({page, height: inside.documentElement.scrollHeight,
          hidden: shown(".wide").filter(box => box.scrollWidth > box.clientWidth + 1).map(box => box.textContent.trim().slice(0, 60)),
          cut: shown(".equation-body").filter(box => box.scrollHeight > box.clientHeight + 1).length,
          output: shown(".language-text code").map(code => frame.contentWindow.getComputedStyle(code).backgroundColor),
          input: shown(".language-bash code").map(code => frame.contentWindow.getComputedStyle(code).backgroundColor),
          width: inside.documentElement.clientWidth, fractions: fractions.length, flat: flat.length,
          wide: wide.slice(0, 3).map(e => `<${e.tagName.toLowerCase()} class="${e.className}"> ${e.textContent.slice(0, 60)}`)});
    frame.remove();
  };
  frame.src = page;
  document.body.append(frame);
});
(async () => {
  const records = [];
  for (const page of PAGES) records.push(await measure(page));
  document.body.innerHTML = "<pre id=answer></pre>";
  document.getElementById("answer").textContent = JSON.stringify(records);
})();
</script></body>"""

SCRIPT = re.compile(r"<script\b.*?</script>", re.DOTALL)
TABLE = re.compile(r"<table>.*?</table>", re.DOTALL)
WRAPPED = r'<div class="md-typeset__scrollwrap"><div class="md-typeset__table">\g<0></div></div>'  # as the theme's script does


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None: ...


@pytest.fixture(scope="module")
def browser() -> str:
    return find_browser()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """An empty folder and the address under which it can be read."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def measure(browser: str, served: tuple[Path, str], profile: Path, pages: list[str], width: int = 390) -> dict[str, dict[str, Any]]:
    """What the browser finds on each page."""
    folder, address = served
    script = MEASURE.replace("WIDTH", str(width)).replace("PAGES", json.dumps(pages))
    (folder / "measure.html").write_text(script)
    records = answer_of(browser, f"{address}/measure.html", profile)
    return {record["page"]: record for record in records}


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
def test_pages_fit_a_screen(browser: str, served: tuple[Path, str], docs_site: Path, tmp_path: Path, width: int) -> None:
    shutil.copytree(docs_site, served[0], dirs_exist_ok=True)
    pages = []
    for page in sorted(served[0].rglob("*.html")):  # what is read does not need the scripts, which take seconds a page
        page.write_text(TABLE.sub(WRAPPED, SCRIPT.sub("", page.read_text(encoding="utf-8"))), encoding="utf-8")
        pages.append(str(page.relative_to(served[0])))
    records = measure(browser, served, tmp_path / "profile", pages, width)
    assert set(records) == set(pages)
    assert {record["width"] for record in records.values()} == {width}
    assert {page: record["cut"] for page, record in records.items() if record["cut"]} == {}
    if width > 1000:  # the last column of every table can be seen
        assert {page: record["hidden"] for page, record in records.items() if record["hidden"]} == {}
    assert records["reference/presets.html"]["height"] < 20_000  # it was 188,647: nobody scrolls that far
    output, commands = (set(records["troubleshooting.html"][what]) for what in ("output", "input"))
    assert output and commands and not output & commands  # what is printed looks different from what is typed
    assert {page: record["wide"] for page, record in records.items() if record["wide"]} == {}
    assert records["method/losses.html"]["fractions"] > 5
    assert {page: record["flat"] for page, record in records.items() if record["flat"]} == {}


def test_the_search_of_a_site_on_the_disk_finds_pages(browser: str, docs_site: Path, tmp_path: Path) -> None:
    switches = [*SWITCHES, f"user-data-dir={tmp_path / 'profile'}", "dump-dom"]
    page = f"file://{docs_site / 'method' / 'losses.html'}?q=ordering"
    process = subprocess.run([browser, *(f"--{switch}" for switch in switches), page], capture_output=True, text=True, timeout=240)
    assert re.search(r'md-search-result__meta">\d+ matching documents', process.stdout)
    assert process.stdout.count('class="md-search-result__item"') > 3


def test_what_sticks_out_is_found(browser: str, served: tuple[Path, str], tmp_path: Path) -> None:
    page = "<!doctype html><body style='margin:0'><div style='{}'><p style='width:600px'>wide</p></div></body>"
    (served[0] / "wide.html").write_text(page.format(""))
    (served[0] / "scrolled.html").write_text(page.format("overflow-x:auto"))
    (served[0] / "hidden.html").write_text(page.format("overflow-x:hidden"))
    records = measure(browser, served, tmp_path / "profile", ["wide.html", "scrolled.html", "hidden.html"])
    assert {name: bool(record["wide"]) for name, record in records.items()} == {
        "wide.html": True,
        "scrolled.html": False,
        "hidden.html": True,
    }
