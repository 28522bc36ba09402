"""Samplers that learn, predictors that know their rows or their neighbours, coordinates between kernels, closures."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import nern
from nern import testing
from nern.builtin.embeddings.fourier import Fourier
from nern.builtin.embeddings.learned import Learned
from nern.builtin.embeddings.positional import Positional
from nern.builtin.predictors.mlp import MLP
from nern.config.structuring import structure
from nern.errors import ConfigError
from nern.kernels.coordinates import KernelGrid, LayerMapping
from nern.kernels.orders import Unordered
from nern.registry.discovery import create_registry
from nern.representation.assembling import assemble
from nern.representation.groups import RowGroups
from nern.representation.representation import Representation
from nern.training.processes import Processes
from tests.helpers import EXPERIMENT, network, same

PAGE = Path(__file__).parents[2] / "docs" / "plugin-examples.md"
EXAMPLES = dict(re.findall(r'```python title="([^"]+)"\n(.*?)```', PAGE.read_text(encoding="utf-8"), re.DOTALL))
GRID = KernelGrid((LayerMapping("a", (4, 3, 3, 3), 0), LayerMapping("b", (5, 4, 1, 1), 1), LayerMapping("c", (2, 5, 3, 3), 2)))


@pytest.fixture
def registry(tmp_path: Path) -> Any:
    for name, code in EXAMPLES.items():
        (tmp_path / name).write_text(code, encoding="utf-8")
    with_examples = create_registry([str(tmp_path / name) for name in EXAMPLES], entry_points=False)
    assert not with_examples.failures
    return with_examples


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_is_short(name: str) -> None:
    assert len(EXAMPLES[name].splitlines()) <= 40


def test_the_examples_keep_their_contracts(registry: Any) -> None:
    torch.use_deterministic_algorithms(False)
    testing.check_sampler(registry.find("sampler", "by-error").cls(batch=20))
    testing.check_base(registry.find("base", "layer-means").cls())
    testing.check_predictor(registry.find("predictor", "attention").cls())
    testing.check_optimizer(registry.find("optimizer", "lbfgs").cls())
    testing.check_loss(registry.find("loss", "right-answers").cls())
    testing.check_task(registry.find("task", "waves").cls(), example=torch.zeros(2, 1, 20))
    testing.check_task(registry.find("task", "discs").cls(), nern.Preprocessing((0.3,), (0.3,), (1, 12, 12)))
    for name in ("segmenter", "wave-net"):
        testing.check_architecture(registry.find("architecture", name).cls())


def engine(folder: Path, registry: Any, iterations: int, **changes: Any) -> nern.Engine:
    folder.mkdir(exist_ok=True)
    torch.save(network().state_dict(), folder / "weights.pt")
    architecture = {**EXPERIMENT["architecture"], "weights": str(folder / "weights.pt")}
    phase = {"iterations": iterations, "losses": {"reconstruction": {"form": "mse"}}}
    values = {**EXPERIMENT, "architecture": architecture, "phases": [phase], "precision": "float32", "output": str(folder / "run")}
    values |= {"sampler": {"name": "uniform", "batch": 50}, "optimizer": {"name": "adamw", "lr": 1e-2, "schedule": "constant"}}
    return nern.Engine(structure({**values, **changes}, registry), registry)


def test_a_sampler_that_learns_is_told_the_errors_and_resumes_exactly(tmp_path: Path, registry: Any, monkeypatch) -> None:
    cls = registry.find("sampler", "by-error").cls
    told: list[tuple[int, Tensor, Tensor]] = []
    start = cls.start

    def watched(self, norms, layers, seed):
        draw = start(self, norms, layers, seed)
        observe = draw.observe
        draw.observe = lambda step, rows, errors: (told.append((step, rows.clone(), errors.clone())), observe(step, rows, errors))
        return draw

    monkeypatch.setattr(cls, "start", watched)
    sampler = {"sampler": {"name": "by-error", "batch": 40}}
    whole = engine(tmp_path / "whole", registry, 8, **sampler)
    whole.fit()
    told = [entry for entry in told if entry[1].numel()]
    steps = [step for step, _, _ in told]
    assert steps == list(range(8))
    first = whole._context(whole._prepare())  # the representation before the first step
    _, rows, errors = told[0]
    original, predicted = first.kernels.original(rows), first.kernels.predicted(first.representation.predict(rows), rows)
    squares = (original.values.double() - predicted.values.double()).square().sum(1) / original.count
    torch.testing.assert_close(errors.double(), squares.detach(), rtol=1e-4, atol=1e-8)
    engine(tmp_path / "half", registry, 4, **sampler).fit()
    resumed = engine(tmp_path / "half", registry, 8, **sampler)
    resumed.fit(resume=True)
    assert same(resumed.representation.state_dict(), whole.representation.state_dict())


@pytest.mark.parametrize("wants", ["filters", "layers"])
def test_groups_are_whole_filters_or_layers(wants: Any) -> None:
    groups = RowGroups(GRID, wants, torch.device("cpu"))
    by_group: dict[tuple[int, ...], list[int]] = {}
    for row, (layer, filter_, _) in enumerate(GRID.coordinates().tolist()):
        by_group.setdefault((layer, filter_) if wants == "filters" else (layer,), []).append(row)
    expected = list(by_group.values())
    assert groups.rows(torch.tensor([2, 0])).tolist() == [*expected[2], *expected[0]]
    every = torch.arange(GRID.rows)
    assert groups.of(every).tolist() == [place for place, rows in enumerate(expected) for _ in rows]
    norms = torch.rand(GRID.rows)
    torch.testing.assert_close(groups.norms(norms), torch.stack([norms[rows].norm() for rows in expected]))
    chosen = torch.tensor([1, 2])
    values = norms[groups.rows(chosen)]
    torch.testing.assert_close(groups.means(values, chosen), torch.stack([norms[expected[i]].mean() for i in (1, 2)]))
    for chunk in (1, 7, 1000):
        cuts = groups.cuts(every, chunk)
        assert cuts[0] == 0
        assert cuts[-1] == GRID.rows
        assert set(cuts[1:]) <= {rows[-1] + 1 for rows in expected}


def test_predictions_of_filters_do_not_depend_on_how_they_are_cut(registry: Any) -> None:
    torch.manual_seed(0)
    orders = [Unordered(layer.filters, layer.channels) for layer in GRID.layers]
    representation = assemble(GRID, orders, Positional(frequencies=3), registry.find("predictor", "attention").cls()).eval()
    whole = representation.predict()
    for chunk in (1, 9, 1000):
        torch.testing.assert_close(representation.predict_in_chunks(None, chunk), whole.detach(), rtol=1e-4, atol=1e-6)
        weights = representation.predict_weights(chunk)
        torch.testing.assert_close(weights, GRID.unpadded(whole.detach()), rtol=1e-4, atol=1e-6)
    with pytest.raises(ConfigError, match="kernels that are predicted together need one process, there are 2"):
        Processes(0, 2).check(representation, {})
    with pytest.raises(ConfigError, match="needs to know which kernels it predicts"):
        representation.predict_at(torch.zeros(1, 3))


def test_old_predictors_are_called_as_they_were(tmp_path: Path) -> None:
    seen: list[int] = []

    class Old(nn.Linear):
        def forward(self, embedded):  # and nothing else
            seen.append(len(embedded))
            return super().forward(embedded)

    @attrs.frozen
    class OldPredictor(nern.Predictor):
        """As plugins were written before."""

        def build(self, inputs, outputs):
            return Old(inputs, outputs)

    orders = [Unordered(layer.filters, layer.channels) for layer in GRID.layers]
    assemble(GRID, orders, Positional(frequencies=3), OldPredictor()).predict(torch.arange(5))
    assert seen == [2, 5]


@pytest.mark.parametrize("embedding", [Positional(), Positional(combine="sum"), Positional(coordinates="global"),
                                       Positional(coordinates="per-layer"), Learned(), Fourier()], ids=str)  # fmt: skip
def test_kernels_can_be_predicted_between_the_coordinates_of_the_grid(embedding: Any) -> None:
    torch.manual_seed(0)
    orders = [Unordered(layer.filters, layer.channels) for layer in GRID.layers]
    representation: Representation = assemble(GRID, orders, embedding, MLP(hidden=8)).eval()
    representation.scale(torch.tensor([1.0, 2.0, 4.0]))
    coordinates = GRID.coordinates()
    torch.testing.assert_close(representation.predict_at(coordinates.double()), representation.predict(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(representation.predict_at(coordinates), representation.predict(), rtol=1e-4, atol=1e-5)
    near = representation.predict_at(coordinates[:1].double() + torch.tensor([0.0, 0.0, 1e-5], dtype=torch.float64))
    torch.testing.assert_close(near, representation.predict()[:1], rtol=1e-2, atol=1e-3)  # it is continuous
    between = representation.predict_at(torch.tensor([[0.0, 1.5, 0.0]]))
    assert not torch.equal(between, representation.predict_at(torch.tensor([[0.0, 1.0, 0.0]])))


def test_kernels_may_have_four_coordinates(registry: Any, tmp_path: Path) -> None:
    cls = registry.find("architecture", "twins").cls
    for seed in (0, 1):
        torch.manual_seed(seed)
        torch.save(cls().build()[0].state_dict(), tmp_path / f"{seed}.pt")
    architecture = cls(files=[str(tmp_path / "0.pt"), str(tmp_path / "1.pt")])
    built = architecture.build()
    architecture.load(built)
    assert same(built[1].state_dict(), torch.load(tmp_path / "1.pt"))
    grid = KernelGrid(tuple(architecture.layers(built)))
    assert grid.coordinates().shape == (32, 4)
    assert len(torch.unique(grid.coordinates(), dim=0)) == 32
    orders = [Unordered(layer.filters, layer.channels) for layer in grid.layers]
    for embedding in (Positional(), Positional(coordinates="per-layer"), Learned(), Fourier(scales=[1.0, 0.1, 0.1, 1.0])):
        testing.check_embedding(embedding, grid)
        assert assemble(grid, orders, embedding, MLP(hidden=4)).predict().shape == (32, 9)
    with pytest.raises(ConfigError, match=r"embedding\.scales: must be one number for each of the 4 coordinates"):
        assemble(grid, orders, Fourier(), MLP(hidden=4))


def test_a_closure_evaluates_the_same_objective_again(tmp_path: Path, registry: Any) -> None:
    run = engine(tmp_path / "lbfgs", registry, 6, optimizer={"name": "lbfgs", "evaluations": 4}, sampler="all", log_every=1)
    run.fit()
    import json

    losses = [json.loads(line)["losses"]["total"] for line in run.run.metrics.read_text().splitlines() if "losses" in line]
    assert losses == sorted(losses, reverse=True)  # with a line search no step goes up
    first = run._context(run._prepare())
    original, predicted = first.kernels.original(), first.kernels.predicted(first.representation.predict())
    mean = (original.values.double() - predicted.values.double()).square().sum() / original.count.double().sum()
    assert losses[0] == pytest.approx(float(mean), rel=1e-5)  # what is reported is the loss before the step


def test_a_run_whose_optimiser_takes_a_closure_resumes_as_if_it_had_not_stopped(tmp_path: Path, registry: Any) -> None:
    class Stopper:
        @nern.hookimpl
        def nern_step(self, iteration: int) -> None:
            if iteration == 4:
                os.kill(os.getpid(), signal.SIGINT)

    parts = {"optimizer": {"name": "lbfgs", "evaluations": 4}, "sampler": "all", "log_every": 1}
    engine(tmp_path / "whole", registry, 6, **parts).fit()
    stopper = Stopper()
    registry.manager.register(stopper)
    with pytest.raises(nern.Interrupted):
        engine(tmp_path / "parts", registry, 6, **parts).fit()
    registry.manager.unregister(stopper)
    engine(tmp_path / "parts", registry, 6, **parts).fit(resume=True)
    whole, ended = (load_file(tmp_path / name / "run" / "model.nern") for name in ("whole", "parts"))
    assert all(torch.equal(ended[name], value) for name, value in whole.items())
