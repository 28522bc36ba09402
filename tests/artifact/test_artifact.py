"""The file a user keeps: complete, self-sufficient, and refused where a bit of it is wrong."""

from __future__ import annotations

import json
import math
import os
import pickle
import random
import shutil
from pathlib import Path

import attrs
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import nern
from nern.artifact import layout
from nern.artifact.artifact import Artifact
from nern.builtin.architectures.cifar_resnet import CifarResNet
from nern.builtin.embeddings.positional import Positional
from nern.builtin.predictors.mlp import MLP
from nern.builtin.smoothers.greedy import CrossFilter, InFilter
from nern.errors import ArtifactError, DataError
from nern.interfaces import Smoother
from nern.kernels.coordinates import KernelGrid
from nern.networks.state_dicts import digest
from nern.registry.discovery import create_registry
from nern.registry.registry import Registry
from nern.representation.assembling import assemble
from tests.helpers import ARCHITECTURE, network, same


def make(
    smoother: Smoother | None = None, dtype: torch.dtype | None = None, registry: Registry | None = None, **options: object
) -> tuple[Artifact, nn.Module]:
    """An artifact with an untrained predictor, and the original network that it stands for, as in its file."""
    original = network(**options)
    stored = {
        name: dtype if dtype is not None and value.is_floating_point() else value.dtype for name, value in original.state_dict().items()
    }
    architecture = CifarResNet(**{**ARCHITECTURE, **options})  # type: ignore[arg-type]
    for name, value in original.state_dict().items():
        value.copy_(value.to(stored[name]))
    state = original.state_dict()
    grid = KernelGrid(tuple(architecture.layers(original)))
    kernels = [layer.split(state[layer.parameter]).reshape(layer.filters, layer.channels, -1) for layer in grid.layers]
    orders = [(smoother or CrossFilter()).order(values) for values in kernels]
    embedding, predictor = Positional(frequencies=4), MLP(hidden=8)
    torch.manual_seed(1)
    representation = assemble(grid, orders, embedding, predictor).eval().requires_grad_(False)
    artifact = Artifact(
        representation, architecture, embedding, predictor, original, stored, registry or create_registry(entry_points=False),
        digest(state), {"task": {"name": "digits"}},
    )  # fmt: skip
    return artifact, original


