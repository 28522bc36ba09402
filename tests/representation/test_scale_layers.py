"""Predictions in units of each layer's own weights."""

from __future__ import annotations

import pytest
import torch

import nern
from nern import Engine

SETTINGS = {"architecture.width": 3, "predictor.hidden": 8, "pretrain.epochs": 1}
SHORT = {**SETTINGS, "phases.0.iterations": 5, "phases.1.iterations": 2}


def test_predictions_are_the_predictors_outputs_times_the_scale_of_their_layer(tmp_path):
    engine = Engine.from_yaml("digits", {**SHORT, "scale_layers": True, "output": str(tmp_path / "run")})
    engine.fit()
    representation, original = engine.representation, engine.original().state_dict()
    rows = torch.arange(0, representation.grid.rows, 5)
    outputs = representation.predictor(representation.embedding(representation.grid.coordinates()[rows]))
    predictions = representation.predict(rows)
    for row, output, prediction in zip(rows.tolist(), outputs, predictions, strict=True):
        layer = max(index for index, start in enumerate(representation.grid.starts[:-1]) if start <= row)
        weight = original[representation.grid.layers[layer].parameter].double()
        scale = (weight.square().sum() / weight.numel()).sqrt()
        torch.testing.assert_close(prediction.double(), output.double() * scale, rtol=1e-4, atol=1e-6)


def test_the_file_holds_four_bytes_for_each_layer_and_gives_the_same_network(tmp_path):
    results = {}
    for scaled in (True, False):
        engine = Engine.from_yaml("digits", {**SHORT, "scale_layers": scaled, "output": str(tmp_path / str(scaled))})
        results[scaled] = engine.fit()
        rebuilt, loaded = engine.reconstruct(), nern.load(tmp_path / str(scaled) / "model.nern").reconstruct()
        assert all(torch.equal(a, b) for a, b in zip(rebuilt.state_dict().values(), loaded.state_dict().values(), strict=True))
        assert results[scaled].bytes.total == (tmp_path / str(scaled) / "model.nern").stat().st_size
    layers = len(engine.representation.grid.layers)
    assert results[True].bytes.predictor - results[False].bytes.predictor == 4 * layers


def test_a_scaled_run_goes_on_where_it_stopped(tmp_path):
    settings = {**SETTINGS, "scale_layers": True, "optimizer": {"name": "adamw", "schedule": "constant"}}
    phase = {"name": "reconstruction", "losses": {"reconstruction": {}}}

    def fit(name: str, iterations: int, **options: bool) -> Engine:
        engine = Engine.from_yaml("digits", {**settings, "phases": [{**phase, "iterations": iterations}], "output": str(tmp_path / name)})
        engine.fit(**options)
        return engine

    fit("parts", 3)
    parts, whole = fit("parts", 5, resume=True), fit("whole", 5)
    for a, b in zip(parts.reconstruct().parameters(), whole.reconstruct().parameters(), strict=True):
        assert torch.equal(a, b)


def test_layers_of_zeros_have_the_scale_one(tmp_path):
    network = Engine.from_yaml("digits", SETTINGS).experiment.architecture.build()
    with torch.no_grad():
        network.layer1[0].conv1.weight.zero_()
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    settings = {**SHORT, "scale_layers": True, "architecture.weights": str(tmp_path / "weights.pt"), "output": str(tmp_path / "run")}
    engine = Engine.from_yaml("digits", settings)
    engine.fit()
    scales = engine.representation.scales
    index = [layer.parameter for layer in engine.representation.grid.layers].index("layer1.0.conv1.weight")
    assert float(scales[index]) == 1.0
    assert float(scales[index - 1]) == pytest.approx(float(network.conv1.weight.detach().double().square().mean().sqrt()), rel=1e-5)
