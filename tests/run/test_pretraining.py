from __future__ import annotations

import json
import os
import signal

import pytest
import torch

from nern import Engine, hookimpl
from nern.cli.main import run
from nern.config.loading import load_experiment
from nern.errors import ArtifactError, ConfigError, DataError, Interrupted
from nern.networks.state_dicts import read_state_dict
from nern.run.pretraining import checkpoint_of, train_original

SHORT = {"phases.reconstruction.iterations": 2, "phases.distillation.iterations": 1, "smoother": "none"}
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


def test_training_starts_from_given_weights_of_any_layout(tmp_path):
    given = load(seed=1)[0].architecture.built()
    torch.save({"model": {f"module.{name}": value for name, value in given.state_dict().items()}}, tmp_path / "given.pth")
    still = {"pretrain.weights": str(tmp_path / "given.pth"), "pretrain.lr": 1e-30, "pretrain.epochs": 1}
    train_original(*load(**still), tmp_path / "still.pt")
    Engine(*load(**{**still, **SHORT, "output": str(tmp_path / "run")})).fit()
    for file in ("still.pt", "run/original.safetensors"):
        trained = read_state_dict(tmp_path / file)
        assert all(torch.allclose(trained[name], value, rtol=0, atol=1e-20) for name, value in given.named_parameters()), file
    train_original(*load(), tmp_path / "o.pt")
    further = {"pretrain.weights": str(tmp_path / "o.pt"), "pretrain.lr": 0.01, "pretrain.smoothness": 1e-2, "pretrain.epochs": 1}
    plain, smooth = (
        train_original(*load(**{**further, **more}), tmp_path / f"{len(more)}.pt") for more in ({"pretrain.smoothness": 0.0}, {})
    )
    assert smooth.smoothness < 0.98 * plain.smoothness
    assert min(plain.score.top1, smooth.score.top1) > 50


def test_what_training_starts_from_is_known_by_its_content(tmp_path):
    state = load()[0].architecture.built().state_dict()
    for name, values in (("a.pt", state), ("b.pth", {"model": state}), ("c.pt", {**state, "conv1.weight": state["conv1.weight"] * 2})):
        torch.save(values, tmp_path / name)
    a, b, c = (checkpoint_of(tmp_path / "o.pt", *load(**{"pretrain.weights": str(tmp_path / name)})) for name in ("a.pt", "b.pth", "c.pt"))
    assert a == b != c
    assert checkpoint_of(tmp_path / "o.pt", *load()) not in (a, c)


def test_weights_that_training_would_not_start_from_are_refused(tmp_path):
    weights = str(tmp_path / "there.pt")
    torch.save(load()[0].architecture.built().state_dict(), weights)
    with pytest.raises(
        ConfigError, match=r"does not start from architecture\.weights=.*: give pretrain\.weights=FILE to train on from a file"
    ):
        train_original(*load(**{"architecture.weights": weights}), tmp_path / "o.pt")
    with pytest.raises(ConfigError, match=r"leave one of pretrain\.weights and architecture\.weights out"):
        Engine(*load(**{"architecture.weights": weights, "pretrain.weights": weights, "output": str(tmp_path / "run")})).fit()
    with pytest.raises(DataError, match=r"missing\.pt"):
        train_original(*load(**{"pretrain.weights": str(tmp_path / "missing.pt")}), tmp_path / "o.pt")
    with pytest.raises(DataError, match="belongs to another architecture"):
        train_original(*load(**{"pretrain.weights": weights, "architecture.width": 3}), tmp_path / "o.pt")
    train_original(*load(**{"architecture.weights": str(tmp_path / "o.pt"), "pretrain.epochs": 1}), tmp_path / "o.pt")  # what it will write


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
