from __future__ import annotations

import json
import re
from types import SimpleNamespace

import attrs
import pytest

from nern.artifact.artifact import Bytes
from nern.cli import printing
from nern.cli.main import cli, run
from nern.run.agreement import ClassCounts
from tests.finished_run import finished

TEXT = "Any image classifier of torchvision with convolutions, by name, and a long-hyphenated-word-that-stays-whole."


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("printing") / "run")


@pytest.mark.parametrize("width", [40, 80, 200])
def test_lists_break_between_words_alone(width):
    rows = [("cifar-resnet", TEXT), ("a-name-that-is-longer-than-half-of-the-columns-at-hand", TEXT)]
    lines = printing.two_columns(rows, indent="  ", width=width).splitlines()
    words = [name for name, _ in rows] + TEXT.split()
    assert {word for line in lines for word in line.split()} == set(words)
    assert all(len(line) <= max(width, 44) or len(line.split()) <= 2 for line in lines)  # a long word has a line of its own


def test_a_pipe_gets_every_row_on_one_line():
    assert printing.two_columns([("a", TEXT), ("bcd", "")]).splitlines() == [f"a    {TEXT}", "bcd"]
    assert printing.one_line_each([("a", TEXT)]) == f"a  {TEXT}"


def test_an_overview_is_cut_behind_a_word():
    (line,) = printing.one_line_each([("name", TEXT)], width=40).splitlines()
    assert len(line) <= 40
    assert line.endswith(" …")
    assert TEXT.startswith(line.removeprefix("name").removesuffix(" …").strip())


def result(**changes):
    sizes = Bytes(original=1000, predictor=50, embedding=0, ordering=400, zeros=0, copied=40, header=10, total=500)
    counts = [attrs.asdict(ClassCounts(0, 100, 90, 90, 80, 80))]
    return SimpleNamespace(**{"bytes": sizes, "classes": counts, "iterations": 9, "seconds": 2.0, "artifact": "x/model.nern", **changes})


def test_the_end_of_a_run_says_difference_ratio_and_what_the_file_is_made_of():
    lines = printing.end_of_run(result(), {"original": "90.00 %", "reconstructed": "80.00 %"}, "float32")
    assert lines[1].endswith("500 bytes, 2.00 times smaller")
    assert re.fullmatch(r"difference     −10\.00 points \(95 % interval −\d+\.\d\d to −\d\.\d\d\)", lines[2])
    assert lines[3] == "the file is    80 % ordering, 10 % predictor, 8 % copied, 2 % header"
    assert "smoother.name=none" in lines[4]
    assert lines[5] == "9 steps in 2 s; x/model.nern"


def test_the_end_of_a_run_without_labels_and_of_a_file_that_grew():
    sizes = Bytes(original=400, predictor=490, embedding=0, ordering=0, zeros=0, copied=0, header=10, total=500)
    lines = printing.end_of_run(result(bytes=sizes, classes=None), {"original": "—", "reconstructed": "—"}, "int8")
    assert lines[1].endswith("500 bytes, which is more than the original")
    assert not any(line.startswith("difference") for line in lines)
    assert "to shrink it   predictor (the predictor's weights): a smaller predictor.hidden makes them fewer" in lines


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_end_of_a_run_breaks_between_words_alone(width):
    lines = printing.end_of_run(result(), {"original": "90.00 %", "reconstructed": "80.00 %"}, "float32")
    shown = printing.wrapped(lines, width)
    assert " ".join(shown).split() == " ".join(lines).split()
    assert all(len(line) <= width for line in shown)
    assert printing.wrapped(lines, None) == lines


def test_the_lists_of_verbs_and_figures_are_whole_sentences_at_80_columns():
    for group in (cli, cli.commands["plot"]):
        room = 78 - 6 - max(map(len, group.commands))  # as click lays out a terminal of 80 columns
        for name, command in group.commands.items():
            assert not command.get_short_help_str(room).endswith("..."), name
    assert cli.commands["train"].get_short_help_str(20).endswith("...")


def test_every_part_of_a_file_has_a_meaning():
    assert set(printing.PARTS) == {field.name for field in attrs.fields(Bytes)} - {"original", "total"}


def test_info_needs_neither_images_nor_weights(digits_run, tmp_path, capsys):
    for place in (digits_run, digits_run / "model.nern"):
        assert run(["info", str(place)]) == 0
        shown = capsys.readouterr().out
        for text in (
            "cifar-resnet",
            "mlp, hidden 32",
            "7 layers",
            "predictor",
            "ordering",
            f"{(digits_run / 'model.nern').stat().st_size:,} bytes",
        ):
            assert text in shown
    assert run(["info", str(digits_run), "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["bytes"]["total"] == (digits_run / "model.nern").stat().st_size
    assert described["facts"]["run"] == "finished, 160 steps"


def test_info_of_a_run_that_is_not_finished(digits_run, tmp_path, capsys):
    folder = tmp_path / "half"
    folder.mkdir()
    (folder / "config.yaml").write_text((digits_run / "config.yaml").read_text())
    lines = (digits_run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text(lines[0])
    assert run(["info", str(folder)]) == 0
    step = json.loads(lines[0])["iteration"]
    assert f"not finished: step {step} of 160; continue with nern train {folder} --resume" in capsys.readouterr().out


def test_prune_prints_a_table(digits_run, tmp_path, capsys):
    assert run(["prune", str(digits_run), "--ratios", "0,0.5", "-o", str(tmp_path / "pruned")]) == 0
    out = capsys.readouterr().out
    assert "|" not in out
    assert re.search(r"^ *50 % +[\d.]+ +[\d,]+ +[\d,]+ *$", out, re.MULTILINE)
    assert "| 50 % |" in (tmp_path / "pruned" / "pruning.md").read_text()


def test_verbs_take_a_run_folder_or_its_file(digits_run, tmp_path, capsys):
    for number, place in enumerate((digits_run, digits_run / "model.nern")):
        assert run(["reconstruct", str(place), "-o", str(tmp_path / f"{number}.safetensors")]) == 0
    assert (tmp_path / "0.safetensors").read_bytes() == (tmp_path / "1.safetensors").read_bytes()


@pytest.mark.parametrize("verb", [["evaluate"], ["info"], ["report"], ["reconstruct", "-o", "x.pt"], ["plot", "errors", "-o", "x"]])
def test_a_file_of_weights_is_called_what_it_is(verb, tmp_path, capsys):
    (tmp_path / "x.pth").write_bytes(b"PK\x03\x04 weights")
    assert run([*verb, str(tmp_path / "x.pth")]) == 2
    error = capsys.readouterr().err
    assert "looks like a file of weights, not like a representation; name a .nern file or a run folder" in error
