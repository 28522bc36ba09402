from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
import yaml

import nern
from nern.cli.main import run
from nern.config.loading import load_experiment
from nern.config.structuring import unstructure
from nern.engine import Engine
from nern.errors import ArtifactError, ConfigError
from nern.registry.discovery import create_registry
from nern.studies.curves import labelled
from nern.studies.report.facts import read_facts
from nern.studies.report.page import report
from nern.studies.report.paper import paper_row, tables
from tests.browser import answer_of, find_browser
from tests.finished_run import finished

pytest.importorskip("matplotlib", reason='the page needs matplotlib: pip install "nern[report]"')
pytest.importorskip("jinja2", reason='the page needs jinja2: pip install "nern[report]"')


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("report") / "digits")


@pytest.fixture(scope="module")
def page(digits_run):
    return report(digits_run).html


class Text(HTMLParser):
    """The visible words of a page, and what it would fetch."""

    def __init__(self, page):
        super().__init__()
        self.words, self.fetched, self._hidden = [], [], 0
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self._hidden += tag in ("style", "script")
        self.fetched += [
            value for name, value in attributes if name in ("src", "href", "xlink:href") and not value.startswith(("#", "data:"))
        ]

    def handle_endtag(self, tag):
        self._hidden -= tag in ("style", "script")

    def handle_data(self, data):
        if not self._hidden:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def test_the_page_says_what_result_json_says(digits_run, page):
    result = json.loads((digits_run / "result.json").read_text())
    text = Text(page).text
    for value in (f"{result['original_top1']:.2f} %", f"{result['reconstructed_top1']:.2f} %", f"{result['bytes']['total']:,} bytes"):
        assert value in text
    for part in ("predictor", "ordering", "copied", "header"):
        assert f"{result['bytes'][part]:,}" in text
    right = [sum(row[name] for row in result["classes"]) for name in ("original", "reconstructed", "both")]
    images = sum(row["images"] for row in result["classes"])
    assert 100 * right[0] / images == pytest.approx(result["original_top1"])
    assert 100 * right[1] / images == pytest.approx(result["reconstructed_top1"])
    assert f"{right[0] - right[2]} images only the original gets right, {right[1] - right[2]} only the reconstruction" in text
    assert f"{(right[1] - right[0]) * 100 / images:+.2f} points".replace("-", "−") in text


def test_the_page_is_complete_in_itself_and_small(digits_run, page, tmp_path):
    assert Text(page).fetched == []
    assert not re.search(r"url\((?!#)|@import|<script|<link", page)
    assert len(report(digits_run, f"second={digits_run}").html.encode()) < 2_000_000


def test_errors_and_kernels_are_those_of_the_weights(digits_run, page):
    engine = Engine.from_run(digits_run)
    truth, guess = dict(engine.original().named_parameters()), engine.representation.reconstruct()
    errors = []
    for layer in engine.representation.grid.layers:
        a, b = (weights[layer.parameter].detach().double().flatten(2) for weights in (truth, guess))
        ratio = ((a - b).norm(dim=2) / a.norm(dim=2)).nan_to_num(-1)
        norms = a.norm(dim=2)
        small = norms < 0.1 * (norms**2).mean() ** 0.5  # any error is large beside them
        errors += [
            (float(ratio[f, c]), f"{layer.parameter.removesuffix('.weight')}[{f}, {c}]")
            for f in range(a.shape[0])
            for c in range(a.shape[1])
            if not small[f, c]
        ]
    errors.sort()
    text = Text(page).text
    assert f"Lowest: {errors[0][1]}, {errors[1][1]}, {errors[2][1]}" in text
    assert f"Highest: {errors[-1][1]}, {errors[-2][1]}, {errors[-3][1]}" in text


