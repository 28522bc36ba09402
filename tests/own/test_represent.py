"""Any network in one call: in memory, with data of every form, and from its run folder in another process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import nern
from nern.builtin.embeddings.fourier import Fourier
from nern.errors import ConfigError, DataError
from nern.run.own_network import OwnNetwork
from nern.studies.description import describe_artifact
from tests.helpers import same

SHORT = {"phases.reconstruction.iterations": 3, "phases.distillation.iterations": 2, "phases.distillation.batch": 8, "observers": {}}
NET = """
from torch import nn
from beside import WIDTH

class Net(nn.Module):
    def __init__(self, classes, width=WIDTH):
        super().__init__()
        self.classes = classes
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        return self.head(self.stem(x).relu().mean((2, 3)))
"""


def cnn(classes: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Conv2d(6, 8, 3), nn.Flatten(), nn.Linear(288, classes)
    )


def images(count: int = 40) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(count, 1, 8, 8), torch.randint(4, (count,))


def represent(model: nn.Module, data: Any, folder: Path, **options: Any) -> nern.Result:
    overrides = {**SHORT, **options.pop("overrides", {})}
    return nern.represent(model, data, output=folder / "run", overrides=overrides, quiet=True, **options)


class Pairs(Dataset[Any]):
    def __init__(self, keys: bool = False) -> None:
        self.images, self.labels = images()
        self.keys = keys

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        pair = self.images[index], int(self.labels[index])
        return dict(zip(("image", "label"), pair, strict=True)) if self.keys else pair


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(Pairs()[index] for index in range(40))


FORMS = {
    "tensors": images,
    "images": lambda: images()[0],
    "array": lambda: images()[0].numpy(),
    "loader": lambda: DataLoader(TensorDataset(*images()), batch_size=7),
    "data set": Pairs,
    "dictionaries": lambda: DataLoader(Pairs(keys=True), batch_size=7, shuffle=True),
    "stream": lambda: DataLoader(Stream(), batch_size=7),
    "batches": lambda: [(image[None], label[None]) for image, label in zip(*images(), strict=True)],
    "nothing": lambda: None,
}


@pytest.mark.parametrize("form", FORMS)
def test_data_of_every_form(form: str, tmp_path: Path) -> None:
    model, data = cnn(), FORMS[form]()
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = represent(model, data, tmp_path, size=(1, 8, 8))
    assert same(model.state_dict(), before)  # what was handed over is left as it was
    assert model.training
    state = nern.load(result.artifact).state_dict()
    assert {name: (value.shape, value.dtype) for name, value in state.items()} == {n: (v.shape, v.dtype) for n, v in before.items()}
    assert torch.equal(state["1.running_mean"], before["1.running_mean"])
    labelled = form not in ("images", "array", "nothing")
    assert (result.original_top1 is not None) == labelled
    if form != "nothing":
        assert result.checkpoints["chosen"]["test"]["agreement"] >= 0


def test_a_network_in_memory_is_measured_like_the_module_itself(tmp_path: Path) -> None:
    model, (inputs, labels) = cnn(), images()
    result = represent(model, images(), tmp_path, test=(inputs, labels))
    right = model.eval()(inputs).argmax(1) == labels
    assert result.original_top1 == pytest.approx(100 * float(right.double().mean()))
    again = nern.load(result.artifact, into=cnn())
    right = again(inputs).argmax(1) == labels
    assert result.reconstructed_top1 == pytest.approx(100 * float(right.double().mean()))


def test_tiles_at_an_edge_count_as_the_weights_that_they_hold(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))  # 10 rows do not divide into tiles of 3
    file = nern.load(represent(model, images(), tmp_path).artifact)
    assert describe_artifact(file)["represented"].endswith("1,476 of 1,490 numbers")


def test_the_state_dict_of_a_file_can_be_saved_whatever_the_layers(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(4, 6, 3, stride=2), nn.Flatten(), nn.Linear(1734, 4))
    result = represent(model, images(), tmp_path)
    state = nern.load(result.artifact).state_dict()
    save_file(state, tmp_path / "weights.safetensors")  # which refuses what is not contiguous
    assert same(load_file(tmp_path / "weights.safetensors"), nern.load(result.artifact, into=model).state_dict())


def test_labels_need_not_show_every_class(tmp_path: Path) -> None:
    """A few photographs of a network with many classes: labels are the numbers of its outputs."""
    inputs, labels = images()
    result = represent(cnn(9), (inputs, labels), tmp_path, test=(inputs, labels))
    right = cnn(9).eval()(inputs).argmax(1) == labels
    assert result.original_top1 == pytest.approx(100 * float(right.double().mean()))
    with pytest.raises(DataError, match="the task has 4 classes and the network 2"):
        represent(cnn(2), (inputs, labels), tmp_path / "other", test=(inputs, labels))


def test_a_short_training_brings_a_network_close_to_its_original(tmp_path: Path) -> None:
    model, (inputs, labels) = cnn(), images(200)
    longer = {"phases.reconstruction.iterations": 150, "phases.distillation.iterations": 100, "predictor.hidden": 48}
    result = represent(model, (inputs, labels), tmp_path, overrides=longer)
    rebuilt = nern.load(result.artifact, into=cnn())
    agreement = (rebuilt(inputs).argmax(1) == model.eval()(inputs).argmax(1)).double().mean()
    assert agreement > 0.8
    assert result.iterations == 250


def test_numbers_pixels_and_other_outputs_are_told_apart(tmp_path: Path) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(40, 5)
    regression = represent(nn.Sequential(nn.Linear(5, 12), nn.Tanh(), nn.Linear(12, 1)), (inputs, inputs.sum(1)), tmp_path / "numbers")
    assert set(regression.checkpoints["chosen"]["test"]) == {"mse", "mse_original"}
    segmented = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 3, 1))
    pixels = torch.randint(3, (40, 8, 8))
    segmentation = represent(segmented, (images()[0], pixels), tmp_path / "pixels")
    assert "miou" in segmentation.checkpoints["chosen"]["test"]

    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(5, 7)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"a": self.body(x), "b": self.body(x)[:, :2]}

    assert list(represent(Several(), inputs, tmp_path / "any").checkpoints["chosen"]["test"]) == ["distance"]


@pytest.mark.parametrize("several", [False, True])
def test_the_recipe_small_takes_inputs_that_are_no_images(several: bool, tmp_path: Path) -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(5, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 1))

        def forward(self, x: Tensor, more: Tensor | None = None) -> Tensor:
            return self.body(x if more is None else x + more)

    inputs = torch.randn(40, 5)
    given = (inputs, torch.randint(3, (40, 5))) if several else inputs
    short = {"phases.distillation.iterations": 2, "phases.distillation.batch": 8, "curvature_batches": 2, "observers": {}}
    data = (given, inputs.sum(1))
    result = nern.represent(Both(), data, recipe="small", overrides=short, output=tmp_path / "run", quiet=True)
    assert result.headline is not None
    assert result.headline[0] == "mse"


def test_a_metric_of_ones_own_is_the_headline(tmp_path: Path) -> None:
    inputs, labels = images()

    def rank(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.argsort(1, descending=True) == targets[:, None]).double().argmax(1) + 1.0

    model = cnn()
    result = represent(model, images(), tmp_path, test=(inputs, labels), metric=rank)
    name, before, after = result.headline or ("", None, None)
    assert name == "metric"
    assert before == pytest.approx(float(rank(model.eval()(inputs), labels).mean()))
    assert after is not None
    assert result.original_top1 is not None


class Surprise(nern.Metric):
    """Mean negative logarithm of the right class's probability: less of it is better, and its name does not say so."""

    @property
    def better(self) -> Literal["lower"]:
        return "lower"

    def batch(self, outputs: Tensor, reference: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, reference, reduction="none")


