from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
import torch

import nern
from nern.cli.main import run
from nern.errors import ArtifactError, ConfigError
from nern.studies.compensation import DAMPING, pruned_matrix
from nern.studies.opening import evaluate_file, open_representation
from nern.studies.pruning import magnitude_masks, prune, pruned
from tests.finished_run import finished


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("prune") / "run")


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.37, 0.5, 0.99])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_the_smallest_entries_go_first(ratio, scope):
    source = torch.Generator().manual_seed(1)
    weights = {"a": torch.randn(7, 11, generator=source), "b": 3 * torch.randn(5, 2, generator=source), "c": torch.zeros(2, 2)}
    masks = magnitude_masks(weights, ratio, scope)
    groups = [weights] if scope == "global" else [{name: value} for name, value in weights.items()]
    for group in groups:
        entries = [(abs(float(value)), name, at) for name in group for at, value in enumerate(weights[name].reshape(-1))]
        gone = sorted(entries, key=lambda entry: entry[0])[: math.floor(ratio * len(entries) + 1e-9)]
        expected = {name: [True] * weights[name].numel() for name in group}
        for _, name, at in gone:
            expected[name][at] = False
        assert {name: masks[name].reshape(-1).tolist() for name in group} == expected


def test_a_pruned_file_is_real_and_small(digits_run, tmp_path):
    opened = open_representation(digits_run)
    before = dict(opened.artifact.representation.predictor.named_parameters())
    curve = prune(opened, tmp_path / "pruned", [0, 0.25, 0.75])
    matrices = sum(value.numel() for value in before.values() if value.dim() == 2)
    others = sum(value.numel() for value in before.values()) - matrices
    for point in curve.points:
        file = tmp_path / "pruned" / point.file
        assert point.bytes.total == file.stat().st_size
        assert point.zeros == math.floor(point.ratio * matrices)
        if point.ratio:
            assert point.bytes.predictor == 4 * (others + matrices - point.zeros) + math.ceil(matrices / 8)
        loaded = nern.load(file)
        values = dict(loaded.representation.predictor.named_parameters())
        matching = sum(int((values[name] == 0).sum()) for name in values if values[name].dim() == 2)
        assert matching == point.zeros
        kept = [(values[name][values[name] != 0], before[name][values[name] != 0]) for name in values]
        assert all(torch.equal(a, b) for a, b in kept)
        assert evaluate_file(file).reconstructed_top1 == point.score.top1  # a file evaluates to what the curve says
    assert curve.points[0].bytes.predictor == 4 * (others + matrices)
    assert curve.points[0].score.top1 == nern.Engine.from_run(digits_run).evaluate().reconstructed_top1
    rows = list(csv.DictReader((tmp_path / "pruned" / "pruning.csv").open()))
    assert [float(row["ratio"]) for row in rows] == [0, 0.25, 0.75]
    assert json.loads((tmp_path / "pruned" / "pruning.json").read_text()) == json.loads(json.dumps(curve.to_dict()))
    assert f"| 25 % | {curve.points[1].score.top1:.2f} |" in (tmp_path / "pruned" / "pruning.md").read_text()


def test_fine_tuning_helps_and_keeps_the_zeros(digits_run):
    def distance(artifact):
        original = opened.original.state_dict()
        rebuilt = artifact.representation.reconstruct()
        return sum(float((rebuilt[name] - original[name]).double().square().sum()) for name in rebuilt)

    opened = open_representation(digits_run, {"phases.1.losses": {"reconstruction": {}}})
    plain, zeros = pruned(opened, 0.3, "global")
    tuned, same = pruned(opened, 0.3, "global", finetune=30)
    assert zeros == same > 0
    for name, value in tuned.representation.predictor.named_parameters():
        if value.dim() == 2:
            assert torch.equal(value == 0, plain.representation.predictor.get_parameter(name) == 0)
    assert distance(tuned) < 0.9 * distance(plain)
    again, _ = pruned(opened, 0.0, "global")
    assert distance(again) == distance(opened.artifact)  # the run's own representation is untouched


@pytest.mark.parametrize("method", ["magnitude", "compensated"])
def test_entries_go_in_stages_while_the_predictor_is_tuned(digits_run, monkeypatch, method):
    opened = open_representation(digits_run, {"phases.1.losses": {"reconstruction": {}}})
    counts = []

    def watched(representation, steps, after):
        def counted():
            after()
            counts.append(sum(int((value == 0).sum()) for value in representation.predictor.parameters() if value.dim() == 2))

        tune(representation, steps, counted)

    tune = opened.engine.tune
    monkeypatch.setattr(opened.engine, "tune", watched)
    artifact, zeros = pruned(opened, 0.4, "layer", finetune=12, method=method, stages=3)
    matrices = [value for value in artifact.representation.predictor.parameters() if value.dim() == 2]
    assert zeros == sum(math.floor(0.4 * value.numel() + 1e-9) for value in matrices) == sum(int((value == 0).sum()) for value in matrices)
    # a third, two thirds and all of the way through the cubic rise of Zhu & Gupta, at steps 0, 2 and 4 of 12
    expected = [sum(math.floor(0.4 * (1 - (1 - stage / 3) ** 3) * value.numel() + 1e-9) for value in matrices) for stage in (1, 2, 3)]
    assert counts == [expected[0], *[expected[1]] * 2, *[expected[2]] * 9]