def test_several_runs_stand_beside_each_other(digits_run):
    text = Text(report(f"mine={digits_run}", f"yours={digits_run}").html).text
    assert "The runs beside each other" in text
    assert text.count("Agreement by class") == 2
    with pytest.raises(ConfigError, match="two runs are called 'mine'"):
        labelled([f"mine={digits_run}", f"mine={digits_run}"])
    assert list(labelled(["runs/a", "other/a"])) == ["a", str(Path("other/a"))]


def test_a_file_alone_is_shown_with_what_it_holds(digits_run, tmp_path):
    shutil.copy(digits_run / "model.nern", tmp_path)
    text = Text(report(tmp_path / "model.nern").html).text
    assert "Not shown: a file alone does not hold the original weights; name them with --weights FILE" in text
    with_weights = Text(report(tmp_path / "model.nern", weights=digits_run / "original.safetensors").html).text
    assert "Best and worst kernels" in with_weights


def test_neither_images_nor_original_weights_are_needed(digits_run, tmp_path):
    moved = shutil.copytree(digits_run, tmp_path / "moved")
    (moved / "original.safetensors").unlink()
    config = yaml.safe_load((moved / "config.yaml").read_text())
    (moved / "config.yaml").write_text(yaml.safe_dump({**config, "task": {"name": "cifar10", "root": "nowhere"}}))
    text = Text(report(moved).html).text
    assert "Not shown: the original weights are not where the run found them; name them with --weights FILE" in text


@pytest.fixture(scope="module")
def regression(tmp_path_factory):
    """A network of one's own, handed over in memory: nothing here builds it. (module, run folder, the page's words)"""
    folder = tmp_path_factory.mktemp("own")
    torch.manual_seed(0)
    model, inputs = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1)), torch.randn(60, 6)
    short = {"phases.reconstruction.iterations": 3, "phases.distillation.iterations": 2, "phases.distillation.batch": 8, "observers": {}}
    nern.represent(model, (inputs, inputs[:, :1]), overrides=short, output=folder / "run", quiet=True)
    return model, folder / "run", Text(report(folder / "run").html).text


def test_a_network_that_was_handed_over_in_memory_has_a_page_with_its_errors(regression):
    model, folder, text = regression
    wrong = nern.load(folder / "model.nern").state_dict()
    truth = model.state_dict()
    errors_by_layer = read_facts(folder, "mine").errors
    assert set(errors_by_layer) == {"0.weight", "2.weight"}
    for name, errors in errors_by_layer.items():
        a, b = truth[name].double(), wrong[name].double()
        assert errors.layer == pytest.approx(float((a - b).norm() / a.norm()), rel=1e-5)
    assert "Best and worst kernels" in text
    assert "112 of 129 numbers" in text
    alone = read_facts(folder / "model.nern", "file", str(folder / "original.safetensors"))
    assert alone.errors["2.weight"].layer == errors_by_layer["2.weight"].layer
    assert alone.bytes["total"] == (folder / "model.nern").stat().st_size


def test_every_figure_stands_beside_that_of_the_original(regression):
    _, folder, text = regression
    result = json.loads((folder / "result.json").read_text())
    before, after = result["original"], result["checkpoints"]["chosen"]["test"]
    assert set(before) == set(after) == {"mse", "mse_original"}
    named = {"mse": "mean squared error", "mse_original": "mean squared difference from the original's outputs"}
    for name in before:
        assert f"{named[name]} {before[name]:.4g} {after[name]:.4g}" in text
    assert f"original, mean squared error {before['mse']:.4g}" in text
    difference = f"difference {after['mse'] - before['mse']:+.4g} ".replace("-", "−")
    assert difference + f"the reconstruction is {'worse' if after['mse'] > before['mse'] else 'better'}" in text
    assert "On held-out examples of the training data: mean squared error." in text
    shown = text.partition("Configuration")[0].lower()
    assert not [word for word in ("agreement", "images", "accuracy", "top-1") if word in shown]