def test_a_drop_is_what_the_metric_calls_worse(tmp_path: Path) -> None:
    model, (inputs, _) = cnn(), images()
    labels = model.eval()(inputs).argmax(1)  # which a network that is hardly trained gets wrong
    result = represent(model, (inputs, labels), tmp_path, test=(inputs, labels), metric=Surprise())
    networks = model.requires_grad_(False), nern.load(result.artifact, into=cnn()).requires_grad_(False)
    surprised = [float(nn.functional.cross_entropy(net(inputs), labels)) for net in networks]
    assert surprised[1] > surprised[0]
    assert result.drop == pytest.approx(surprised[1] - surprised[0], rel=1e-4)
    assert (result.better["metric"], result.better["top1"], result.better["kl"]) == ("lower", "higher", "lower")
    with pytest.raises(ConfigError, match=r"metric is a str; give a function of outputs and labels, or a nern\.Metric"):
        represent(model, images(), tmp_path / "other", metric="top1")


def test_a_folder_of_images_with_and_without_classes(tmp_path: Path) -> None:
    from PIL import Image

    for index in range(24):
        pixels = torch.randint(256, (12, 10), generator=torch.Generator().manual_seed(index), dtype=torch.uint8)
        place = tmp_path / "photos" / "abcd"[index % 4]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.numpy()).save(place / f"{index}.png")
    result = represent(cnn(), tmp_path / "photos", tmp_path / "classes", size=(1, 8, 8), mean=[0.5], std=[0.2])
    assert result.original_top1 is not None
    other = represent(cnn(7), str(tmp_path / "photos"), tmp_path / "none", size=(1, 8, 8))
    assert (other.original_top1, other.headline is not None) == (None, True)
    with pytest.raises(DataError, match=r"image folder .*nowhere does not exist"):
        represent(cnn(), tmp_path / "nowhere", tmp_path / "x", size=(1, 8, 8))


