"""A file gives its state dict wherever it is read: without the network's class, its plugin, or more than five packages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import attrs
import pytest
import torch
from safetensors import safe_open
from torch import nn

import nern
from nern.artifact import layout
from nern.artifact.artifact import Artifact
from nern.artifact.entries import entries_of, pack_entries, unpack_entries
from nern.builtin.architectures.timm import Timm
from nern.builtin.embeddings.learned import Learned
from nern.builtin.predictors.mlp import MLP
from nern.errors import ArtifactError, DataError
from nern.interfaces import Architecture
from nern.kernels.coordinates import KernelGrid
from nern.kernels.orders import Unordered
from nern.networks.state_dicts import digest
from nern.registry.discovery import create_registry
from nern.representation.assembling import assemble
from tests.helpers import same

PLUGIN = """
from collections.abc import Mapping
import attrs
from torch import nn
import nern
from nern.toolkit.architectures import DiscoveredArchitecture

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.one, self.two = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.two.weight = self.one.weight
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 4)
    def forward(self, x):
        return self.head(self.norm(self.two(self.one(self.stem(x)).relu())).mean((2, 3)))

@attrs.frozen
class Own(DiscoveredArchitecture):
    def build(self):
        return Tied()
    def preprocessing(self):
        return nern.Preprocessing((0.5,), (0.5,), (1, 8, 8))

@nern.hookimpl
def nern_architectures() -> Mapping[str, type[nern.Architecture]]:
    return {"own": Own}
"""

BLOCKED = """
import sys
ALLOWED = {"nern", "torch", "numpy", "safetensors", "attr", "attrs", "pluggy"}
BEFORE = set(sys.modules)
import torch, numpy, safetensors.torch, attrs, pluggy
OF_THESE = {name.split(".")[0] for name in sys.modules}
class Block:
    def find_spec(self, name, path=None, target=None):
        first = name.split(".")[0]
        if first not in ALLOWED | OF_THESE | set(sys.stdlib_module_names):
            raise ImportError(f"blocked: {name}")
        return None
sys.meta_path.insert(0, Block())
for name in [name for name in sys.modules if name.split(".")[0] in ("yaml", "cattrs", "rich", "scipy", "sklearn", "click")]:
    raise AssertionError(f"torch itself imports {name}")
