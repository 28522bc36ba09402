"""The predictor and the embeddings: nern's contract, written-out references, and a run from YAML."""

from __future__ import annotations

import math

import pytest
import torch
from nern_siren import HashGrid, Siren

import nern
from nern import Engine, KernelGrid, LayerMapping, create_registry
from nern.testing import check_embedding, check_predictor

GRID = KernelGrid((LayerMapping("a", (7, 3, 3, 3), 0), LayerMapping("b", (9, 7, 3, 3), 1), LayerMapping("c", (5, 9, 1, 1), 2)))


@pytest.mark.parametrize("component", [Siren(), Siren(layers=2, hidden=8, first_omega=30.0, omega=30.0)])
def test_siren_contract(component):
    check_predictor(component)


@pytest.mark.parametrize("component", [HashGrid(), HashGrid(levels=2, table=8)])
def test_embedding_contract(component):
    check_embedding(component)
    check_embedding(component, GRID)


@pytest.mark.parametrize("omega", [1.0, 30.0])
@pytest.mark.parametrize("scale", [0.1, 2.0])
def test_siren_starts_with_unit_angles_and_the_kernels_spread(omega, scale):
    torch.manual_seed(0)
    component = Siren(hidden=256, omega=omega)
    embedded, kernels = scale * torch.randn(2000, 60), 0.03 * torch.randn(5000, 9) + 0.01
    module = component.build(60, 9)
    component.initialise(module, embedded, kernels)
    with torch.no_grad():
        x = embedded
        for layer, frequency in zip(module.sines, module.omegas, strict=True):
            angles = frequency * (layer(x) - layer.bias)
            assert math.isclose(float(angles.std()), 1.0, rel_tol=0.15)
            x = torch.sin(frequency * layer(x))
        outputs = module(embedded)
    assert math.isclose(float(outputs.std()), 0.03, rel_tol=0.3)
    assert abs(float(outputs.mean()) - 0.01) < 0.01


def test_hash_grid_against_a_loop():
    component = HashGrid(levels=3, features=2, table=50, coarsest=3)
    module = component.build(GRID).double()
    coordinates = GRID.coordinates()
    largest = coordinates.amax(0).tolist()
    for row in (0, 17, 50, len(coordinates) - 1):
        expected = []
        for table, resolution in zip(module.levels, module.resolutions, strict=True):
            position = [c / m * resolution for c, m in zip(coordinates[row].tolist(), largest, strict=True)]
            low = [min(math.floor(p), resolution - 1) for p in position]
            total = torch.zeros(2, dtype=torch.float64)
            for corner in ((a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)):
                at = [l + o for l, o in zip(low, corner, strict=True)]  # noqa: E741
                weight = math.prod(p - l if o else 1 - (p - l) for p, l, o in zip(position, low, corner, strict=True))  # noqa: E741
                if (resolution + 1) ** 3 <= 50:
                    index = (at[0] * (resolution + 1) + at[1]) * (resolution + 1) + at[2]
                else:
                    index = (at[0] ^ at[1] * 2_654_435_761 ^ at[2] * 805_459_861) % len(table)
                total += weight * table[index].detach()
            expected.append(total)
        assert torch.allclose(module(coordinates)[row], torch.cat(expected), atol=1e-12)


@pytest.mark.parametrize("embedding", ["hash-grid", "learned"])
@pytest.mark.parametrize("predictor", ["siren", "mlp"])
def test_trains_from_yaml_and_comes_back(embedding, predictor, tmp_path):
    registry = create_registry()
    assert registry.find("predictor", "nern-siren:siren").cls is Siren
    path = tmp_path / "weights.pt"
    architecture = registry.find("architecture", "cifar-resnet").cls(depth=8, width=2, size=8)
    torch.save(architecture.build().state_dict(), path)
    text = f"""
architecture: {{name: cifar-resnet, depth: 8, width: 2, size: 8, weights: {path}}}
task: uniform-noise
embedding: {embedding}
predictor: {{name: {predictor}, hidden: 16}}
smoother: cross-filter
losses: {{reconstruction: {{form: mse}}}}
sampler: all
optimizer: {{name: adamw, lr: 1.0e-2}}
phases: [{{iterations: 30}}]
log_every: 1
heldout: 0
evaluate_every: 0
precision: float32
output: {tmp_path / "run"}
"""
    (tmp_path / "experiment.yaml").write_text(text)
    engine = Engine.from_yaml(tmp_path / "experiment.yaml", registry=registry)
    result = engine.fit()
    losses = [line.split('"total": ')[1].split("}")[0] for line in engine.run.metrics.read_text().splitlines() if '"total"' in line]
    assert float(losses[-1]) < 0.9 * float(losses[0])
    assert result.bytes.embedding > 0
    rebuilt = nern.load(engine.run.artifact)
    kept = rebuilt.representation.embedding.state_dict()
    trained = engine.representation.embedding.state_dict()
    assert all(torch.equal(kept[name].cpu(), trained[name].cpu()) for name in trained)
    assert any(not torch.equal(a, b) for a, b in zip(kept.values(), _fresh(embedding, registry, rebuilt).values(), strict=True))


def _fresh(name, registry, rebuilt):
    return registry.find("embedding", name).cls().build(rebuilt.representation.grid).state_dict()
