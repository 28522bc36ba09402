from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from PIL import Image

from nern.cli.main import run
from nern.errors import ArtifactError, ConfigError, DataError
from nern.registry.discovery import create_registry
from nern.studies import figures as plots
from nern.studies.drawing import save
from nern.studies.embedding_similarity import embedding_similarity
from nern.studies.opening import open_representation
from tests.finished_run import finished

pytest.importorskip("matplotlib", reason='figures need matplotlib: pip install "nern[plot]"')


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("plots") / "run")


def setting(factor, hidden, original, reconstructed):
    mean = lambda value: {"mean": value, "interval": 0.5, "runs": 2}  # noqa: E731
    figures = {"original_top1": mean(original), "reconstructed_top1": mean(reconstructed)}
    return {"values": {"pretrain.smoothness": factor, "predictor.hidden": hidden}, "figures": figures}


def lines(axes):
    return {line.get_label(): [tuple(map(float, point)) for point in line.get_xydata()] for line in axes.get_lines()}


def test_figure_3_has_a_line_for_originals_and_reconstructions_of_each_size():
    settings = [setting(5e-6, 240, 92.0, 90.9), setting(1e-6, 240, 93.3, 90.1), setting(1e-6, 280, 93.3, 91.7)]
    (axes,) = plots.smoothness({"axes": ["pretrain.smoothness", "predictor.hidden"], "settings": settings}).axes
    containers = {container.get_label(): container[0].get_xydata().tolist() for container in axes.containers}
    assert containers["original hidden 240"] == [[1e-6, 93.3], [5e-6, 92.0]]
    assert containers["reconstructed hidden 240"] == [[1e-6, 90.1], [5e-6, 90.9]]
    assert containers["reconstructed hidden 280"] == [[1e-6, 91.7]]
    assert axes.get_xscale() == "log"
    settings += [setting(0.0, 240, 93.4, 91.0), setting(5e-5, 240, 90.4, 89.8)]
    (axes,) = plots.smoothness({"axes": ["pretrain.smoothness", "predictor.hidden"], "settings": settings}).axes
    axes.figure.draw_without_rendering()
    to_axes = axes.transData - axes.transAxes
    places = [to_axes.transform((factor, 91.0))[0] for factor in (0.0, 1e-6, 5e-6, 5e-5)]
    assert places[0] > 0 and places[-1] < 1  # a logarithm could not show zero
    assert min(b - a for a, b in pairwise(places)) > 0.1  # and a linear axis would not tell small factors apart
    with pytest.raises(DataError, match=r"this sweep did not vary pretrain\.smoothness"):
        plots.smoothness({"axes": ["seed"], "settings": []})


def test_figure_4_shows_held_out_accuracies(tmp_path):
    records = [{"iteration": 5, "losses": {}}, {"iteration": 5, "heldout": {"top1": 50.0}}, {"iteration": 9, "heldout": {"top1": 61.5}}]
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "metrics.jsonl").write_text("\n".join(map(json.dumps, records)))
    (axes,) = plots.training({"with KD": tmp_path / "a"}).axes
    assert lines(axes) == {"with KD": [(5.0, 50.0), (9.0, 61.5)]}
    with pytest.raises(DataError, match="holds no run"):
        plots.training({"x": tmp_path})
    (tmp_path / "a" / "metrics.jsonl").write_text(json.dumps(records[0]))
    with pytest.raises(DataError, match="was never measured on labelled held-out images"):
        plots.training({"x": tmp_path / "a"})


def test_figure_5_left_shows_accuracy_against_ratio_and_bytes():
    points = [{"ratio": r, "score": {"top1": t}, "bytes": {"total": b}} for r, t, b in ((0.0, 91.0, 500_000), (0.5, 80.0, 260_000))]
    tuned = {"points": [{"ratio": 0.5, "score": {"top1": 88.0}, "bytes": {"total": 250_000}}], "original": {"top1": 91.7}}
    left, right = plots.pruning({"pruned": {"points": points, "original": {"top1": 91.7}}, "tuned": tuned}).axes
    assert lines(left)["pruned"] == [(0.0, 91.0), (50.0, 80.0)]
    assert lines(left)["tuned"] == [(50.0, 88.0)]
    assert lines(right)["tuned"] == [(250.0, 88.0)]
    assert [y for _, y in lines(left)["original"]] == [91.7, 91.7]
    assert (500.0, 91.0) in next(iter(lines(right).values()))
    points[0]["score"]["top1"] = None
    with pytest.raises(DataError, match="the curve holds no accuracies"):
        plots.pruning({"pruned": {"points": points, "original": None}})
    with pytest.raises(DataError, match=r"different original networks: their top-1 accuracies are \[90.0, 91.7\]"):
        plots.pruning({"one": tuned, "other": {"points": [], "original": {"top1": 90.0}}})


