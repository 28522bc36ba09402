from __future__ import annotations

import json
import math

import pytest
import yaml

from benchmarks import reproduction, rows
from nern.config.sources import presets
from nern.kernels.coordinates import LayerMapping
from nern.studies.report.measured import measured


def result(preset, seed, top1, **more):
    known = rows.configuration(preset, more.get("overrides", {})) if preset in presets() else {}
    return {
        "configuration": known,
        "preset": preset, "seed": seed, "overrides": {}, "command": f"nern train {preset}", "original_top1": 91.73,
        "reconstructed_top1": top1, "seconds": 600.0, 
        "environment": {"device": "cpu", "processor": "Xeon", "dtype": "bfloat16", "threads": 1 + seed}, **more,
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    def write(name, content):
        (tmp_path / name).write_text(json.dumps(content))

    for seed, top1 in enumerate((91.0, 91.2)):
        write(f"a{seed}.json", result("table7/uniform-fast", seed, top1))
    gpu = {"device": "cuda:0", "processor": "NVIDIA H100", "dtype": "bfloat16", "threads": 8}
    write("b.json", result("table7/all", 0, 90.5, environment=gpu))
    write(
        "c.json", result("table7/all", 1, 12.5, overrides={"phases.0.iterations": 5}, command="nern train table7/all phases.0.iterations=5")
    )
    write("d.json", result("table7/magnitude", 0, None))  # no test set
    write("pruning.json", {"points": []})  # another study's file
    return tmp_path


def row(page, preset):
    (line,) = [line for line in page.splitlines() if line.endswith(f"| `nern train {preset}` |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_files_are_listed_with_their_bytes_the_smallest_part_first(tmp_path):
    parts = {"predictor": 400, "embedding": 0, "ordering": 60, "zeros": 5, "copied": 30, "header": 5}
    for name, preset, total, top1 in (("a", "large", 900, 91.0), ("b", "small", 500, 90.0), ("c", "small", 500, 90.2)):
        kept = result(preset, len(name), top1, bytes={"original": 1000, "total": total, **parts})
        (tmp_path / f"{name}.json").write_text(json.dumps(kept))
    other = result("small", 0, 12.0, bytes={"original": 1, "total": 1, **parts}, overrides={"predictor.hidden": 1})
    (tmp_path / "d.json").write_text(json.dumps(other))
    lines = [line for line in reproduction.page(tmp_path, tmp_path).splitlines() if line.startswith(("| `small", "| `large"))]
    half = 12.706205 * math.sqrt(0.02) / math.sqrt(2)
    assert lines == [
        f"| `small` | 90.10 ± {half:.2f} | 91.73 | 500 | 400 | 0 | 60 | 5 | 30 | 1,000 | 50.0% |",
        "| `large` | 91.00 | 91.73 | 900 | 400 | 0 | 60 | 5 | 30 | 1,000 | 90.0% |",
        "| `small predictor.hidden=1` | 12.00 | 91.73 | 1 | 400 | 0 | 60 | 5 | 30 | 1 | 100.0% |",
    ]


def test_measured_numbers_stand_beside_the_papers(folder):
    page = reproduction.page(folder, folder)
    half = 12.706205 * math.sqrt(0.02) / math.sqrt(2)  # t(0.975; 1) · s / √n of 91.0 and 91.2
    command = "`nern train table7/uniform-fast`"
    assert row(page, "table7/uniform-fast") == [
        "ResNet20", "cross-filter", "160", "images", "91.00 ± 0.08 of 91.69", "fast", f"**91.10 ± {half:.2f}** of 91.73", "−0.63", "2",
        "10 on 1 thread or 2 threads", "", command,
    ]  # fmt: skip
    assert "`nern train table7/uniform`" not in page  # the command beside a number is the one that made it
    assert row(page, "table7/all")[4:10] == ["90.99 ± 0.13 of 91.69", "paper's", "**90.50** of 91.73", "−1.23", "1", "10 on NVIDIA H100"]
    assert "Minutes were measured on one NVIDIA H100 in bfloat16 or one Xeon in bfloat16." in page
    assert row(page, "table7/magnitude-fast")[6:11] == ["*not run*", "", "", "", ""]
    assert "| 12.50 | 91.73 | `nern train table7/all phases.0.iterations=5` |" in page


def test_a_result_from_before_its_preset_was_changed_is_refused(folder, monkeypatch, capsys):
    kept = result("resnet20-cifar10-fast", 0, 91.3)
    kept["configuration"]["phases"][1]["optimizer"]["lr"] = 3e-4
    (folder / "old.json").write_text(json.dumps(kept))
    monkeypatch.setattr(reproduction, "RESULTS", folder)
    assert reproduction.main(["--check"]) == 1
    problem = capsys.readouterr().err
    assert f"{folder / 'old.json'}: resnet20-cifar10-fast had other values when this was measured (phases.1.optimizer.lr)" in problem
    assert "python -m benchmarks.rows resnet20-cifar10-fast --seeds 0" in problem


def test_rows_say_what_they_represent_and_what_the_networks_see(tmp_path):
    page = reproduction.page(tmp_path, tmp_path)
    assert row(page, "table4/resnet56-280-noise-fast")[:4] == ["ResNet56", "cross-filter", "280", "noise"]
    assert row(page, "table4/resnet20-180-no-inputs-fast")[:4] == ["ResNet20", "cross-filter", "180", "none"]
    assert row(page, "table1/resnet20-in-filter-140-fast")[:4] == ["ResNet20", "in-filter", "140", "images"]
    assert row(page, "table10/resnet56-1e-05-240-fast")[:3] == ["ResNet56, smoothness 1e-05", "none", "240"]


def test_the_packaged_numbers_are_those_of_the_page():
    page, packaged = reproduction.PAGE.read_text(encoding="utf-8"), measured()
    assert packaged
    for preset in packaged.keys() & {preset for preset in presets() if preset.startswith(("table1/", "table7/"))}:
        known, cells = packaged[preset], row(page, preset)
        assert cells[6] == f"**{known.top1}** of {known.original:.2f}"
        assert cells[8:11] == [str(known.seeds), f"{known.minutes:.0f} on {known.on}", f"{known.bytes:,}"]


def test_figures_appear_where_they_were_drawn(folder):
    assert "![" not in reproduction.page(folder, folder)
    (folder / "figure6.svg").write_text("<svg/>")
    (folder / "figure6.md").write_text("some table\n")
    page = reproduction.page(folder, folder)
    assert page.count("![") == 1
    assert "![Figure 6: original and reconstructed kernels](assets/figure6.svg)\n\nsome table" in page


def test_every_row_of_a_table_is_on_the_page_and_every_row_on_the_page_is_a_preset():
    tables = yaml.safe_load(reproduction.PAPER.read_text(encoding="utf-8"))
    named = [f"{table['family']}/{name}" for table in tables for name in table["rows"]]
    shipped = [name for name in presets() if "/" in name and not name.endswith("-fast")]
    assert sorted(named) == sorted(shipped)
    assert all(f"{name}-fast" in presets() for name in named)


def test_the_size_of_orderings_is_the_papers_formula_rounded_up():
    layers = [LayerMapping("a", (16, 3, 3, 3), 0), LayerMapping("b", (24, 16, 3, 3), 1)]
    cross = 16 * 3 * math.ceil(math.log2(48)) + 24 * 16 * math.ceil(math.log2(384))
    inside = 16 * 3 * 2 + 16 * 4 + 24 * 16 * 4 + 24 * 5
    assert reproduction.ordering_bytes(layers, cross=True) == math.ceil(cross / 8)
    assert reproduction.ordering_bytes(layers, cross=False) == math.ceil(inside / 8)


def test_the_page_in_the_documentation_is_up_to_date(tmp_path, monkeypatch, capsys):
    assert reproduction.main(["--check"]) == 0
    monkeypatch.setattr(reproduction, "PAGE", tmp_path / "old.md")
    assert reproduction.main(["--check"]) == 1
    assert "old.md is not up to date: python -m benchmarks.reproduction" in capsys.readouterr().err
