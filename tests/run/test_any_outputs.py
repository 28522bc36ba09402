"""Whole runs of networks that are no classifiers."""

from __future__ import annotations

import json

import attrs
import pytest
import torch
from torch import Tensor, nn

import nern
from nern.errors import ConfigError, DataError
from nern.networks.state_dicts import with_weights
from nern.registry.discovery import create_registry
from nern.toolkit.architectures import DiscoveredArchitecture
from nern.toolkit.outputs import Numbers, Parts, tensors_of

PLUGIN = "tests.run.test_any_outputs"


class Two(nn.Module):
    """Gives a number and a map for every image, in a dictionary or a tuple."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, x: Tensor):
        maps = self.second(torch.tanh(self.first(x)))
        sizes = maps.mean((2, 3))
        return {"sizes": sizes, "maps": maps} if self.form == "dict" else (sizes, maps) if self.form == "tuple" else sizes


@attrs.frozen
class TwoHeads(DiscoveredArchitecture):
    """A small network with outputs of any form."""

    form: str = nern.option("one", help="dict, tuple or one")

    def build(self) -> nn.Module:
        return Two(self.form)

    def preprocessing(self) -> nern.Preprocessing:
        return nern.Preprocessing((0.3,), (0.3,), (1, 8, 8))


@attrs.frozen
class Sizes(nern.Task):
    """How many pixels of an image are bright, as a fraction."""

    form: str = nern.option("one", help="dict, tuple or one")

    def open(self, preprocessing, heldout, seed):
        images = torch.randint(256, (80, 1, 8, 8), generator=nern.generator(0, "images"), dtype=torch.uint8)
        bright = (images > 128).float()
        targets = bright.mean((1, 2, 3))
        cut = {"train": (images[:60], targets[:60]), "test": (images[60:], targets[60:])}
        data = nern.ImageData(**cut, preprocessing=preprocessing, classes=None, heldout=heldout, seed=seed)
        whole = data.batches
        keyed = {"dict": lambda t: {"sizes": t}, "tuple": lambda t: (t,), "one": lambda t: t}[self.form]
        data.batches = lambda *given: ((x, keyed(t)) for x, t in whole(*given))
        return data

    def outputs(self):
        keys = {"dict": ("sizes", "maps"), "tuple": (0, 1)}
        return Numbers() if self.form == "one" else Parts({key: Numbers() for key in keys[self.form]})


nern_tasks = nern.hookimpl(lambda: {"sizes": Sizes}, specname="nern_tasks")
nern_architectures = nern.hookimpl(lambda: {"two-heads": TwoHeads}, specname="nern_architectures")


def engine(tmp_path, form="one", **changes):
    torch.manual_seed(0)
    torch.save(Two(form).state_dict(), tmp_path / "weights.pt")
    (tmp_path / "experiment.yaml").write_text("")
    values = {
        "architecture": {"name": "two-heads", "weights": str(tmp_path / "weights.pt"), "form": form},
        "task": {"name": "sizes", "form": form},
        "embedding": {"name": "positional", "frequencies": 3},
        "predictor": {"name": "mlp", "hidden": 8},
        "smoother": "none",
        "sampler": "all",
        "losses": {"reconstruction": {}, "kd": {}},
        "phases": [{"iterations": 6, "batch": 8}],
        "evaluate_every": 2,
        "device": "cpu",
        "precision": "float32",
        "output": str(tmp_path / "run"),
        **changes,
    }
    registry = create_registry([__file__], entry_points=False)
    assert not registry.failures
    from nern.config.structuring import structure

    return nern.Engine(structure(values, registry), registry)


def test_regression_is_measured_by_squares_and_chooses_the_nearest(tmp_path):
    run = engine(tmp_path)
    result = run.fit()
    data, original = run.data, run.original()
    squares = {}
    for name, network in (("original", original), ("rebuilt", run.reconstruct())):
        outputs = torch.cat([network(images).detach() for images, _ in data.batches("test", 7, torch.device("cpu"))]).double()
        targets = torch.cat([targets for _, targets in data.batches("test", 7, torch.device("cpu"))]).double()
        squares[name] = float((outputs[:, 0] - targets).square().mean())
    assert result.original["mse"] == pytest.approx(squares["original"], rel=1e-5)
    assert result.checkpoints["chosen"]["test"]["mse"] == pytest.approx(squares["rebuilt"], rel=1e-5)
    assert result.choice == {"mse_original": "lower"}
    assert (result.original_top1, result.reconstructed_top1) == (None, None)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    measured = {line["iteration"]: line["heldout"]["mse_original"] for line in lines if "heldout" in line}
    assert len(measured) == 3
    assert result.checkpoints["chosen"]["iteration"] == max(i for i, value in measured.items() if value == min(measured.values()))
    kd = [line["losses"]["kd"] for line in lines if "losses" in line]
    assert all(value > 0 for value in kd)


@pytest.mark.parametrize("form", ["dict", "tuple"])
def test_dictionaries_and_tuples_train_are_measured_and_rebuilt(form, tmp_path):
    run = engine(tmp_path, form, phases=[{"iterations": 4, "batch": 8}])
    result = run.fit()
    key = "maps" if form == "dict" else "1"
    assert f"{key}/mse_original" in result.checkpoints["chosen"]["test"]
    assert f"{key}/mse" not in result.checkpoints["chosen"]["test"]  # the targets have no such part
    rebuilt = nern.load(result.artifact, run.registry).reconstruct()
    twin = with_weights(run.original(), dict(rebuilt.state_dict()))
    images = torch.randn(3, 1, 8, 8)
    for a, b in zip(tensors_of(rebuilt(images)), tensors_of(twin(images)), strict=True):
        assert torch.equal(a, b)


def test_targets_without_parts_are_refused():
    with pytest.raises(DataError, match=r"the task's targets are a tensor of shape \[3\] where outputs have parts"):
        Parts({"sizes": Numbers()}).check_targets({"sizes": torch.zeros(3)}, torch.zeros(3))


def test_metrics_and_the_metric_to_choose_by_can_be_named(tmp_path):
    run = engine(tmp_path, metrics={"mse": {}}, choose_by="mse", phases=[{"iterations": 3, "batch": 8}], heldout=0.2)
    result = run.fit()
    assert result.choice == {"mse": "lower"}
    assert set(result.checkpoints["chosen"]["test"]) == {"mse"}
    with pytest.raises(ConfigError, match=r"choose_by: there is no metric 'mes', did you mean 'mse'\?"):
        engine(tmp_path, choose_by="mes", output=str(tmp_path / "other")).fit()
    assert not (tmp_path / "other").exists()


def test_options_about_logits_are_refused_for_numbers(tmp_path):
    with pytest.raises(ConfigError, match=r"losses\.kd\.temperature: must be 1: it is about logits, and the task's outputs are Numbers"):
        engine(tmp_path, losses={"reconstruction": {}, "kd": {"temperature": 2.0}}).fit()