def test_errors_of_a_network_in_memory_are_drawn_and_its_activations_are_refused(regression, tmp_path, capsys):
    _, folder, _ = regression
    assert run(["plot", "errors", str(folder), "-o", str(tmp_path / "errors")]) == 0
    assert run(["importance", str(folder), "-o", str(tmp_path / "importance")]) == 2
    assert "nothing here says what builds this network (Sequential): it was handed over in memory" in capsys.readouterr().err
    other = shutil.copytree(folder, tmp_path / "other")
    shutil.copy(other / "data.safetensors", other / "original.safetensors")
    assert run(["plot", "errors", str(other), "-o", str(tmp_path / "errors")]) == 2
    assert "original.safetensors does not hold the weights that the representation was made from" in capsys.readouterr().err
    assert read_facts(other, "other").without_errors.startswith(f"{other / 'original.safetensors'} does not hold")


def test_a_run_of_an_older_version_has_no_interval(digits_run, tmp_path):
    old = shutil.copytree(digits_run, tmp_path / "old")
    result = json.loads((old / "result.json").read_text())
    del result["classes"]
    (old / "result.json").write_text(json.dumps(result))
    text = Text(report(old).html).text
    assert "no interval recorded" in text
    assert "Agreement by class" not in text


def test_a_run_of_an_older_version_lacks_a_part_of_the_file(digits_run, tmp_path):
    old = shutil.copytree(digits_run, tmp_path / "old")
    result = json.loads((old / "result.json").read_text())
    del result["bytes"]["base"]
    (old / "result.json").write_text(json.dumps(result))
    assert "what is added to predictions" not in Text(report(digits_run, old).html).text


def test_originals_of_several_sizes_are_all_shown(digits_run, tmp_path):
    other = shutil.copytree(digits_run, tmp_path / "other")
    result = json.loads((other / "result.json").read_text())
    size = result["bytes"]["original"]
    (other / "result.json").write_text(json.dumps({**result, "bytes": {**result["bytes"], "original": 2 * size}}))
    text = Text(report(digits_run, f"same={digits_run}", other).html).text
    assert f"The original network of digits : {size:,} bytes".replace(" :", ":") in text
    assert f"The original network of other: {2 * size:,} bytes" in text
    assert "The original network of same" not in text
    assert f"The original network: {size:,} bytes" in Text(report(digits_run, f"same={digits_run}").html).text


def test_text_from_outside_is_text(digits_run, tmp_path):
    path = shutil.copytree(digits_run, tmp_path / "run")
    with (path / "config.yaml").open("a") as file:
        file.write("# <script>alert(1)</script>\n")
    assert "<script" not in report(f"<b>x</b>={path}").html


def test_a_row_of_the_paper_is_recognised():
    registry = create_registry(entry_points=False)
    overrides = {"seed": 3, "task.root": "elsewhere", "architecture.weights": "w.th", "output": "x", "evaluate_every": 7}
    for preset in ("table1/resnet20-cross-filter-160", "table1/resnet20-cross-filter-160-fast"):
        row = paper_row(unstructure(*load_experiment(preset, overrides, registry)), registry)
        assert (row.preset, row.value, row.original) == (preset, "91.04 ± 0.07", 91.69)
    shorter = {"phases.reconstruction.iterations": 10}
    assert paper_row(unstructure(*load_experiment("table1/resnet20-cross-filter-160-fast", shorter, registry)), registry) is None
    assert paper_row(unstructure(*load_experiment("digits", registry=registry)), registry) is None


def test_every_row_of_the_paper_is_a_preset():
    from nern.config.sources import presets

    assert {f"{table['family']}/{row}" for table in tables() for row in table["rows"]} <= set(presets())