@pytest.mark.parametrize("smoother", [CrossFilter(), InFilter()], ids=["cross-filter", "in-filter"])
@pytest.mark.parametrize("dtype", [None, torch.float16, torch.bfloat16], ids=["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_every_name_shape_and_type_comes_back(tmp_path: Path, smoother: Smoother, dtype: torch.dtype | None, shortcut: str) -> None:
    artifact, original = make(smoother, dtype, shortcut=shortcut)
    artifact.save(tmp_path / "m.nern")
    rebuilt = nern.load(tmp_path / "m.nern").reconstruct()
    assert isinstance(rebuilt, nn.Module)
    assert not rebuilt.training
    state, expected = rebuilt.state_dict(), original.state_dict()
    assert list(state) == list(expected)
    represented = {layer.parameter for layer in artifact.representation.grid.layers}
    predicted = artifact.representation.reconstruct()
    assert set(predicted) == represented
    for name, value in expected.items():
        wanted = dtype if dtype is not None and value.is_floating_point() else value.dtype
        assert state[name].shape == value.shape
        assert state[name].dtype == wanted
        assert torch.equal(state[name], (predicted[name] if name in represented else value).to(wanted))


def test_the_rebuilt_network_runs_and_depends_on_the_predictor(tmp_path: Path) -> None:
    artifact, original = make()
    artifact.save(tmp_path / "m.nern")
    rebuilt = nern.load(tmp_path / "m.nern").reconstruct()
    images = torch.randn(3, 1, 8, 8)
    by_hand = network()
    by_hand.load_state_dict({**original.state_dict(), **artifact.representation.reconstruct()})
    torch.testing.assert_close(rebuilt(images), by_hand(images))
    assert not torch.allclose(rebuilt(images), original(images))


def test_the_bytes_add_up_to_the_file(tmp_path: Path) -> None:
    artifact, original = make()
    sizes = artifact.save(tmp_path / "m.nern")
    parts = {name: value for name, value in attrs.asdict(sizes).items() if name not in ("original", "total")}
    assert sum(parts.values()) == sizes.total == (tmp_path / "m.nern").stat().st_size
    save_file(original.state_dict(), str(tmp_path / "original.safetensors"))
    assert sizes.original == (tmp_path / "original.safetensors").stat().st_size
    tensors = load_file(str(tmp_path / "m.nern"))
    held = {name: sum(value.nbytes for key, value in tensors.items() if key.split(".")[0] == name) for name in parts}
    assert {name: size for name, size in parts.items() if name != "header"} == {n: s for n, s in held.items() if n != "header"}
    represented = {layer.parameter for layer in artifact.representation.grid.layers}
    assert sizes.copied == sum(value.nbytes for name, value in original.state_dict().items() if name not in represented)


@pytest.mark.parametrize(("smoother", "across"), [(CrossFilter(), True), (InFilter(), False)], ids=["cross-filter", "in-filter"])
def test_an_ordering_takes_the_bits_of_the_formula(tmp_path: Path, smoother: Smoother, across: bool) -> None:
    artifact, _ = make(smoother, width=6)  # 6, 12 and 24 filters: no powers of two
    sizes = artifact.save(tmp_path / "m.nern")
    bits = 0
    for layer in artifact.representation.grid.layers:
        filters, channels = layer.shape[:2]
        if across:
            bits += filters * channels * math.ceil(math.log2(filters * channels))
        else:
            bits += filters * channels * (math.ceil(math.log2(channels)) if channels > 1 else 0)
            bits += filters * math.ceil(math.log2(filters))
    assert sizes.ordering == math.ceil(bits / 8)
    loaded = nern.load(tmp_path / "m.nern").representation.orders
    for before, after in zip(artifact.representation.orders, loaded, strict=True):
        assert torch.equal(before.indices(), after.indices())


def test_saving_a_loaded_file_gives_the_same_bytes(tmp_path: Path) -> None:
    artifact, _ = make(dtype=torch.float16)
    artifact.save(tmp_path / "a.nern")
    nern.load(tmp_path / "a.nern").save(tmp_path / "b.nern")
    assert (tmp_path / "a.nern").read_bytes() == (tmp_path / "b.nern").read_bytes()


def test_the_original_weights_are_known_by_their_checksum(tmp_path: Path) -> None:
    artifact, original = make()
    artifact.save(tmp_path / "m.nern")
    loaded = nern.load(tmp_path / "m.nern")
    loaded.check_original(original)
    with pytest.raises(DataError, match="not the weights that the representation was made from"):
        loaded.check_original(network(seed=1))


# -- bad files -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("artifact") / "m.nern"
    make()[0].save(path)
    return path


@pytest.mark.parametrize("seed", range(3))
def test_every_flipped_bit_and_every_cut_is_noticed(tmp_path: Path, whole: Path, seed: int) -> None:
    content, draw = whole.read_bytes(), random.Random(seed)
    header = 8 + int.from_bytes(content[:8], "little")
    registry = create_registry(entry_points=False)
    for attempt in range(200):
        damaged = bytearray(content)
        if attempt % 5 == 0:
            damaged = damaged[: draw.randrange(len(damaged))]
        else:  # half of the flips fall into names and options
            damaged[draw.randrange(header if attempt % 2 else len(damaged))] ^= 1 << draw.randrange(8)
        (tmp_path / "d.nern").write_bytes(damaged)
        with pytest.raises(ArtifactError) as caught:
            nern.load(tmp_path / "d.nern", registry)
        assert "d.nern" in str(caught.value)
        assert "\n" not in str(caught.value)


def resealed(whole: Path, path: Path, change: object = None, tensors: dict[str, Tensor] | None = None) -> Path:
    """The file with changed metadata or tensors and a checksum that fits again."""
    with safe_open(str(whole), "pt") as file:
        about = json.loads(file.metadata()["nern"])
        kept = {name: file.get_tensor(name) for name in file.keys()} | (tensors or {})  # noqa: SIM118
    if callable(change):
        change(about)
    about.pop("sha256")
    about = {"sha256": layout.seal(about, kept), **about}
    save_file(kept, str(path), {"nern": json.dumps(about)})
    return path


def test_a_copy_with_a_new_checksum_is_read(tmp_path: Path, whole: Path) -> None:
    assert same(nern.load(resealed(whole, tmp_path / "m.nern")).reconstruct().state_dict(), nern.load(whole).reconstruct().state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda about: about.update(version=99), r"has format version 99, this nern reads up to \d+; update nern"),
        (lambda about: about["predictor"].update(name="other:mlp"), r"needs a plugin: .*'other'.*install the package"),
        (lambda about: about["architecture"].update(depth=14), "names or shapes differ"),
        (lambda about: about["predictor"].update(hidden=9), "does not fit its own predictor"),
        (lambda about: about["predictor"].update(hidden=-9), r"predictor: hidden: must be >= 1"),
        (lambda about: about.pop("orders"), "was not written by nern"),
        (lambda about: about.update(orders=[["sideways", 7]]), "was not written by nern"),
    ],
    ids=["newer", "plugin", "architecture", "size", "value", "missing", "order"],
)
def test_a_file_that_does_not_fit_says_why(tmp_path: Path, whole: Path, change: object, message: str) -> None:
    with pytest.raises(ArtifactError, match=message) as caught:
        nern.load(resealed(whole, tmp_path / "m.nern", change))
    assert str(tmp_path / "m.nern") in str(caught.value)