def test_accuracy_against_bytes_has_a_line_for_each_family():
    rows = [("original", 300, 98.0), ("integers", 40, 96.0), ("representation", 60, 97.0), ("integers", 20, 91.0), ("palette", 30, 50.0)]
    table = {"rows": [{"family": family, "name": "x", "bytes": 1000 * size, "top1": top1} for family, size, top1 in rows]}
    (axes,) = plots.comparison(table).axes
    assert lines(axes)["integers"] == [(20.0, 91.0), (40.0, 96.0)]
    assert lines(axes)["representation"] == [(60.0, 97.0)]
    assert [y for _, y in lines(axes)["original, 300 KB"]] == [98.0, 98.0]
    assert axes.get_ylim() == (90.5, 98.5)  # a network that fell apart does not press the others together
    assert axes.get_xscale() == "log"


def test_figure_6_shows_the_kernels_of_one_channel(digits_run):
    opened = open_representation(digits_run)
    figure = plots.kernels(opened, "layer2.0.conv1", channel=1, side=8)
    weights = dict(opened.original.named_parameters())["layer2.0.conv1.weight"]  # [8, 4, 3, 3]: a 3 × 3 square holds 8
    for axes, kernels in zip(
        figure.axes[:2], (weights, opened.artifact.representation.reconstruct()["layer2.0.conv1.weight"]), strict=True
    ):
        picture = torch.as_tensor(axes.get_images()[0].get_array().filled(float("nan")))
        assert picture.shape == (11, 11)
        for f in range(8):
            row, column = divmod(f, 3)
            assert torch.equal(picture[4 * row : 4 * row + 3, 4 * column : 4 * column + 3].float(), kernels[f, 1].detach())
    with pytest.raises(ConfigError, match=r"channel 4 is outside 0 … 3 of layer2\.0\.conv1\.weight"):
        plots.kernels(opened, "layer2.0.conv1", channel=4)
    with pytest.raises(ConfigError, match="layer 'x' is not represented"):
        plots.kernels(opened, "x")
    with pytest.raises(ConfigError, match=r"architecture\.weights=FILE"):
        plots.kernels(open_representation(digits_run / "model.nern"))


def test_similarity_is_that_of_written_out_embeddings():
    import math

    from nern.builtin.embeddings.positional import Positional

    base, count, at = 0.8, 12, 5

    def embed(c):
        angles = [base**i * math.pi * v for v in (0, 0, c) for i in range(7)]
        return [f(angle) for angle in angles for f in (math.sin, math.cos)]

    def cosine(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))

    cosines = [cosine(embed(c), embed(at)) for c in range(count)]
    low, high = min(cosines), max(cosines)
    similarity = embedding_similarity(Positional(base=base, frequencies=7), count, at)
    assert similarity.tolist() == pytest.approx([(value - low) / (high - low) for value in cosines], abs=1e-5)
    assert float(similarity[at]) == pytest.approx(1.0)
    with pytest.raises(ConfigError, match="channel 12 is outside 0 … 11"):
        embedding_similarity(Positional(), count, 12)


def test_any_embedding_can_be_compared():
    embedding = create_registry(entry_points=False).find("embedding", "fourier").cls()
    (axes,) = plots.embeddings({"fourier": embedding}, channels=16, at=3).axes
    assert [y for _, y in lines(axes)["fourier"]][3] == 1.0


