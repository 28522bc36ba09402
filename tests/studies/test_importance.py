from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from nern.cli.main import run
from nern.errors import ArtifactError, ConfigError
from nern.kernels.coordinates import LayerMapping
from nern.networks.mappings import LineMapping, TileMapping, VolumeMapping
from nern.studies.importance import importance, mean_activations, relative_errors
from nern.studies.opening import open_representation
from tests.finished_run import finished


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("importance") / "run")


def test_relative_errors_are_those_of_plain_loops():
    source = torch.Generator().manual_seed(2)
    truth, guess = torch.randn(3, 2, 2, 2, generator=source), torch.randn(3, 2, 2, 2, generator=source)
    truth[1] = 0
    truth[2, 0] = 0
    errors = relative_errors({"w": truth}, {"w": guess}, [LayerMapping("w", (3, 2, 2, 2), 0)])["w"]
    total_wrong = total_there = 0.0
    for f in range(3):
        filter_wrong = filter_there = 0.0
        for c in range(2):
            wrong = sum((float(guess[f, c, y, x]) - float(truth[f, c, y, x])) ** 2 for y in range(2) for x in range(2))
            there = sum(float(truth[f, c, y, x]) ** 2 for y in range(2) for x in range(2))
            if there == 0:
                assert math.isnan(errors.kernels[f, c])
            else:
                assert float(errors.kernels[f, c]) == pytest.approx(math.sqrt(wrong / there), rel=1e-12)
            filter_wrong, filter_there = filter_wrong + wrong, filter_there + there
        if filter_there == 0:
            assert math.isnan(errors.filters[f])
        else:
            assert float(errors.filters[f]) == pytest.approx(math.sqrt(filter_wrong / filter_there), rel=1e-12)
        total_wrong, total_there = total_wrong + filter_wrong, total_there + filter_there
    assert errors.layer == pytest.approx(math.sqrt(total_wrong / total_there), rel=1e-12)


def test_activations_are_averaged_over_images_and_their_number_is_kept():
    class Batches:
        def batches(self, split, batch, device):
            assert split == "test"
            for start in range(0, 10, 4):
                yield images[start : start + 4], None

    source = torch.Generator().manual_seed(4)
    images = torch.randn(10, 1, 3, 4, generator=source)
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU())
    activations = mean_activations(network, LayerMapping("0.weight", (2, 1, 1, 1), 0), Batches(), 7, torch.device("cpu"))
    weight, bias = network[0].weight.detach().double(), network[0].bias.detach().double()
    for f in range(2):
        outputs = images[:7, 0].double() * weight[f, 0, 0, 0] + bias[f]
        assert torch.allclose(activations.maps[f].double(), outputs.mean(0), atol=1e-6)
        assert float(activations.strength[f]) == pytest.approx(float(outputs.abs().mean()), rel=1e-6)
    assert not network[0]._forward_hooks


def test_filters_are_ordered_by_error_and_everything_is_written(digits_run, tmp_path):
    opened = open_representation(digits_run)
    study = importance(opened, "layer2.0.conv1", filters=2, images=50)
    assert study.layer == "layer2.0.conv1.weight"
    errors = study.errors[study.layer].filters.tolist()
    order = sorted(range(len(errors)), key=lambda index: errors[index])
    assert study.lowest == order[:2]
    assert study.highest == order[::-1][:2]
    ranks = [[sorted(values).index(value) for value in values] for values in (errors, study.activations.strength.tolist())]
    n = len(errors)
    difference = sum((a - b) ** 2 for a, b in zip(*ranks, strict=True))
    assert study.correlation == pytest.approx(1 - 6 * difference / (n * (n * n - 1)), abs=1e-9)  # Spearman's formula
    study.save(tmp_path / "o")
    tensors = load_file(str(tmp_path / "o" / "importance.safetensors"))
    assert torch.equal(tensors["lowest"], study.activations.maps[study.lowest])
    assert tensors["kernels.conv1.weight"].shape == (4, 1)
    stored = json.loads((tmp_path / "o" / "importance.json").read_text())
    assert stored["lowest"] == study.lowest
    assert len(stored["errors"]) == len(opened.artifact.representation.grid.layers)


def test_the_verb_and_its_mistakes(digits_run, tmp_path, capsys):
    assert run(["importance", str(digits_run), "--images", "20", "-o", str(tmp_path / "o"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layer"] == "layer3.0.conv2.weight"
    assert run(["importance", str(digits_run), "--layer", "layer2.0.conv3"]) == 2
    assert "layer 'layer2.0.conv3' is not represented, did you mean 'layer2.0.conv" in capsys.readouterr().err
    assert run(["importance", str(digits_run / "model.nern")]) == 2
    assert "name their file with architecture.weights=FILE" in capsys.readouterr().err
    (tmp_path / "taken").write_text("")
    with pytest.raises(ArtifactError, match=r"cannot write .*taken"):
        importance(open_representation(digits_run), images=5).save(tmp_path / "taken")
    with pytest.raises(ConfigError, match=r"layer 'zzz' is not represented \(there are: conv1\.weight"):
        importance(open_representation(digits_run), "zzz")


class OneBatch:
    """Five inputs of a shape, as the test set of a task."""

    def __init__(self, *shape):
        self.inputs = torch.randn(5, *shape, generator=torch.Generator().manual_seed(1))

    def batches(self, split, batch, device):
        yield self.inputs, None


def test_filters_of_linear_layers_lines_and_volumes_have_activations():
    torch.manual_seed(0)
    cpu = torch.device("cpu")
    linear = nn.Sequential(nn.Linear(6, 5))
    data = OneBatch(3, 6)  # three tokens
    activations = mean_activations(linear, TileMapping("0.weight", (5, 6), 0, tile=(2, 3)), data, 5, cpu)
    outputs = linear(data.inputs).double().detach()
    assert activations.maps.shape == (3, 2, 3)  # three rows of tiles, each of two features, over three tokens
    assert torch.allclose(activations.maps[0].double(), outputs.mean(0)[:, :2].T, atol=1e-6)
    assert float(activations.strength[1]) == pytest.approx(float(outputs[..., 2:4].abs().mean()), rel=1e-6)
    line = nn.Sequential(nn.Conv1d(2, 3, 3))
    data = OneBatch(2, 9)
    activations = mean_activations(line, LineMapping("0.weight", (3, 2, 3), 0), data, 5, cpu)
    assert torch.allclose(activations.maps.double()[:, 0], line(data.inputs).double().mean(0), atol=1e-6)
    volume = nn.Sequential(nn.Conv3d(1, 2, 3))
    data = OneBatch(1, 4, 5, 6)
    activations = mean_activations(volume, VolumeMapping("0.weight", (2, 1, 3, 3, 3), 0), data, 5, cpu)
    assert torch.allclose(activations.maps.double(), volume(data.inputs).double().mean(0).reshape(2, 2 * 3, 4), atol=1e-6)


def test_a_table_of_embeddings_has_no_filters_to_look_at():
    table = nn.Sequential(nn.Embedding(10, 4))
    data = OneBatch(3)
    data.inputs = torch.arange(15).reshape(5, 3) % 10
    with pytest.raises(ConfigError, match=r"the outputs of '0\.weight' do not belong to its 5 filters; name another layer with --layer"):
        mean_activations(table, TileMapping("0.weight", (10, 4), 0, tile=(2, 2)), data, 5, torch.device("cpu"))
