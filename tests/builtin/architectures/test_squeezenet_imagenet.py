"""ImageNet evaluation on real photographs with a real network, against torchvision's and timm's own pipelines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

from nern.builtin.architectures.squeezenet import SqueezeNet
from nern.builtin.architectures.timm import Timm
from nern.builtin.architectures.torchvision import Torchvision
from nern.builtin.tasks.folders import ImageFolder
from nern.engine import Engine
from nern.errors import ConfigError, DataError, OptionError
from nern.interfaces import Preprocessing
from nern.networks.state_dicts import read_state_dict

CPU = torch.device("cpu")
CLASSES = 20  # of the thousand, the first by name: their labels are those of ImageNet


@pytest.fixture(scope="module")
def some_imagenet(small_imagenet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task root with one photograph of each of the first classes."""
    root = tmp_path_factory.mktemp("some-imagenet")
    (root / "val").mkdir()
    for folder in sorted((small_imagenet / "val").iterdir())[:CLASSES]:
        (root / "val" / folder.name).symlink_to(folder)
    return root


def every_class(imagenet: Path) -> list[str]:
    """The thousand classes in the order of the network's outputs."""
    return sorted(folder.name for folder in (imagenet / "val").iterdir())


def percentages(weights: Path, files: Sequence[Path]) -> tuple[float, float]:
    """Top-1 and top-5 of torchvision's SqueezeNet on one file per class, by torchvision's transforms, in double precision."""
    from torchvision.models import SqueezeNet1_0_Weights, squeezenet1_0

    network = squeezenet1_0().double().eval()
    network.load_state_dict(read_state_dict(weights))
    transform = SqueezeNet1_0_Weights.IMAGENET1K_V1.transforms()
    images = torch.stack([transform(Image.open(file).convert("RGB")) for file in files]).double()
    with torch.no_grad():
        best = torch.cat([network(part) for part in images.split(20)]).topk(5, dim=1).indices
    hits = best == torch.arange(len(files))[:, None]
    return 100 * float(hits[:, 0].double().mean()), 100 * float(hits.any(1).double().mean())


@pytest.mark.slow
def test_a_run_without_training_images_measures_the_real_network(
    some_imagenet: Path, small_imagenet: Path, squeezenet_weights: Path, tmp_path: Path
) -> None:
    experiment = {
        "architecture": {
            "name": "squeezenet", "model": "squeezenet1_0", "layers": ["features.[34].*.weight"], "weights": str(squeezenet_weights),
        },
        "task": {"name": "image-folder", "root": str(some_imagenet), "classes": every_class(small_imagenet)},
        "embedding": {"name": "positional", "frequencies": 4},
        "predictor": {"name": "mlp", "hidden": 16},
        "smoother": {"name": "none"},
        "sampler": {"name": "uniform", "batch": 512},
        "phases": [
            {"name": "reconstruction", "iterations": 2, "losses": {"reconstruction": {}}},
            {"name": "distillation", "iterations": 2, "batch": 2, "inputs": {"name": "uniform-noise", "heldout_images": 4}},
        ],
        "losses": {"reconstruction": {}, "kd": {}, "fmd": {}},
        "optimizer": {"name": "adamw", "lr": 1e-3},
        "evaluate_every": 0,
        "observers": {},
        "precision": "float32",
        "device": "cpu",
        "output": str(tmp_path / "run"),
    }  # fmt: skip
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(experiment))
    engine = Engine.from_yaml(tmp_path / "experiment.yaml")
    result = engine.fit()

    top1, top5 = percentages(squeezenet_weights, sorted((some_imagenet / "val").glob("*/*")))
    assert 40 < top1 < top5  # 59.9 and 83.7 % on all thousand classes
    assert result.original_top1 == pytest.approx(top1)
    checkpoints = json.loads((tmp_path / "run" / "result.json").read_text())["checkpoints"]
    assert checkpoints["chosen"]["test"].keys() >= {"top1", "top5"}
    assert checkpoints["chosen"]["heldout"].keys() == {"agreement", "kl"}  # chosen on noise, which has no labels
    evaluation = engine.evaluate()
    assert evaluation.original is not None
    assert (evaluation.original.top1, evaluation.original.top5) == (pytest.approx(top1), pytest.approx(top5))
    assert evaluation.original.images == CLASSES


