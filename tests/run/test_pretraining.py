from __future__ import annotations

import json
import os
import signal

import pytest
import torch

from nern import hookimpl
from nern.cli.main import run
from nern.config.loading import load_experiment
from nern.errors import ArtifactError, ConfigError, DataError, Interrupted
from nern.networks.state_dicts import read_state_dict
from nern.run.pretraining import checkpoint_of, train_original

SMALL = {"architecture.width": 2, "pretrain.epochs": 3, "observers": {}}


def load(**more):
    return load_experiment("digits", {**SMALL, **more})


def test_the_file_holds_the_network_and_the_figures_are_its_own(tmp_path):
    experiment, registry = load()
    trained = train_original(experiment, registry, tmp_path / "o.safetensors")
    network = experiment.architecture.build().eval()
    network.load_state_dict(read_state_dict(tmp_path / "o.safetensors"))
    data = experiment.task.open(experiment.architecture.preprocessing(), experiment.heldout, experiment.seed)
    right = total = 0
    for images, labels in data.batches("test", 97, torch.device("cpu")):
        right, total = right + int((network(images).argmax(1) == labels).sum()), total + len(labels)
    assert trained.score.top1 == pytest.approx(100 * right / total)
    assert trained.score.images == total == 397
    expected = 0.0  # eq. 6 in plain loops
    for parameter in network.parameters():
        if parameter.dim() == 4:
            kernels = parameter.detach().double().flatten(2)
            for f in range(kernels.shape[0] - 1):
                for c in range(kernels.shape[1] - 1):
                    for other in (kernels[f + 1, c], kernels[f, c + 1]):
                        expected += 1 - float(kernels[f, c] @ other / kernels[f, c].norm() / other.norm())
    assert trained.smoothness == pytest.approx(expected, rel=1e-6)
    assert [file.name for file in tmp_path.iterdir()] == ["o.safetensors"]


def test_the_smoothness_factor_makes_smoother_networks(tmp_path):
    smooth = [train_original(*load(**{"pretrain.smoothness": factor}), tmp_path / f"{factor}.pt").smoothness for factor in (0.0, 1e-2)]
    assert smooth[1] < 0.8 * smooth[0]


def test_an_interrupted_training_goes_on_and_ends_with_the_same_weights(tmp_path):
    class Stopper:
        @hookimpl
        def nern_step(self, iteration: int) -> None:
            if iteration == 2:
                os.kill(os.getpid(), signal.SIGINT)

    train_original(*load(), tmp_path / "whole.pt")
    experiment, registry = load()
    registry.manager.register(Stopper())
    with pytest.raises(Interrupted, match="the same command continues"):
        train_original(experiment, registry, tmp_path / "parts.pt")
    assert torch.load(checkpoint_of(tmp_path / "parts.pt", experiment, registry), weights_only=True)["epoch"] == 2
    assert not (tmp_path / "parts.pt").exists()
    train_original(*load(), tmp_path / "parts.pt")
    whole, parts = (read_state_dict(tmp_path / f"{name}.pt") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_damaged_checkpoint_of_the_original_is_one_line(tmp_path):
    class Stopper:
        @hookimpl
        def nern_step(self, iteration: int) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    experiment, registry = load()
    registry.manager.register(Stopper())
    with pytest.raises(Interrupted):
        train_original(experiment, registry, tmp_path / "o.pt")
    checkpoint = checkpoint_of(tmp_path / "o.pt", *load())
    whole = torch.load(checkpoint, weights_only=True)
    entry = next(name for name, value in whole["network"].items() if value.is_floating_point())
    not_finite = {**whole["network"], entry: torch.full_like(whole["network"][entry], torch.nan)}
    for changes in (
        {"network": None}, {"network": {}}, {"network": not_finite}, {"optimizer": {}}, {"optimizer": torch.zeros(2)},
        {"epoch": 10**30}, {"epoch": -1}, {"epoch": torch.zeros(2)}, {"epoch": "1"},
    ):  # fmt: skip
        torch.save({**whole, **changes}, checkpoint)
        with pytest.raises(ArtifactError, match=r"\.checkpoint is damaged or another run's \(.*\); move it away to start the run anew"):
            train_original(*load(), tmp_path / "o.pt")


def test_another_experiment_never_goes_on_from_a_foreign_checkpoint(tmp_path):
    places = {
        checkpoint_of(tmp_path / "o.pt", *load(**more)) for more in ({}, {"seed": 1}, {"pretrain.lr": 0.2}, {"architecture.width": 3})
    }
    assert len(places) == 4
    assert checkpoint_of(tmp_path / "o.pt", *load(**{"predictor.hidden": 7})) in places


def test_the_verb_trains_and_prints_the_accuracy(tmp_path, capsys):
    words = [f"{key}={json.dumps(value)}" for key, value in SMALL.items()]
    assert run(["pretrain", "digits", *words, "pretrain.epochs=1", "-o", str(tmp_path / "o.pth"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["epochs"] == 1
    assert printed["top1"] == printed["score"]["top1"]


def test_mistakes_are_told_before_training(tmp_path):
    (tmp_path / "there.pt").write_text("")
    for name, error, message in (
        ("there.pt", ConfigError, "is there already; name another file with -o, or remove it"),
        ("o.bin", ConfigError, r"must end in \.safetensors, \.pt or \.pth"),
        ("no/o.pt", ArtifactError, "there is no folder"),
    ):
        with pytest.raises(error, match=message):
            train_original(*load(), tmp_path / name)
    with pytest.raises(DataError, match=r"this task has no targets and cannot train an original network; give architecture\.weights"):
        train_original(*load(**{"task.name": "uniform-noise"}), tmp_path / "o.pt")
    assert not list(tmp_path.glob("*.checkpoint"))
