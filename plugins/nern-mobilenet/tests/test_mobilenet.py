"""Mappings against written-out loops, the architecture against nern's contract."""

from __future__ import annotations

import pytest
import torch
from nern_mobilenet import MobileNet, Pointwise

from nern import Engine, KernelGrid, create_registry
from nern.testing import check_architecture

SMALL = {"width": 0.25, "classes": 10, "size": 32, "stem_stride": 1}


@pytest.mark.parametrize("model", ["mobilenet_v2", "mobilenet_v3_small"])
def test_contract(model):
    check_architecture(MobileNet(model=model, **SMALL))


def test_contract_with_one_weight_to_a_kernel():
    check_architecture(MobileNet(block=1, **SMALL))


@pytest.mark.parametrize(("channels", "block"), [(18, 3), (20, 3), (5, 3), (50, 5), (7, 1)])
def test_pointwise_blocks_against_a_loop(channels, block):
    weight = torch.randn(4, channels, 1, 1, dtype=torch.float64)
    mapping = Pointwise("w", tuple(weight.shape), 2, block=block)
    kernels, coordinates = mapping.split(weight), mapping.coordinates()
    seen = torch.zeros_like(weight)
    for (layer, f, g), kernel in zip(coordinates.tolist(), kernels, strict=True):
        assert layer == 2
        for place, value in enumerate(kernel.flatten().tolist()):
            c = g * block**2 + place
            if c < channels:
                assert value == weight[f, c, 0, 0]
                seen[f, c] += 1
            else:
                assert value == 0
    assert bool((seen == 1).all())
    assert torch.equal(mapping.join(kernels), weight)


def test_depthwise_kernels_have_the_channel_that_they_read_and_write():
    architecture = MobileNet(**SMALL)
    layers = architecture.layers(architecture.build())
    depthwise = [layer.coordinates() for layer in layers if layer.shape[1] == 1]
    assert len(depthwise) == 17
    for coordinates in depthwise:
        assert coordinates[:, 1].tolist() == coordinates[:, 2].tolist() == list(range(len(coordinates)))


def test_tiling_takes_a_tenth_of_the_rows():
    rows = {}
    for block in (1, None):
        architecture = MobileNet(block=block)
        rows[block] = KernelGrid(tuple(architecture.layers(architecture.build()))).rows
    assert rows[1] > 9 * rows[None] * 0.8
    assert rows[1] > 2_000_000


@pytest.mark.parametrize("model", ["mobilenet_v2", "mobilenet_v3_small"])
def test_default_network_is_torchvisions(model):
    from torchvision import models

    ours, theirs = MobileNet(model=model).build(), getattr(models, model)()
    assert {n: v.shape for n, v in ours.state_dict().items()} == {n: v.shape for n, v in theirs.state_dict().items()}
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(1, 3, 64, 64)
    assert torch.allclose(ours.eval()(images), theirs.eval()(images), atol=1e-5)


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="block must be 1 or more, got 0"):
        MobileNet(block=0)
    with pytest.raises(ValueError, match="mean must have one value per channel"):
        MobileNet(channels=1)


def test_is_found_and_trains_and_comes_back(tmp_path):
    import nern

    assert create_registry().find("architecture", "nern-mobilenet:mobilenet").cls is MobileNet
    path = tmp_path / "weights.pt"
    torch.save(MobileNet(**SMALL).build().state_dict(), path)
    text = f"""
architecture: {{name: mobilenet, weights: {path}, width: 0.25, classes: 10, size: 32, stem_stride: 1}}
task: uniform-noise
predictor: {{name: mlp, hidden: 16}}
smoother: none
losses: {{reconstruction: {{}}, kd: {{weight: 0.1}}, fmd: {{weight: 0.1}}}}
optimizer: {{name: adamw}}
phases: [{{iterations: 2, batch: 4}}]
heldout: 0
evaluate_every: 0
output: {tmp_path / "run"}
"""
    (tmp_path / "experiment.yaml").write_text(text)
    engine = Engine.from_yaml(tmp_path / "experiment.yaml")
    engine.fit()
    rebuilt = nern.load(engine.run.artifact).reconstruct().state_dict()
    original = torch.load(path, weights_only=True)
    assert {n: v.shape for n, v in rebuilt.items()} == {n: v.shape for n, v in original.items()}
    assert torch.equal(rebuilt["classifier.1.weight"], original["classifier.1.weight"])