def test_folders_of_training_and_test_images_are_taken_as_such(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from PIL import Image

    def task(layout: Sequence[str], outputs: int = 4) -> tuple[str, dict[str, Any]]:
        """Name and options of the task that is chosen for a folder with an image in each of these places."""
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        for index, place in enumerate(layout):
            (folder / place).mkdir(parents=True)
            Image.new("L", (8, 8), index).save(folder / place / "0.png")
        (folder / ".DS_Store").touch()
        (folder / "__MACOSX").mkdir()
        chosen = OwnNetwork(cnn(outputs), folder, size=(1, 8, 8)).experiment(output=tmp_path / "run")[0].task
        return str(Path(chosen.root).relative_to(folder)), {"name": type(chosen).__name__, **attrs.asdict(chosen)}

    classes = ["a", "b", "c", "d"]
    for test in ("test", "val", "valid", "validation"):
        root, options = task([f"{split}/{name}" for split in ("train", test) for name in classes])
        assert (root, options["name"], options["labels"]) == (".", "ImageFolder", True)
        root, options = task(["train", test])
        assert (root, options["name"], options["labels"]) == (".", "ImageFolder", False)
        root, options = task([f"{test}/{name}" for name in classes])
        assert (root, options["name"], options["classes"]) == (test, "Photographs", "folders")
    root, options = task(classes)
    assert (root, options["name"], options["classes"]) == (".", "Photographs", "folders")
    assert task(["8", "9", "10", "11"])[1]["classes"] == "folders"  # which class each number is, is said where the images are listed
    assert not caplog.records
    assert task(classes, outputs=7)[1]["classes"] == "none"
    assert "holds 4 folders and the network has 7 outputs, so the folders are not its classes" in caplog.text


@pytest.mark.parametrize(
    ("model", "data", "error", "message"),
    [
        ("net", None, ConfigError, "model is a str; give a torch.nn.Module"),
        (nn.BatchNorm2d(1), images()[0], ConfigError, "BatchNorm2d has no convolution or linear layer"),
        (cnn(), torch.randn(4, 3, 8, 8), DataError, r"the network cannot take the data: inputs \[2, 3, 8, 8\]"),
        (cnn(), 3, DataError, "data is a int; give a DataLoader"),
        (cnn(), [], DataError, "data holds no examples"),
        (cnn(), {"a": 1}, DataError, "data is a dict; give a DataLoader"),
        (cnn(), [{"picture": images()[0]}], DataError, "a batch is a dictionary with picture; its input must be called image"),
        (cnn(), torch.zeros(4, 1, 8, 8, dtype=torch.uint8), DataError, r"the inputs are bytes \(uint8\): give mean and std"),
    ],
)  # fmt: skip
def test_what_is_impossible_is_said_before_anything_runs(model: Any, data: Any, error: type, message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        represent(model, data, tmp_path)
    assert not (tmp_path / "run").exists()


def test_the_plan_tells_sizes_that_the_file_has(tmp_path: Path) -> None:
    engine = nern.Engine.from_model(cnn(), images(), {**SHORT, "predictor.hidden": 40}, output=tmp_path / "run")
    plan = engine.plan()
    assert plan.represented == {"0.weight": 54, "3.weight": 432, "5.weight": 1152}
    assert sum(plan.represented.values()) + sum(plan.copied.values()) == sum(v.numel() for v in cnn().state_dict().values())
    assert "3 layers with 1,638 weights are represented" in str(plan)
    assert plan.original is not None
    result = engine.fit()
    assert 0.98 * plan.bytes.total <= result.bytes.total <= plan.bytes.total
    assert result.bytes.predictor == plan.bytes.predictor
    assert result.original_top1 == plan.original.top1


def test_a_file_larger_than_the_network_is_said_to_be(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tiny = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2))
    plan = nern.Engine.from_model(tiny, torch.randn(40, 5), SHORT, output=tmp_path / "plan").plan()
    assert "times LARGER than the network itself" in str(plan)
    with caplog.at_level("WARNING", "nern"):
        result = represent(tiny, torch.randn(40, 5), tmp_path)
    assert result.bytes.total > result.bytes.original
    assert "the representation is larger than the network" in caplog.text
    assert "times LARGER than the network itself" in result.summary()
    assert plan.predictor.startswith("MLP (hidden 4,")
    caplog.clear()
    large = nn.Sequential(nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 200))
    assert "times smaller" in represent(large, torch.randn(40, 200), tmp_path / "large").summary()
    assert not caplog.text