def test_the_verb(digits_run, tmp_path, capsys):
    assert run(["prune", str(digits_run / "model.nern"), "--ratios", "0.5", "--scope", "layer", "-o", str(tmp_path / "o"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["original"] is None  # a file alone does not know the original network
    assert printed["scope"] == "layer"
    assert [point["file"] for point in printed["points"]] == ["pruned-0.50.nern"]
    assert (tmp_path / "o" / "pruned-0.50.nern").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ratios", "0,1"], "ratios: must be numbers from 0 to below 1, got 0, 1"),
        (["--ratios", "half"], "Invalid value for '--ratios': 'half' is not a list of numbers separated by commas"),
        (["--scope", "filter"], "Invalid value for '--scope': 'filter' is not one of 'global', 'layer'"),
        (["--finetune", "-1"], "Invalid value for '--finetune': -1 is not in the range x>=0"),
        (["ratios=0,0.5"], "'ratios=0,0.5': ratios is an option of this command; write --ratios 0,0.5"),
        (["output=elsewhere"], "'output=elsewhere': output is an option of this command; write --output elsewhere"),
        (["--finetune", "3"], "finetune: needs a run directory, which says how the representation was trained; a file does not"),
        (["--stages", "4"], "--stages 4: the stages share the first half of 0 steps of fine-tuning; set --finetune to 8 or more"),
        (["ratio=0.5"], "ratio: a representation file is measured with task.*, architecture.weights and device only"),
    ],
)
def test_what_cannot_be_pruned(digits_run, capsys, words, message):
    assert run(["prune", str(digits_run / "model.nern"), *words]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_and_a_run_that_is_not_finished(digits_run, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(ArtifactError, match=r"cannot write .*taken .*name another folder with -o"):
        prune(open_representation(digits_run), tmp_path / "taken", [0.5])
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.yaml").write_bytes((digits_run / "config.yaml").read_bytes())
    with pytest.raises(ArtifactError, match=r"half is not finished: it has no model\.nern; continue with nern train"):
        open_representation(tmp_path / "half")
    with pytest.raises(ConfigError, match="holds no run"):
        open_representation(tmp_path)


def test_compensated_pruning_is_that_of_a_plain_solution():
    """Column by column, the columns that follow solve the least squares problem that a zero leaves: in plain numpy."""
    generator = np.random.default_rng(0)
    matrix, inputs = generator.normal(size=(3, 5)), generator.normal(size=(40, 5)) @ generator.normal(size=(5, 5))
    moments = inputs.T @ inputs
    damped = moments + DAMPING * np.diag(moments).mean() * np.eye(5)
    changed, kept = pruned_matrix(torch.from_numpy(matrix), torch.from_numpy(moments), 0.4, 4)
    assert int((~kept).sum()) == math.floor(0.4 * 3 * 4)
    for row in range(3):
        expected = matrix[row].copy()
        for column in range(4):
            if not kept[row, column]:
                rest = slice(column + 1, 5)
                expected[rest] += np.linalg.solve(damped[rest, rest], damped[rest, column] * expected[column])
                expected[column] = 0
        assert np.allclose(changed[row], expected)


def test_compensation_changes_kernels_less_than_magnitudes_do(digits_run):
    opened = open_representation(digits_run)
    kernels = opened.artifact.representation.predict().detach()

    def error(method):
        artifact, zeros = pruned(opened, 0.3, "layer", method=method)
        matrices = [value for value in artifact.representation.predictor.parameters() if value.dim() == 2]
        assert zeros == sum(math.floor(0.3 * value.numel() + 1e-9) for value in matrices)
        assert zeros == sum(int((value == 0).sum()) for value in matrices)
        return float((artifact.representation.predict().detach() - kernels).square().mean())

    assert error("compensated") < 0.5 * error("magnitude")


def test_compensation_knows_no_global_scope(digits_run, tmp_path):
    with pytest.raises(ConfigError, match="--scope global: with --method compensated every matrix loses the same part"):
        prune(open_representation(digits_run), tmp_path, [0.5], scope="global", method="compensated")
