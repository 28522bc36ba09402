"""The number format entropy: integers of trained steps, their bits, and the file that holds them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import nern
from nern import ConfigError, Engine
from nern.networks.batch_norm import absorb_batch_norms, absorbable
from nern.networks.pair import NetworkPair
from nern.representation.entropy import code_parameters, coded_parameters, refit_distributions, stored_bits
from nern.representation.laplace import GRID, LARGEST
from nern.run.results import Result
from nern.training.coding import Curvature, start_values
from tests.coded_run import PHASE, engine
from tests.helpers import network


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Engine, Result]:
    run = engine(tmp_path_factory.mktemp("coded"), bytes=4200)
    return run, run.fit()


def test_values_are_integers_times_a_product_of_steps() -> None:
    layer = nn.Linear(5, 3)
    factors = [0.3 * torch.randn(3), 0.2 * torch.randn(5) - 3]
    latent = 4 * torch.randn(3, 5)
    code_parameters(layer, {"weight": (latent, factors)})
    step = torch.exp(0.03 * (factors[0].double() / 0.03).round())[:, None] * torch.exp(0.03 * (factors[1].double() / 0.03).round())
    torch.testing.assert_close(layer.weight.double(), latent.double().round() * step, rtol=1e-5, atol=1e-7)
    # a gradient passes the rounding as if it were not there
    layer.weight.square().sum().backward()
    (parameter,) = [part for part in coded_parameters(layer) if part.name == "weight"]
    torch.testing.assert_close(parameter.latent.grad, (2 * layer.weight * step.float()).detach(), rtol=1e-4, atol=1e-6)


def test_bits_count_the_integers_and_have_gradients_for_everything() -> None:
    layer = nn.Linear(40, 30)
    code_parameters(
        layer, {"weight": (3 * torch.randn(30, 40), [torch.zeros(30), torch.zeros(40)]), "bias": (torch.randn(30), [torch.zeros(1)])}
    )
    counted = stored_bits(layer, 1000, 0, 0)
    expected = 0.0
    for part in coded_parameters(layer):
        integers, _, levels = part.code.to_integers(part.latent)
        decay = 2 * torch.asinh(0.5 / torch.exp(GRID * part.code.entry_levels(levels).double())).reshape(-1)
        chance = torch.where(integers == 0, 1 - torch.exp(-decay / 2), torch.exp(-decay * integers.abs()) * torch.sinh(decay / 2))
        expected -= float(chance.log2().sum())
    assert float(counted.exact) == pytest.approx(expected, rel=1e-4)
    assert float(counted.total.detach()) == pytest.approx(expected, rel=0.05)  # noise in place of rounding
    counted.total.backward()
    for name, parameter in layer.named_parameters():
        assert ("steps" in name) == (parameter.grad is None)  # a step alone changes no integer
        assert parameter.grad is None or (bool(parameter.grad.isfinite().all()) and bool(parameter.grad.any()))


def test_a_distribution_is_refitted_without_changing_a_value() -> None:
    layer = nn.Linear(60, 50)
    code_parameters(layer, {"weight": (2 * torch.randn(50, 60), [torch.zeros(50), torch.zeros(60)])})
    with torch.no_grad():
        for part in coded_parameters(layer):
            for level in part.code.levels:
                level += 0.5 * torch.randn_like(level)
    before, values = stored_bits(layer, 1, 0, 0).exact, layer.weight.detach().clone()
    refit_distributions(layer)
    assert float(stored_bits(layer, 1, 0, 0).exact) < 0.98 * float(before)
    assert torch.equal(values, layer.weight)


def test_no_integer_is_larger_than_the_coder_takes() -> None:
    values = {"w": torch.randn(8, 5), "fine": torch.randn(6, 400)}
    values["w"][3] *= 1e4  # a filter of large weights that matter as much as the others
    start = start_values(values, {name: Curvature(torch.ones_like(value), None) for name, value in values.items()}, 8 * 8 * 5 + 400 * 6 * 8)
    latent, (rows, columns) = start["w"]
    assert float(latent.abs().max()) <= LARGEST
    torch.testing.assert_close(latent.round() * torch.exp(rows[:, None] + columns), values["w"], rtol=0.01, atol=0.01 * 1e4)
    assert float((rows[3] - rows[0]).exp()) > 2  # its step is larger instead


def test_absorbing_batch_norms_changes_nothing_that_the_network_computes() -> None:
    original = network().double()
    absorbed = copy.deepcopy(original)
    pairs = absorbable(absorbed, [name for name in original.state_dict() if "conv" in name])
    assert len(pairs) == 7
    absorb_batch_norms(absorbed, pairs)
    images = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(absorbed(images), original(images), rtol=1e-9, atol=1e-9)
    assert absorbed.bn1.running_mean.eq(0).all()
    assert absorbed.bn1.weight.eq(1).all()


def test_trained_biases_reach_the_network_that_runs() -> None:
    original, images = network(), torch.randn(3, 1, 8, 8)
    names = ["bn1.bias", "layer1.0.bn1.weight", "layer1.0.bn1.bias", "linear.weight"]
    changed = {name: value + 0.3 for name, value in original.state_dict().items() if name in names}
    pair = NetworkPair(original, ["bn1"], device=torch.device("cpu"), trained=names)
    logits = pair.reconstructed(images, changed).logits
    assert not torch.allclose(logits, pair.original(images).logits)
    original.load_state_dict({**original.state_dict(), **changed})
    torch.testing.assert_close(logits, original(images), rtol=1e-4, atol=1e-4)


def test_a_run_comes_to_the_size_asked_for_and_the_file_gives_what_was_measured(finished: tuple[Engine, Result], tmp_path: Path) -> None:
    run, result = finished
    file = Path(result.artifact)
    assert file.stat().st_size == result.bytes.total == pytest.approx(4200, rel=0.1)  # a few steps, no more
    parts = result.bytes
    assert parts.predictor + parts.embedding + parts.ordering + parts.zeros + parts.copied + parts.header == parts.total
    assert parts.predictor == 0
    loaded = nern.load(file)
    expected, rebuilt = run.reconstruct().state_dict(), loaded.reconstruct().state_dict()
    assert all(torch.equal(expected[name], rebuilt[name]) for name in expected)
    assert list(rebuilt) == list(network().state_dict())
    assert Engine.from_run(result.run_dir).evaluate().reconstructed_top1 == result.reconstructed_top1
    loaded.save(tmp_path / "again.nern")
    assert (tmp_path / "again.nern").read_bytes() == file.read_bytes()
    # what was trained along has moved
    assert not torch.equal(rebuilt["linear.bias"], network().state_dict()["linear.bias"])


def test_the_stream_in_the_file_is_as_long_as_the_model_says(finished: tuple[Engine, Result]) -> None:
    representation = finished[0].representation
    bits = float(stored_bits(representation.embedding, 1, 0, 0).exact)
    factors = sum(part.numel() for parameter in coded_parameters(representation.embedding) for part in parameter.code.parameters())
    assert bits <= 8 * finished[1].bytes.embedding <= 1.01 * bits + 12 * factors


def test_a_resumed_run_ends_as_an_uninterrupted_one(finished: tuple[Engine, Result], tmp_path: Path) -> None:
    from nern.run.checkpoint import Checkpoint
    from nern.run.loop import TrainingLoop

    run = engine(tmp_path, bytes=4200)
    save, loop = Checkpoint.save, TrainingLoop._save

    def stop(self: TrainingLoop, *arguments: Any) -> None:
        loop(self, *arguments)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingLoop, "_save", stop)
        with pytest.raises(KeyboardInterrupt):
            run.fit()
    assert Checkpoint.save is save
    Engine.from_yaml(tmp_path / "run.yaml").fit(resume=True)
    expected, resumed = finished[0].reconstruct().state_dict(), Engine.from_run(tmp_path / "run").reconstruct().state_dict()
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)


def test_a_perceptron_is_coded_once_its_first_phase_is_over(tmp_path: Path) -> None:
    first = {
        "name": "reconstruction", "iterations": 5, "losses": {"reconstruction": {"form": "mse"}}, "sampler": {"name": "all"},
        "optimizer": {"name": "muon"},
    }  # fmt: skip
    run = engine(
        tmp_path, phases=[first, PHASE], embedding={"name": "learned", "features": 4}, predictor={"name": "mlp", "hidden": 8}, train=["bn"]
    )
    result = run.fit()
    state, rebuilt = run.reconstruct().state_dict(), nern.load(result.artifact).reconstruct().state_dict()
    assert all(torch.equal(state[name], rebuilt[name]) for name in state)
    assert result.bytes.predictor > 0
    assert result.bytes.embedding > 0


@pytest.mark.parametrize("form", ["float16", "int8"])
def test_copies_take_fewer_bytes_and_are_measured_as_stored(tmp_path: Path, form: str) -> None:
    changes = {
        "storage": "float32",
        "embedding": {"name": "positional"},
        "predictor": {"name": "mlp", "hidden": 4},
        "fold_batch_norms": False,
    }
    phase = {**PHASE, "losses": {"kd": {}}}
    exact = engine(tmp_path, "exact", phases=[phase], train=["classifier"], **changes)
    rounded = engine(tmp_path, form, phases=[phase], train=["classifier"], copied=form, **changes)
    large, small = exact.fit(), rounded.fit()
    entries = {name: value for name, value in network().state_dict().items() if "conv" not in name}
    numbers = sum(value.numel() for value in entries.values() if value.is_floating_point())
    tensors = sum(value.is_floating_point() for value in entries.values())
    assert large.bytes.copied - small.bytes.copied == (2 * numbers if form == "float16" else 3 * numbers - 4 * tensors)
    loaded = nern.load(small.artifact).reconstruct().state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in rounded.reconstruct().state_dict().items())
    for name, value in entries.items():
        if name.startswith("linear"):  # trained along
            assert not torch.equal(exact.reconstruct().state_dict()[name], value)
        else:
            torch.testing.assert_close(loaded[name], value, rtol=0.01, atol=float(value.abs().max()) / 200 if value.numel() > 1 else 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"storage": "int8"}, "belong together"),
        ({"phases": [{**PHASE, "losses": {"kd": {}}}]}, "belong together"),
        ({"bytes": 900}, "too small"),
        ({"train": ["bn", "head.*"]}, r"'head.\*' matches none"),
        ({"predictor": {"name": "codes"}, "embedding": {"name": "learned", "features": 1}}, "needs the embedding 'codes'"),
    ],
)
def test_settings_that_do_not_go_with_entropy_coding_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        engine(tmp_path, **changes).fit()


@pytest.mark.parametrize("option", [{"bytes": 1000}, {"curvature": "layers"}])
def test_options_of_entropy_coding_need_it(option: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(option))}: .* storage: entropy only"):
        Engine.from_yaml("digits", option)