def test_the_predictor_has_a_part_of_the_represented_weights() -> None:
    experiment, _ = OwnNetwork(nn.Sequential(nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 300)), size=(300,)).experiment()
    hidden = experiment.predictor.hidden  # type: ignore[attr-defined]
    weights = 240 * hidden + 3 * hidden**2 + 4 * hidden + 16 * hidden + 16  # positional embedding, five layers, tiles of 4 × 4
    assert 0.39 * 180_000 < weights <= 0.42 * 180_000


def test_an_own_class_goes_on_from_its_run_folder_in_another_process(tmp_path: Path) -> None:
    """A file with a helper beside it: interrupted here, resumed, measured and rebuilt by the command line elsewhere."""
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "beside.py").write_text("WIDTH = 6\n")
    (tmp_path / "script.py").write_text(
        "import torch, nern\nfrom net import Net\ntorch.manual_seed(0)\n"
        "data = torch.randn(40, 1, 8, 8), torch.randint(4, (40,))\n"
        f"nern.represent(Net(classes=4), data, overrides={SHORT}, output='run', quiet=True)\n"
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {"PYTHONPATH": str(Path(nern.__file__).parents[1])}

    def call(*words: str, cwd: Path = elsewhere) -> str:
        import os

        process = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=cwd, env={**os.environ, **environment})
        assert not process.returncode, process.stderr
        return process.stdout

    call("script.py", cwd=tmp_path)
    run = tmp_path / "run"
    import json

    result = json.loads((run / "result.json").read_text())
    measured = json.loads(call("-m", "nern", "evaluate", str(run), "--json"))
    assert measured["original_top1"] == result["original_top1"]
    assert measured["reconstructed_top1"] == result["reconstructed_top1"]
    resumed = json.loads(call("-m", "nern", "train", str(run), "--resume", "phases.distillation.iterations=4", "--json"))
    assert resumed["iterations"] == result["iterations"] + 2
    loaded = nern.load(run / "model.nern")
    assert set(loaded.state_dict()) == {"stem.weight", "stem.bias", "head.weight", "head.bias"}
    with pytest.raises(nern.ArtifactError, match=r"handed over in memory.*state_dict\(\)"):
        loaded.reconstruct()  # a file does not say what to import


def test_codes_of_a_pruned_network_are_its_weights() -> None:
    model = cnn()
    assert OwnNetwork(model, images(), recipe="small").experiment()[0].embedding.transform == "dct"  # type: ignore[attr-defined]
    with torch.no_grad():
        for weight in (parameter for parameter in model.parameters() if parameter.dim() > 1):
            weight.mul_(torch.rand(weight.shape) < 0.5)
    pruned = OwnNetwork(model, images(), recipe="small")
    assert pruned.experiment()[0].embedding.transform == "none"  # type: ignore[attr-defined]
    chosen = pruned.experiment({"embedding.transform": "dct"})[0]
    assert chosen.embedding.transform == "dct"  # type: ignore[attr-defined]
    assert pruned.experiment({"embedding": {"name": "fourier"}})[0].embedding == Fourier()


def test_a_step_takes_a_sample_of_very_many_kernels_but_all_codes() -> None:
    model = nn.Sequential(nn.Conv2d(3, 300, 3), nn.ReLU(), nn.Conv2d(300, 300, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for recipe, expected in (("fast", "Uniform"), ("small", "All")):
        experiment, _ = OwnNetwork(model, torch.randn(20, 3, 8, 8), recipe=recipe, layers="convolutions").experiment()
        sampler = experiment.phases[-1].sampler or experiment.sampler
        assert type(sampler).__name__ == expected