def test_mistakes_are_named(digits_run, tmp_path, capsys):
    with pytest.raises(ConfigError, match="holds no run"):
        report(tmp_path)
    with pytest.raises(ArtifactError, match="there is no representation file and no run folder"):
        report(tmp_path / "none.nern")
    unfinished = shutil.copytree(digits_run, tmp_path / "unfinished")
    (unfinished / "result.json").unlink()
    with pytest.raises(ArtifactError, match=r"is not finished: it has no result\.json; continue with nern train"):
        report(unfinished)
    (unfinished / "result.json").write_text("[]")
    with pytest.raises(ArtifactError, match=r"result\.json is damaged"):
        report(unfinished)
    (tmp_path / "file").write_text("")
    assert run(["report", str(digits_run), "-o", str(tmp_path / "file" / "x.html")]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_the_verb_and_the_method_write_the_same_page(digits_run, tmp_path, capsys):
    assert run(["report", str(digits_run), "-o", str(tmp_path / "new" / "report.html")]) == 0
    written = (tmp_path / "new" / "report.html").read_text(encoding="utf-8")
    assert capsys.readouterr().out == f"{tmp_path / 'new' / 'report.html'}: {len(written.encode()):,} bytes\n"
    report_page = nern.report(digits_run)
    assert report_page.html == written
    assert "srcdoc=" in report_page._repr_html_()
    assert "<script" not in report_page._repr_html_()


def test_jinja_and_matplotlib_are_imported_only_for_a_page_and_their_absence_is_explained(digits_run):
    code = "import sys, nern.cli.main, nern.studies.report.page; assert not {'jinja2', 'matplotlib'} & set(sys.modules); "
    code += f"sys.modules['jinja2'] = None; sys.exit(nern.cli.main.run(['report', {str(digits_run)!r}, '-o', 'x.html']))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert process.returncode == 2
    assert 'pip install "nern[report]"' in process.stderr


# Loads the report at the width of a screen and of a phone, in light and in dark colours, and reports what a reader sees.
LOOK = """<!doctype html><body><iframe src="report.html" style="border:0;width:WIDTHpx;height:900px"></iframe><script>
const parts = colour => colour.match(/[\\d.]+/g).slice(0, 3).map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
const luminance = colour => parts(colour).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const contrast = (a, b) => {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
};
const frame = document.querySelector("iframe");
frame.onload = () => {
  const inside = frame.contentDocument, style = e => frame.contentWindow.getComputedStyle(e);
  const ground = style(inside.body).backgroundColor, all = what => [...inside.querySelectorAll(what)];
  const scrolls = e => {
    for (let up = e.parentElement; up; up = up.parentElement) if (/auto|scroll/.test(style(up).overflowX)) return true;
  };
  const boxes = all("svg text").map(e => e.getBoundingClientRect()).filter(box => box.width);
  const measures = {
    svgs: all("svg").length, dark: luminance(ground) < 0.2, text: contrast(style(inside.querySelector("p")).color, ground),
    least: Math.min(...all("svg text").map(e => contrast(style(e).fill, ground))), smallest: Math.min(...boxes.map(b => b.height)),
    bars: all(".bar span").map(e => e.getBoundingClientRect().width),
    wide: all("main *").filter(e => !e.closest("svg") && e.getBoundingClientRect().right > WIDTH + 1 && !scrolls(e))
      .map(e => e.outerHTML.slice(0, 80)),
  };
  document.body.innerHTML = "<pre id=answer></pre>";
  document.getElementById("answer").textContent = JSON.stringify(measures);
};
</script></body>"""


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_can_be_read_in_a_browser(digits_run, page, tmp_path, width, dark):
    browser = find_browser()
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    (tmp_path / "look.html").write_text(LOOK.replace("WIDTH", str(width)))
    switches = ["allow-file-access-from-files", *(["force-dark-mode"] if dark else [])]
    seen = answer_of(browser, f"file://{tmp_path / 'look.html'}", tmp_path / "profile", *switches)
    assert seen["dark"] == dark
    assert seen["wide"] == []
    assert seen["svgs"] >= 4
    assert seen["least"] > 4.5  # text of pictures against the page, as of WCAG 2, AA
    assert seen["text"] > 4.5
    assert seen["smallest"] >= 5  # no text of a picture has collapsed
    assert all(length > 0 for length in seen["bars"])