def test_networks_cannot_run_without_images(tmp_path: Path) -> None:
    root = photographs(tmp_path / "images")
    torch.save(SqueezeNet(size=32, classes=2).build().state_dict(), tmp_path / "original.pth")
    overrides = {
        "architecture.weights": str(tmp_path / "original.pth"), "architecture.model": "squeezenet1_0", "architecture.size": 32,
        "architecture.resize": 32, "architecture.classes": 2, "task.root": str(root), "output": str(tmp_path / "run"),
        "device": "cpu", "observers": {},
    }  # fmt: skip
    engine = Engine.from_yaml("squeezenet-imagenet", overrides)
    with pytest.raises(DataError, match=r"phase 'joint' runs the networks, but the task has no training images; set inputs=\{name"):
        engine.fit()
    assert not (tmp_path / "run").exists()


def photographs(root: Path) -> Path:
    """Two images that are neither square nor of the network's size."""
    noise = np.random.default_rng(0)
    for index, (height, width) in enumerate([(300, 411), (350, 280)]):
        folder = root / "val" / f"{index}"
        folder.mkdir(parents=True)
        small = Image.fromarray(noise.integers(0, 256, (height // 10, width // 10, 3), dtype=np.uint8))
        small.resize((width, height), Image.Resampling.BICUBIC).save(folder / "0.png")
    return root


def inputs_of(preprocessing: Preprocessing, root: Path) -> Tensor:
    """The test images as a task hands them to the network."""
    data = ImageFolder(root=str(root)).open(preprocessing, 0.0, 0)
    return torch.cat([images for images, _ in data.batches("test", 8, CPU)])


def images_of(root: Path) -> list[Image.Image]:
    return [Image.open(file).convert("RGB") for file in sorted(root.glob("val/*/*"))]


@pytest.mark.parametrize("model", ["resnet18.a1_in1k", "convnext_atto.d2_in1k", "convnext_base.clip_laion2b_augreg_ft_in12k_in1k_384"])
def test_timm_inputs_are_those_of_timms_evaluation(model: str, tmp_path: Path) -> None:
    import timm
    from timm.data import create_transform, resolve_model_data_config

    published = SimpleNamespace(pretrained_cfg=timm.models.get_pretrained_cfg(model).to_dict())  # all that a built model adds
    transform = create_transform(**resolve_model_data_config(published), is_training=False)
    root = photographs(tmp_path)
    expected = torch.stack([transform(image) for image in images_of(root)])
    torch.testing.assert_close(inputs_of(Timm(model=model).preprocessing(), root), expected)


@pytest.mark.parametrize(("model", "version"), [("squeezenet1_0", None), ("resnet50", "IMAGENET1K_V2"), ("convnext_tiny", None)])
def test_torchvision_inputs_are_those_of_torchvisions_weights(model: str, version: str | None, tmp_path: Path) -> None:
    from torchvision.models import get_model_weights

    published = get_model_weights(model)
    transform = (published[version] if version else published.DEFAULT).transforms()
    root = photographs(tmp_path)
    expected = torch.stack([transform(image) for image in images_of(root)])
    torch.testing.assert_close(inputs_of(Torchvision(model=model, version=version).preprocessing(), root), expected)


def test_sizes_can_be_set() -> None:
    own = Torchvision(model="resnet18").preprocessing()
    assert (own.size, own.resize) == ((3, 224, 224), 256)
    small = Torchvision(model="resnet18", size=32).preprocessing()
    assert (small.size, small.resize) == ((3, 32, 32), None)
    cropped = Torchvision(model="resnet18", size=64, crop=0.8).preprocessing()
    assert (cropped.size, cropped.resize) == ((3, 64, 64), 80)
    assert Torchvision(model="resnet18", crop=1.0).preprocessing().resize == 224
    photo = Timm(model="resnet18", size=64, resize=72, channels=1).preprocessing()
    assert (photo.size, photo.resize, len(photo.mean), len(photo.std)) == ((1, 64, 64), 72, 1, 1)


def test_photographs_with_a_border_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    padded = timm.models.get_pretrained_cfg("resnet18").to_dict() | {"crop_mode": "border"}
    monkeypatch.setattr(timm.models, "get_pretrained_cfg", lambda name: SimpleNamespace(to_dict=lambda: padded))
    with pytest.raises(ConfigError, match="resnet18 wants photographs with a border"):
        Timm(model="resnet18").preprocessing()


@pytest.mark.parametrize("architecture", [Torchvision, Timm])
def test_inputs_can_be_prepared_as_the_weights_want_it(architecture: type[Torchvision] | type[Timm], tmp_path: Path) -> None:
    """Against torchvision's own transforms; neither library publishes weights of ResNet18 with these settings."""
    from torchvision import transforms
    from torchvision.transforms import InterpolationMode

    root = photographs(tmp_path)
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
    chosen = architecture(model="resnet18", size=48, resize=60, mean=mean, std=std, interpolation="bicubic")
    expected = transforms.Compose([
        transforms.Resize(60, InterpolationMode.BICUBIC), transforms.CenterCrop(48), transforms.ToTensor(), transforms.Normalize(mean, std),
    ])  # fmt: skip
    files = sorted((root / "val").glob("*/*"))
    torch.testing.assert_close(inputs_of(chosen.preprocessing(), root), torch.stack([expected(Image.open(file)) for file in files]))


@pytest.mark.parametrize("architecture", [Torchvision, Timm])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"mean": [123.675, 116.28, 103.53]},
            r"mean must be of values in \[0, 1\], got .*divided by 255 that is \[0\.485, 0\.456, 0\.406\]",
        ),
        ({"std": [58.395, 57.12, 57.375]}, r"std must be of values in \[0, 1\], got .*divided by 255 that is \[0\.229, 0\.224, 0\.225\]"),
        ({"std": [0.2, 0.0, 0.2]}, r"std must be above 0, got \[0\.2, 0, 0\.2\]"),
        ({"std": [-0.2, 0.2, 0.2]}, r"std must be above 0"),
        ({"mean": [0.5]}, r"mean must have one value per channel \(3\), got 1"),
        ({"crop": 0.8, "resize": 300}, "crop must be null where resize is given"),
        ({"crop": 0.0}, "crop must be > 0"),
    ],
)
def test_impossible_preparations_are_refused(
    options: dict[str, object], message: str, architecture: type[Torchvision] | type[Timm]
) -> None:
    with pytest.raises(OptionError, match=message):
        architecture(model="resnet18", **options).preprocessing()


def test_arguments_of_the_constructor_reach_it() -> None:
    whole = Torchvision(model="googlenet", size=64, arguments={"transform_input": False})
    assert whole.built().transform_input is False
    assert Torchvision(model="googlenet", size=64).built().transform_input is True
    assert Timm(model="resnet18", arguments={"stem_type": "deep", "stem_width": 8}).built().conv1[0].out_channels == 8
    with pytest.raises(ConfigError, match=r"architecture\.arguments: \(no_such_thing\) are refused by the library: .*no_such_thing"):
        Torchvision(model="resnet18", arguments={"no_such_thing": 1}).built()
    with pytest.raises(ConfigError, match=r"architecture\.arguments: must not hold 'num_classes' where architecture\.classes is set"):
        Torchvision(model="resnet18", classes=4, arguments={"num_classes": 5}).built()
    assert Torchvision(model="resnet18", arguments={"num_classes": 5}).built().fc.out_features == 5