def test_every_figure_has_a_command_that_writes_png_and_svg(digits_run, tmp_path, capsys):
    (tmp_path / "sweep.json").write_text(json.dumps({"axes": ["pretrain.smoothness"], "settings": [setting(1e-6, 240, 93.0, 91.0)]}))
    original, mine = {"family": "original", "name": "x", "bytes": 300_000, "top1": 98.0}, {"family": "representation", "name": "y"}
    (tmp_path / "compare.json").write_text(json.dumps({"rows": [original, {**mine, "bytes": 60_000, "top1": 97.5}]}))
    assert run(["prune", str(digits_run), "--ratios", "0,0.5", "-o", str(tmp_path / "pruned")]) == 0
    assert run(["importance", str(digits_run), "--filters", "3", "--images", "10", "-o", str(tmp_path / "importance")]) == 0
    for words in (
        ["smoothness", str(tmp_path)],
        ["training", f"mine={digits_run}"],
        ["pruning", str(tmp_path / "pruned")],
        ["importance", str(tmp_path / "importance")],
        ["kernels", str(digits_run), "--side", "2"],
        ["embeddings", "--base", "0.76"],
        ["bytes", str(tmp_path / "compare.json")],
        ["losses", str(digits_run)],
        ["errors", str(digits_run)],
    ):
        assert run(["plot", *words, "-o", str(tmp_path / words[0])]) == 0
        with Image.open(tmp_path / f"{words[0]}.png") as image:
            assert image.width > 400
        svg = (tmp_path / f"{words[0]}.svg").read_text()
        width = float(re.search(r'viewBox="0 0 ([\d.]+) ', svg)[1])
        styles = [style for style in re.findall(r'style="([^"]*)"', svg) if "font" in style]
        sizes = [float(re.search(r"([\d.]+)px", style)[1]) for style in styles]
        assert min(sizes) * 700 / width >= 9, words  # can be read at 700 pixels
        assert all("fill: currentColor" in style for style in styles), words  # also on dark pages
    first = (tmp_path / "embeddings.svg").read_bytes(), (tmp_path / "embeddings.png").read_bytes()
    for ending in ("svg", "png", "pdf"):  # the folder is made
        assert run(["plot", "embeddings", "--base", "0.76", "-o", str(tmp_path / "new" / f"again.{ending}")]) == 0
    assert first == ((tmp_path / "new" / "again.svg").read_bytes(), (tmp_path / "new" / "again.png").read_bytes())
    assert (tmp_path / "new" / "again.pdf").read_bytes().startswith(b"%PDF")


def test_files_that_cannot_be_plotted_are_named(tmp_path, capsys):
    assert run(["plot", "pruning", str(tmp_path), "-o", "x"]) == 2
    assert re.search(r"cannot read .*pruning\.json: there is no such file; name the folder of a nern prune", capsys.readouterr().err)
    (tmp_path / "pruning.json").write_text("{")
    with pytest.raises(DataError, match="is not complete JSON"):
        plots.read(tmp_path, "pruning.json")
    (tmp_path / "pruning.json").write_text('{"rows": []}')
    for verb, key in (("pruning", "points"), ("bytes", "rows"), ("smoothness", "settings")):
        assert run(["plot", verb, str(tmp_path / "pruning.json"), "-o", "x"]) == 2
        assert f"it has no '{key}'; name the folder of a nern " in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match=r"cannot write .*name another place with -o"):
        save(plots.pruning({"x": {"points": [], "original": None}}), tmp_path / "file" / "x.png")
    with pytest.raises(ConfigError, match="figures are written as png, svg, pdf, not as jpg"):
        save(plots.pruning({"x": {"points": [], "original": None}}), tmp_path / "x.jpg")
    (tmp_path / "importance.json").write_text("{}")
    with pytest.raises(DataError, match=r"holds no complete importance\.safetensors"):
        plots.importance(tmp_path)


def test_matplotlib_is_imported_only_to_draw_and_its_absence_is_explained():
    code = (
        "import sys; import nern.studies.figures, nern.cli.main; assert 'matplotlib' not in sys.modules; sys.modules['matplotlib'] = None; "
    )
    code += "from nern.cli.main import run; sys.exit(run(['plot', 'embeddings', '-o', 'x']))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert process.returncode == 2
    assert 'pip install "nern[plot]"' in process.stderr