def test_an_ordering_that_is_no_permutation_is_refused(tmp_path: Path, whole: Path) -> None:
    ordering = load_file(str(whole))["ordering"]
    for wrong, message in ((torch.zeros_like(ordering), "not a permutation"), (ordering[:-2], "too short")):
        with pytest.raises(ArtifactError, match=message):
            nern.load(resealed(whole, tmp_path / "m.nern", tensors={"ordering": wrong}))


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    save_file(network().state_dict(), str(tmp_path / "weights.safetensors"))
    with pytest.raises(ArtifactError, match="no representation written by nern"):
        nern.load(tmp_path / "weights.safetensors")
    save_file({"x": torch.zeros(1)}, str(tmp_path / "odd.nern"), {"nern": "[1, 2]"})
    with pytest.raises(ArtifactError, match="was not written by nern"):
        nern.load(tmp_path / "odd.nern")
    torch.save(network().state_dict(), tmp_path / "weights.pt")
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("not a network")
    with pytest.raises(ArtifactError, match=r"weights\.pt looks like a file of weights, not like a representation"):
        nern.load(tmp_path / "weights.pt")
    for name in ("empty", "text"):
        with pytest.raises(ArtifactError, match=f"{name} is not a complete representation file"):
            nern.load(tmp_path / name)


def test_loading_executes_nothing(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is unpickled, and nothing is imported that the file names: names are looked up in the registry."""

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("loading must not do this")

    registry = create_registry(entry_points=False)
    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(module, name, refuse)
    nern.load(whole, registry).reconstruct()
    with pytest.raises(ArtifactError, match="needs a plugin"):
        nern.load(resealed(whole, tmp_path / "m.nern", lambda about: about["predictor"].update(name="os.path:mlp")), registry)


# -- where it is written ---------------------------------------------------------------------------------------------


def test_a_missing_folder_is_named_and_an_old_file_is_kept(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = nern.load(whole)
    with pytest.raises(ArtifactError, match=r"cannot write .*m\.nern \(No such file or directory\)"):
        loaded.save(tmp_path / "nowhere" / "m.nern")
    shutil.copy(whole, tmp_path / "m.nern")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ArtifactError, match=r"cannot write .*m\.nern \(No space left on device\); free space or name another file"):
        make()[0].save(tmp_path / "m.nern")
    assert (tmp_path / "m.nern").read_bytes() == whole.read_bytes()
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.nern"]


def test_a_path_that_is_no_file_is_called_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    wrong = {
        tmp_path / "mine.nern": "there is no representation file and no run folder called",
        tmp_path / ("n" * 400): "there is no representation file and no run folder called",
        tmp_path / "a\0b": "there is no representation file and no run folder called",
        tmp_path / "folder": "is a folder, but not that of a run",
    }
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        wrong[tmp_path / "pipe"] = "is no ordinary file, but a pipe"
    for path, message in wrong.items():
        with pytest.raises(ArtifactError, match=message):
            nern.load(path)
