"""What is added to predictions: rounded copies against sums written out, and runs that come back with and without one."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import nern
from nern.artifact.layout import seal
from nern.builtin.bases.quantised import QuantisedBase
from nern.builtin.predictors.mlp import MLP
from nern.kernels.coordinates import KernelGrid, LayerMapping
from nern.run.checkpoint import Checkpoint
from nern.testing import check_base
from tests.helpers import write_experiment

GRID = KernelGrid((LayerMapping("a", (4, 3, 3, 3), 0), LayerMapping("b", (2, 4, 1, 1), 1), LayerMapping("c", (3, 2, 5, 1), 2)))
SHORT: dict[str, Any] = {"iterations": 6, "losses": {"reconstruction": {"form": "mse"}}, "sampler": "all"}


def engine(folder: Path, **changes: Any) -> nern.Engine:
    return nern.Engine.from_yaml(write_experiment(folder, observers={"progress": None}, **changes))


def kernels() -> list[Tensor]:
    source = nern.generator(0, "kernels")
    return [(index + 1) * torch.randn(layer.count, *layer.kernel, generator=source) for index, layer in enumerate(GRID.layers)]


@pytest.mark.parametrize("steps", ["filter", "layer"])
@pytest.mark.parametrize("bits", [2, 3, 4, 7, 8])
def test_integers_are_the_nearest_ones_of_a_good_step(bits: int, steps: Any) -> None:
    base = QuantisedBase(bits=bits, steps=steps)
    module = base.build(GRID)
    base.initialise(module, kernels())
    added, most, group = module(torch.arange(GRID.rows)), 2 ** (bits - 1) - 1, 0
    for start, layer, own in zip(GRID.starts[:-1], GRID.layers, kernels(), strict=True):
        rounded = GRID.sample_down(added[start : start + layer.count], layer.kernel)
        assert float(added[start : start + layer.count].abs().sum()) == pytest.approx(float(rounded.abs().sum()))  # zeros around it
        count = layer.filters if steps == "filter" else 1
        error = plain_error = 0.0
        for part, value in zip(own.reshape(count, -1).tolist(), rounded.reshape(count, -1).tolist(), strict=True):
            step = float(module.steps[group])
            group += 1
            for weight, kept in zip(part, value, strict=True):
                assert kept == pytest.approx(max(-most, min(most, round(weight / step))) * step, rel=1e-6)
            plain = max(map(abs, part)) / most  # the step that reaches the largest weight
            plain_error += sum((max(-most, min(most, round(weight / plain))) * plain - weight) ** 2 for weight in part)
            error += sum((a - b) ** 2 for a, b in zip(part, value, strict=True))
        assert error <= 1.1 * plain_error + 1e-12


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_the_file_holds_packed_bits(bits: int) -> None:
    state = QuantisedBase(bits=bits).build(GRID).state_dict()
    weights = 4 * 3 * 9 + 2 * 4 + 3 * 2 * 5
    assert {name: value.numel() * value.element_size() for name, value in state.items()} == {
        "packed": math.ceil(weights * bits / 8), "steps": 2 * (4 + 2 + 3),
    }  # fmt: skip


def test_layers_of_zeros_stay_zeros() -> None:
    base = QuantisedBase(bits=3)
    module = base.build(GRID)
    base.initialise(module, [torch.zeros(layer.count, *layer.kernel) for layer in GRID.layers])
    assert not module(torch.arange(GRID.rows)).any()


def test_a_quantised_base_is_refused_where_small_kernels_are_not_the_middles_of_large_ones() -> None:
    with pytest.raises(nern.ConfigError, match="base quantised: small_kernels must be centre, got max"):
        QuantisedBase().build(attrs.evolve(GRID, small_kernels="max"))
    assert QuantisedBase().build(KernelGrid(GRID.layers[:1], "max")) is not None


# -- runs --------------------------------------------------------------------------------------------------------------


def parts_of(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with safe_open(str(path), "pt") as file:
        return json.loads(file.metadata()["nern"]), load_file(str(path))


def test_the_predictor_adds_what_is_missing_and_the_file_is_enough(tmp_path: Path) -> None:
    run = engine(tmp_path, base={"name": "quantised", "bits": 2}, scale_layers=True, phases=[SHORT])
    original = run.prepared()
    fresh = run.untrained(original).representation
    state, grid = original.state, original.grid
    whole = torch.cat([state[layer.parameter].reshape(-1) for layer in grid.layers])
    coarse = fresh.weights(fresh.added_weights())
    rest = whole - torch.cat([coarse[layer.parameter].reshape(-1) for layer in grid.layers])
    assert 0 < float(rest.square().mean()) < 0.5 * float(whole.square().mean())
    assert fresh.scales is not None  # of what is left
    first = grid.layers[0].parameter
    assert float(fresh.scales[0]) == pytest.approx(float((state[first] - coarse[first]).square().mean().sqrt()), rel=1e-4)

    result = run.fit()
    about, tensors = parts_of(run.run.artifact)
    assert about["version"] == 2 and about["base"] == {"name": "quantised", "bits": 2, "steps": "filter"}
    stored = {name: value.numel() * value.element_size() for name, value in tensors.items() if name.startswith("base.")}
    assert stored.keys() == {"base.packed", "base.steps"} and result.bytes.base == sum(stored.values())
    assert stored["base.packed"] == math.ceil(grid.weights * 2 / 8)
    sizes = result.bytes
    assert sizes.predictor + sizes.base + sizes.ordering + sizes.copied + sizes.header == sizes.total
    (tmp_path / "original.safetensors").unlink()
    read = nern.load(run.run.artifact)
    ours, theirs = run.reconstruct().state_dict(), read.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    rows = torch.tensor([5, 0, 3])
    bare = read.representation
    predicted = bare.predict(rows)
    base, bare.base = bare.base, None
    assert base is not None and torch.equal(predicted, bare.predict(rows) + base(rows))
    bare.base = base
    with pytest.raises(nern.ConfigError, match="the base Quantised adds to kernels of the network: it has none at other coordinates"):
        bare.predict_at(torch.tensor([[0.0, 0.5, 0]]))


def test_a_resumed_run_gives_the_same_file(tmp_path: Path) -> None:
    options = {"base": {"name": "quantised", "bits": 3, "steps": "layer"}, "phases": [SHORT], "checkpoint_every": 2}
    whole, cut = engine(tmp_path / "a", **options), engine(tmp_path / "b", **options)
    whole.fit()

    class Stop:
        @nern.hookimpl
        def nern_checkpoint_saved(self, iteration: int) -> None:
            if iteration == 4:
                raise KeyboardInterrupt

    cut.registry.register(Stop(), "stop")
    with pytest.raises((nern.Interrupted, KeyboardInterrupt)):
        cut.fit()
    assert "base.packed" in Checkpoint.load(cut.run.checkpoint).parameters
    nern.Engine.from_run(tmp_path / "b" / "run").fit(resume=True)
    first, second = load_file(str(whole.run.artifact)), load_file(str(cut.run.artifact))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_file_without_a_base_is_the_one_that_older_versions_read_and_wrote(tmp_path: Path) -> None:
    run = engine(tmp_path, phases=[SHORT])
    assert run.fit().bytes.base == 0
    about, tensors = parts_of(run.run.artifact)
    assert about["version"] == 1 and "base" not in about and not any(name.startswith("base") for name in tensors)
    assert nern.load(run.run.artifact).base is None
    config = run.run.config.read_text(encoding="utf-8")
    assert "base:\n  name: none\n" in config
    run.run.config.write_text(config.replace("base:\n  name: none\n", ""), encoding="utf-8")  # as an older version wrote it
    again = nern.Engine.from_run(tmp_path / "run")
    again.fit(resume=True)
    assert torch.equal(load_file(str(again.run.artifact))["predictor.last.weight"], tensors["predictor.last.weight"])


def test_a_file_whose_base_is_of_another_size_is_refused(tmp_path: Path) -> None:
    run = engine(tmp_path, base={"name": "quantised"}, phases=[SHORT])
    run.fit()
    about, tensors = parts_of(run.run.artifact)
    about.pop("sha256")
    about["base"]["bits"] = 3
    save_file(tensors, str(tmp_path / "wrong.nern"), {"nern": json.dumps({"sha256": seal(about, tensors), **about}, separators=(",", ":"))})
    with pytest.raises(nern.ArtifactError, match="does not fit its own predictor"):
        nern.load(tmp_path / "wrong.nern")


def test_predictors_of_whole_filters_can_have_a_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = MLP.build

    def whole(self: MLP, inputs: int, outputs: int) -> nn.Module:
        module = build(self, inputs, outputs)
        module.wants = "filters"  # type: ignore[assignment]
        return module

    monkeypatch.setattr(MLP, "build", whole)
    run = engine(tmp_path, base={"name": "quantised"}, phases=[{**SHORT, "sampler": {"name": "uniform", "batch": 3}}])
    run.fit()
    ours, theirs = run.reconstruct().state_dict(), nern.load(run.run.artifact).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_entropy_coding_counts_the_bases_bytes(tmp_path: Path) -> None:
    phase = {"iterations": 4, "losses": {"reconstruction": {"form": "mse"}, "rate": {}}, "sampler": "all"}
    run = engine(tmp_path, base={"name": "quantised"}, storage="entropy", phases=[phase], curvature_batches=0)
    result = run.fit()
    assert result.bytes.base == math.ceil(run.representation.grid.weights / 2) + 2 * sum(
        layer.filters for layer in run.representation.grid.layers
    )
    with pytest.raises(nern.ConfigError, match=r"bytes: 3,000 is too small"):
        engine(tmp_path / "small", base={"name": "quantised", "bits": 8}, storage="entropy", bytes=3000, phases=[phase]).fit()


# -- the checks can fail -----------------------------------------------------------------------------------------------


class Wrong(nn.Module):
    def __init__(self, grid: KernelGrid, mistake: str) -> None:
        super().__init__()
        self.grid, self.mistake = grid, mistake
        self.register_buffer("values", torch.zeros(grid.rows, grid.outputs), persistent=mistake != "state")
        if mistake == "stays":
            self.beside = torch.zeros(1)

    def forward(self, rows: Tensor) -> Tensor:
        added: Tensor = self.values[rows]
        if self.mistake == "shape":
            return added[:, :-1]
        if self.mistake == "finite":
            return added / 0
        return added * added.shape[0] if self.mistake == "others" else added


@attrs.frozen
class WrongBase(nern.Base):
    """A base with a mistake."""

    mistake: str = nern.option("none", help="which mistake")

    def build(self, grid: KernelGrid) -> nn.Module:
        return Wrong(grid, self.mistake)

    def initialise(self, module: nn.Module, kernels: list[Tensor]) -> None:
        assert isinstance(module, Wrong)
        whole = torch.cat([module.grid.pad_up(layer) for layer in kernels])
        module.values.copy_(torch.rand_like(whole) if self.mistake == "padding" else whole)  # type: ignore[operator]
        if self.mistake == "changes":
            kernels[0].zero_()
        if self.mistake == "grows":
            module.register_buffer("more", torch.zeros(2))


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("shape", r"forward\(rows\)"),
        ("finite", "finite"),
        ("others", "a row's kernel depends on the other rows"),
        ("state", "has state that is not in its state dict"),
        ("stays", "is neither parameter nor buffer"),
        ("padding", "a smaller kernel's row is not zero around its middle"),
        ("changes", "changes the original kernels"),
        ("grows", "a file is read into what build"),
    ],
)
def test_check_base_finds_every_mistake_of_a_base(mistake: str, message: str) -> None:
    check_base(WrongBase())
    with pytest.raises(AssertionError, match=message):
        check_base(WrongBase(mistake=mistake))


def test_a_wrong_base_is_named_before_the_first_step(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import attrs, torch, nern\n\n\nclass Nan(torch.nn.Module):\n    def forward(self, rows):\n"
        "        return torch.full((len(rows), 9), float('nan'))\n\n\n@attrs.frozen\nclass Mine(nern.Base):\n    '''No numbers.'''\n\n"
        "    def build(self, grid):\n        return Nan()\n\n\n"
        "nern_bases = nern.hookimpl(lambda: {'mine': Mine}, specname='nern_bases')\n"
    )
    run = engine(tmp_path, base="mine", plugins=[str(tmp_path / "own.py")], phases=[SHORT])
    with pytest.raises(nern.ConfigError, match=r"component own:mine \(base\): forward\(rows\) must give finite numbers"):
        run.fit()
