"""The start of entropy coding: curvature, steps and integers, and the rate that is steered to a size."""

from __future__ import annotations

import math
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from nern import Engine, Interrupted
from nern.builtin.embeddings.codes import cosines
from nern.builtin.losses.rate import Rate, SteeredRate
from nern.interfaces import LossContext
from nern.representation.entropy import StoredBits, coded_parameters
from nern.training.coding import DAMPING, Curvature, averaged, probed, start_values, step_shape
from tests.coded_run import PHASE, engine


def test_feedback_rounds_better_than_the_nearest_integers() -> None:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(24, 24, generator=generator)
    matrix = mixing @ mixing.T / 24
    value, diagonal = torch.randn(16, 24, generator=generator), matrix.diagonal().expand(16, 24).clone()
    full = Curvature(diagonal, matrix)

    def start(curvature: Curvature) -> tuple[torch.Tensor, torch.Tensor]:
        latent, (rows, columns) = start_values({"w": value}, {"w": curvature}, 16 * 24 * 1.5)["w"]
        return latent.round(), torch.exp(rows[:, None] + columns)

    errors, sizes = [], []
    for curvature in (full, Curvature(diagonal, None)):
        integers, steps = start(curvature)
        error = (integers * steps - value).double()
        errors.append(float(torch.einsum("fi,ij,fj->", error, matrix.double(), error)))
        sizes.append(float(integers.abs().mean()))
    assert errors[0] < 0.8 * errors[1]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)
    assert DAMPING < 0.1


@pytest.mark.parametrize("curvature", ["numbers", "layers"])
def test_a_layer_as_a_whole_has_one_step_and_is_rounded_to_the_nearest(tmp_path: Path, curvature: str) -> None:
    still = {**PHASE, "iterations": 1, "optimizer": {"name": "adamw", "lr": 1e-12}}
    run = engine(tmp_path, curvature=curvature, phases=[still], bytes=4200)
    run.fit()
    original = dict(run.prepared().network.state_dict())
    layers = [parameter for parameter in coded_parameters(run.representation) if "codes" in parameter.name]
    spreads = [float(parameter.code.log_steps().detach().std()) for parameter in layers]
    steps = [float(parameter.code.log_steps().detach().mean()) for parameter in layers]
    assert max(steps) - min(steps) > 0.1  # each layer has its own
    if curvature == "numbers":
        assert min(spreads) > 0.05
        return
    assert max(spreads) < 1e-5
    for parameter, layer in zip(layers, run.representation.grid.layers, strict=True):
        waves = torch.kron(cosines(layer.kernel[0]), cosines(layer.kernel[1])).float()
        codes = original[layer.parameter].flatten(2) @ waves.T  # the parameter's own frequencies stand in another order
        step = parameter.code.log_steps().detach().exp()
        rounded = parameter.code.counts(parameter.latent).detach() * step
        assert float((rounded.sort().values - codes.sort().values).abs().max()) <= 0.501 * float(step.max())


def test_the_mean_curvature_is_that_of_all_numbers() -> None:
    diagonal = torch.rand(5, 4, generator=torch.Generator().manual_seed(0))
    mean = averaged(Curvature(diagonal, torch.eye(4)))
    torch.testing.assert_close(mean.diagonal, diagonal.mean().expand(5, 4))
    assert mean.matrix is None


def test_a_long_measurement_of_the_curvature_is_announced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine(tmp_path, "short").fit()
    assert "how much each number matters" not in caplog.text
    monkeypatch.setattr("nern.training.coding.LONG", 0.0)
    engine(tmp_path, "long").fit()
    assert "3 batches are run to see how much each number matters, which takes about 0 minutes here; curvature_batches=1" in caplog.text


def test_steps_follow_the_curvature_where_it_is_a_product() -> None:
    rows, columns = torch.rand(6) + 0.1, torch.rand(8) + 0.1
    shape = step_shape(rows[:, None] * columns)
    steps = torch.exp(shape[0][:, None] + shape[1])
    cost = steps.square() * rows[:, None] * columns  # what a step costs: the same everywhere, up to what is added to the curvature
    assert float(cost.max() / cost.min()) < 1.3


@pytest.mark.parametrize("first", [True, False], ids=["first phase", "second phase"])
def test_a_run_ends_when_asked_while_the_curvature_is_measured_and_resumes(first: bool, tmp_path: Path) -> None:
    plain = {**PHASE, "name": "plain", "losses": {"kd": {}}}
    phases = {"phases": [PHASE] if first else [plain, PHASE]}
    whole = engine(tmp_path, "whole", **phases).fit()
    probes = []

    def asked(*arguments: Any) -> torch.Tensor:
        probes.append(1)
        signal.raise_signal(signal.SIGTERM)
        return probed(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nern.training.coding.probed", asked)
        steps, place = (0, "there is no checkpoint yet: it begins again") if first else (6, "checkpoint .*checkpoint.pt")
        with pytest.raises(Interrupted, match=rf"stopped at step {steps} of {whole.iterations}; continue with --resume \({place}\)"):
            engine(tmp_path, **phases).fit()
    assert len(probes) == 1
    Engine.from_yaml(tmp_path / "run.yaml").fit(resume=True)
    assert (tmp_path / "run" / "model.nern").read_bytes() == (tmp_path / "whole" / "model.nern").read_bytes()


def test_the_rate_is_steered_to_its_budget() -> None:
    rate = SteeredRate(1000.0, 100, 5.0, 1.0, 0.4)

    def at(bits: float) -> float:
        value = torch.tensor(bits, requires_grad=True)
        loss = rate(*[StoredBits(value, value.detach(), 500)] * 2)
        assert float(loss.detach()) == pytest.approx(bits / 500)
        loss.backward()
        return 500 * float(value.grad)

    assert at(1000.0) == pytest.approx(1.0)
    high = [at(2000.0) for _ in range(3)]
    assert high == pytest.approx([math.exp(0.02 * n) for n in (1, 2, 3)])
    state = rate.state_dict()
    other = SteeredRate(1.0, 100, 5.0, 1.0, 0.4)
    other.load_state_dict(state)
    assert other.state_dict() == state
    for _ in range(300):
        at(10.0)
    assert rate.factor == pytest.approx(1 / 5)
    value = torch.tensor(100.0)
    free = Rate().start(LossContext(None, None, None))  # type: ignore[arg-type]
    assert float(free(*[StoredBits(value, value, 50)] * 2)) == 2.0