import nern
artifact = nern.load(sys.argv[1])
state = artifact.state_dict()
print(len(state), float(sum(value.double().sum() for value in state.values())))
"""


def made(architecture: Architecture, registry: nern.Registry, chosen: str = "convolutions") -> Artifact:
    torch.manual_seed(0)
    architecture = attrs.evolve(architecture, layers=chosen)
    network = architecture.build().eval()
    grid = KernelGrid(tuple(architecture.layers(network)))
    embedding, predictor = Learned(features=4), MLP(hidden=8)
    orders = [Unordered(layer.filters, layer.channels) for layer in grid.layers]
    representation = assemble(grid, orders, embedding, predictor).eval().requires_grad_(False)
    dtypes = {name: value.dtype for name, value in network.state_dict().items()}
    sha256 = digest(network.state_dict())
    return Artifact(representation, architecture, embedding, predictor, network, dtypes, registry, sha256, {"task": {"name": "digits"}})


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("plugin") / "own_plugin.py"
    file.write_text(PLUGIN)
    return file


@pytest.fixture(scope="module")
def of_plugin(plugin: Path) -> Artifact:
    registry = create_registry([str(plugin)], entry_points=False)
    artifact: Artifact = made(registry.find("architecture", "own").cls(), registry, "all")
    return artifact


def test_the_state_dict_is_that_of_the_network(of_plugin: Artifact, plugin: Path, tmp_path: Path) -> None:
    of_plugin.save(tmp_path / "m.nern")
    without = nern.load(tmp_path / "m.nern").state_dict()
    expected = of_plugin.reconstruct().state_dict()
    assert list(without) == list(expected)
    assert same(without, expected)
    assert torch.equal(without["one.weight"], without["two.weight"])
    again = nern.load(tmp_path / "m.nern", plugins=[str(plugin)])
    assert same(again.reconstruct().state_dict(), expected)
    assert again.save(tmp_path / "again.nern").total == (tmp_path / "m.nern").stat().st_size
    assert (tmp_path / "again.nern").read_bytes() == (tmp_path / "m.nern").read_bytes()


def test_a_file_opens_where_the_architecture_now_maps_the_same_network_otherwise(tmp_path: Path) -> None:
    registry = create_registry(entry_points=False)
    before = made(Timm(model="resnet18", size=32, classes=4), registry, "convolutions")
    expected = before.reconstruct().state_dict()
    before._architecture = attrs.evolve(before.architecture, layers="all")  # tiles for its 1 x 1 kernels and its linear layer
    before.save(tmp_path / "m.nern")
    assert same(nern.load(tmp_path / "m.nern").reconstruct().state_dict(), expected)


def test_a_missing_plugin_is_named_when_a_module_is_asked_for(of_plugin: Artifact, tmp_path: Path) -> None:
    of_plugin.save(tmp_path / "m.nern")
    loaded = nern.load(tmp_path / "m.nern")
    for ask in (loaded.reconstruct, lambda: loaded.architecture):
        with pytest.raises(
            ArtifactError,
            match=r"m\.nern needs a plugin: .*own_plugin.*plugins=\['own_plugin\.py'\]; state_dict\(\) and load.* work without it",
        ):
            ask()


def test_weights_are_put_into_a_module_of_ones_own(of_plugin: Artifact, plugin: Path, tmp_path: Path) -> None:
    of_plugin.save(tmp_path / "m.nern")
    mine = type(of_plugin.network)().train()
    assert nern.load(tmp_path / "m.nern", into=mine) is mine
    assert not mine.training
    inputs = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mine(inputs), of_plugin.reconstruct()(inputs))
    with pytest.raises(DataError, match=r"m\.nern is of another network than this Linear: .*; it lacks stem\.weight, stem\.bias"):
        nern.load(tmp_path / "m.nern", into=nn.Linear(3, 4))


@pytest.mark.parametrize(
    "architecture", [Timm(model="resnet18", size=32, classes=4), Timm(model="vit_tiny_patch16_224", size=32, classes=4)], ids=["cnn", "vit"]
)
def test_loading_needs_five_packages(architecture: Architecture, tmp_path: Path) -> None:
    built = made(architecture, create_registry(entry_points=False), "all")
    built.save(tmp_path / "m.nern")
    process = subprocess.run(
        [sys.executable, "-c", BLOCKED, str(tmp_path / "m.nern")], capture_output=True, text=True, cwd=Path(nern.__file__).parents[1]
    )
    assert not process.returncode, process.stderr
    state = built.reconstruct().state_dict()
    count, total = process.stdout.split()
    assert int(count) == len(state)
    assert float(total) == pytest.approx(float(sum(value.double().sum() for value in state.values())), rel=1e-6)


def test_names_are_a_few_bytes_each_and_damaged_ones_are_refused(of_plugin: Artifact) -> None:
    grid = of_plugin.representation.grid
    entries = entries_of(of_plugin.network, grid, of_plugin.dtypes)
    packed = pack_entries(entries, grid)
    assert packed is not None
    assert unpack_entries(packed, "centre") == (entries, grid)
    for wrong in (packed[:-9], packed.flip(0), packed[:0]):
        with pytest.raises((ValueError, IndexError), match=r"names|JSON|Expecting"):
            unpack_entries(wrong, "centre")


def test_a_file_written_when_all_meant_convolutions_is_read_as_it_was_meant(tmp_path: Path) -> None:
    """Such a file has no names and says nothing of what `all` means."""
    import json

    from safetensors.torch import save_file

    built = made(Timm(model="resnet18", size=32, classes=4), create_registry(entry_points=False))
    built.save(tmp_path / "m.nern")
    with safe_open(str(tmp_path / "m.nern"), "pt") as file:
        about = json.loads(file.metadata()["nern"])
        tensors = {name: file.get_tensor(name) for name in file.keys() if name != layout.NAMES}  # noqa: SIM118
    about.pop("sha256")
    assert about["architecture"]["layers"] == "convolutions"
    about["architecture"]["layers"] = "all"
    save_file(tensors, str(tmp_path / "old.nern"), {"nern": json.dumps({"sha256": layout.seal(about, tensors), **about})})
    assert same(nern.load(tmp_path / "old.nern").reconstruct().state_dict(), built.reconstruct().state_dict())
