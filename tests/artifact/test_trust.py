"""What a run made can be read back, and a file that somebody else made costs nothing but a line."""

from __future__ import annotations

import json
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import nern
from nern import ArtifactError, ConfigError, DataError, Engine, NernError
from nern.artifact import budget
from nern.artifact.artifact import Artifact
from nern.artifact.budget import TooMuch, bounded
from nern.artifact.layout import compact, seal
from nern.artifact.reading import load
from nern.networks.state_dicts import same_bits
from nern.registry.discovery import create_registry
from nern.registry.registry import Registry
from nern.studies.opening import evaluate_file
from nern.testing import check_architecture
from nern.toolkit.architectures import DiscoveredArchitecture
from tests.conftest import SHARED

CASES = SHARED / "cases" / "hostile" / "artifact"


class Net(nn.Module):
    """A convolution behind a buffer that no state dict holds, and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1), persistent=False)
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.bn(self.conv(x - self.shift)).relu().mean((2, 3)))
        return logits


@attrs.frozen
class Own(DiscoveredArchitecture):
    """A network of this test."""

    def build(self) -> nn.Module:
        return Net()


class Plugin:
    @nern.hookimpl
    def nern_architectures(self) -> Mapping[str, type]:
        return {"own": Own}


@pytest.fixture
def registry() -> Registry:
    registry = create_registry(entry_points=False)
    registry.register(Plugin(), "own")
    return registry


EXPERIMENT: dict[str, Any] = {
    "task": "uniform-noise", "predictor": {"name": "mlp", "hidden": 8}, "smoother": "none", "losses": {"reconstruction": {}},
    "phases": [{"iterations": 2}], "heldout": 0.0, "observers": None, "device": "cpu",
}  # fmt: skip


def engine(registry: Registry, folder: Path, weights: Path, **more: Any) -> Engine:
    from nern.config.structuring import structure

    values = {**EXPERIMENT, "architecture": {"name": "own", "weights": str(weights)}, "output": str(folder), **more}
    return Engine(structure(values, registry), registry)


def state_of_types() -> dict[str, Tensor]:
    """A state dict whose copied entries have types that float32 cannot hold."""
    torch.manual_seed(0)
    state = Net().state_dict()
    state["fc.weight"] = state["fc.weight"].double() + 1e-13
    state["fc.bias"] = torch.arange(10, dtype=torch.int8)
    state["bn.weight"] = state["bn.weight"].to(torch.float8_e4m3fn)
    state["bn.bias"] = state["bn.bias"].bfloat16()
    state["bn.running_mean"] = torch.tensor([2**40 + 1, 2, 3, 4])
    state["conv.weight"] = state["conv.weight"].half()
    return state


def test_copied_entries_come_back_bit_for_bit_in_every_type(registry: Registry, tmp_path: Path) -> None:
    state = state_of_types()
    torch.save(state, tmp_path / "w.pth")
    fitted = engine(registry, tmp_path / "run", tmp_path / "w.pth")
    fitted.fit()
    for artifact in (fitted.artifact, load(tmp_path / "run" / "model.nern", registry)):
        for rebuilt in (artifact.state_dict(), artifact.reconstruct().state_dict()):
            assert list(rebuilt) == list(state)
            for name, value in state.items():
                assert rebuilt[name].dtype == value.dtype
                assert name == "conv.weight" or same_bits(rebuilt[name], value), name
    network = load(tmp_path / "run" / "model.nern", registry).reconstruct()
    assert torch.equal(network.shift, Net().shift)  # type: ignore[arg-type]
    artifact.save(tmp_path / "again.nern")
    assert same_bits(load(tmp_path / "again.nern", registry).state_dict()["fc.weight"], state["fc.weight"])


@pytest.mark.parametrize(
    ("name", "dtype", "said"), [("conv.weight", torch.int8, "'conv.weight' is represented and of torch.int8")], ids=["represented"]
)
def test_what_cannot_come_back_is_refused_before_the_first_step(
    name: str, dtype: torch.dtype, said: str, registry: Registry, tmp_path: Path
) -> None:
    state = Net().state_dict()
    torch.save({**state, name: (10 * state[name]).to(dtype)}, tmp_path / "w.pth")
    refused = engine(registry, tmp_path / "run", tmp_path / "w.pth")
    with pytest.raises(ConfigError, match=f"the run's file could not be read back: .*{said}"):
        refused.fit()
    assert not (tmp_path / "run").exists()  # so that the mended run can start there


def test_check_architecture_writes_a_file_and_reads_it_back() -> None:
    check_architecture(Own())

    @attrs.frozen
    class Counting(Own):
        """A network with a buffer of a type that a copy cannot keep."""

        def build(self) -> nn.Module:
            network = Net()
            network.register_buffer("odd", torch.zeros(2, dtype=torch.complex64))
            return network

    check_architecture(Counting())


# -- files that somebody else made -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from nern.config.structuring import structure

    folder = tmp_path_factory.mktemp("honest")
    registry = create_registry(entry_points=False)
    architecture = {"name": "cifar-resnet", "depth": 8, "width": 2}
    torch.save(registry.find("architecture", "cifar-resnet").cls(depth=8, width=2).build().state_dict(), folder / "w.pth")
    values = {**EXPERIMENT, "architecture": {**architecture, "weights": str(folder / "w.pth")}, "output": str(folder / "run")}
    Engine(structure(values, registry), registry).fit()
    return folder / "run" / "model.nern"


def resealed(source: Path, target: Path, change: Any) -> Path:
    """A copy with a changed content and a checksum that fits it, as anybody can make one."""
    with safe_open(str(source), "pt") as file:
        tensors, about = {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["nern"])  # noqa: SIM118
    del about["sha256"]
    change(about, tensors)
    save_file(tensors, target, {"nern": compact({"sha256": seal(about, tensors), **about})})
    return target


def put(*path: Any) -> Any:
    """A change of one value of the metadata: the keys that lead to it, and the value."""

    def change(about: Any, tensors: dict[str, Tensor]) -> None:
        *parents, last, value = path
        for key in parents:
            about = about[key]
        about[last] = value

    return change


HOSTILE = {
    "hidden": put("predictor", "hidden", 20_000), "layers": put("predictor", "layers", 10**9),
    "hidden text": put("predictor", "hidden", "x"),
    "frequencies": put("embedding", "frequencies", 10**9), "width": put("architecture", "width", 4000),
    "depth": put("architecture", "depth", 6002),
    "orders": put("orders", [["none", 10**12]]), "orders of 9": put("orders", [["none", 9.0]]), "kind": put("orders", [["x", 7]]),
    "base": put("embedding", "base", [1]), "dtypes": put("dtypes", {"linear.bias": "nn"}), "int": put("dtypes", {"conv1.weight": "int8"}),
    "notes": put("notes", []), "version": put("version", None), "sampling": put("sampling", {}), "storage": put("storage", "int99"),
    "name": put("architecture", "name", 3), "architecture": put("architecture", []),
    "nested": put("notes", json.loads("[" * 500 + "]" * 500)),
    "no predictor": lambda about, tensors: tensors.pop("predictor.last.bias"),
    "shape": lambda about, tensors: tensors.update({"predictor.last.bias": torch.zeros(0)}),
    "copied": lambda about, tensors: tensors.update({"copied.float32": tensors["copied.float32"][:-1]}),
    "column": lambda about, tensors: tensors.update({"copied.float32": tensors["copied.float32"].reshape(-1, 1)}),
    "more copied": lambda about, tensors: tensors.update({"copied.float16": torch.zeros(3).half()}),
    "ordering": lambda about, tensors: tensors.update(ordering=torch.zeros(3)),
    "integers": lambda about, tensors: tensors.update({"predictor.last.bias": tensors["predictor.last.bias"].long()}),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_gives_a_short_error_and_takes_little_memory(name: str, honest: Path, tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    file = resealed(honest, tmp_path / "m.nern", HOSTILE[name])
    with pytest.raises((ArtifactError, DataError)) as caught:
        load(file)
        evaluate_file(file)
    assert len(str(caught.value)) < 600 and "\n" not in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # KiB


def test_an_honest_file_with_a_new_checksum_is_read(honest: Path, tmp_path: Path) -> None:
    artifact = load(resealed(honest, tmp_path / "m.nern", lambda about, tensors: None))
    assert isinstance(artifact, Artifact) and set(artifact.state_dict()) == set(artifact.reconstruct().state_dict())


@pytest.mark.parametrize("task", [{"name": "cifar10", "download": True}, {"name": "image-folder"}])
def test_a_file_names_no_folder_and_fetches_nothing(
    task: dict[str, Any], honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = resealed(honest, tmp_path / "m.nern", put("notes", {"task": {**task, "root": str(tmp_path / "made")}}))
    with pytest.raises(DataError, match=r"task\.root is missing"):
        evaluate_file(file)
    assert [path.name for path in tmp_path.iterdir()] == ["m.nern"]
    weights = resealed(honest, tmp_path / "n.nern", put("architecture", "weights", "/etc/passwd"))
    assert load(weights).architecture.weights is None


def test_memory_is_counted_before_it_is_taken(tmp_path: Path) -> None:
    for make in (
        lambda: torch.randn(10**9, 3), lambda: torch.arange(10**10), lambda: nn.Linear(10**5, 10**5),
        lambda: torch.ones(1).expand(10**9).clone(),
        lambda: torch.zeros(10**5)[:, None] * torch.zeros(10**6), lambda: torch.randperm(10**10), lambda: torch.zeros(9).repeat(10**9),
        lambda: torch.addmm(torch.zeros(1), torch.zeros(10**5, 1), torch.zeros(1, 10**5)),
        lambda: torch.zeros(10**4, 9, 1) @ torch.zeros(10**4, 1, 10**4),
        lambda: torch.zeros(1).new_zeros(10**5, 10**5), lambda: nn.functional.pad(torch.zeros(1, 1), (0, 10**5, 10**5, 0)),
    ):  # fmt: skip
        with pytest.raises(TooMuch), bounded(1000, "it"):
            make()
    with bounded(1000, "it"):
        assert Net()(torch.zeros(1, 3, 8, 8)).shape == (1, 10)


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x @ x[0].T, lambda x: torch.bmm(x, x.mT), lambda x: torch.addmm(x[0, 0, :3], x[0], x[1].T), lambda x: x.sum(0),
        lambda x: torch.baddbmm(x[:, :, :1], x, x.mT), lambda x: x.new_full((2, 5), 1.0), lambda x: x.amax([1, 2]),
        lambda x: nn.functional.pad(x, (1, 2, -1, 3)), lambda x: x.norm(), lambda x: nn.functional.linear(x.expand(4, 2, 3, 5), x[0]),
    ],
)  # fmt: skip
def test_the_budget_of_an_operation_is_at_least_what_it_gives(operation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    known = budget._bytes_of_result
    monkeypatch.setattr(budget, "_bytes_of_result", lambda *given: asked.append(known(*given[:-1], most=0)) or 0)
    with bounded(1000, "it"):
        output = operation(torch.ones(2, 3, 5))
    assert output.numel() * output.element_size() <= max(asked) <= 16 * 120


@pytest.mark.skipif(not CASES.is_dir(), reason="needs ../shared/cases/hostile")
def test_hostile_files_give_short_errors() -> None:
    registry = create_registry(entry_points=False)
    for file in sorted(CASES.glob("*.nern")):
        if "pred-HANG" in file.name or file.name == "bomb-layers.nern":  # some seconds each
            continue
        try:
            load(file, registry).reconstruct()
            evaluate_file(file, [], registry)
        except NernError as error:
            assert len(str(error)) < 600
