"""A training step never makes the host wait for the device; checked on a CPU that plays the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from nern import Engine
from nern.registry.discovery import create_registry
from nern.support.files import write_tensors
from nern.toolkit.images import upload
from nern.training.step import PhaseTrainer

#: Calls that need a value, or a number of values, that only the device knows.
WAITING = {"__bool__", "__float__", "__int__", "__index__", "__contains__", "item", "tolist", "numpy", "cpu", "nonzero",
           "masked_select", "unique", "unique_consecutive", "equal", "allclose", "bincount", "argwhere"}  # fmt: skip
UPLOADING = {"tensor", "as_tensor", "scalar_tensor", "from_numpy"}


class Waits(AssertionError):
    """The host would wait."""


class Pretence(TorchFunctionMode):
    """Tells tensors of the host from those of the device, and refuses what would make the host wait.

    A tensor is on the device unless it was made without naming a device, or only from such tensors.
    """

    def __init__(self) -> None:
        super().__init__()
        self.strict = True
        self.host: dict[int, Tensor] = {}  # keeps them alive, so that an id stays theirs

    def on_host(self, value: Any) -> bool:
        return id(value) in self.host

    def __torch_function__(self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.strict:
            self.check(function, args, kwargs)
        result = function(*args, **kwargs)
        if device_of(args, kwargs) is None and all(map(self.on_host, tensors((args, kwargs)))):
            self.host.update((id(value), value) for value in tensors(result))
        return result

    def check(self, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
        name = getattr(function, "__name__", str(function))
        on_device = [value for value in tensors((args, kwargs)) if not self.on_host(value)]
        device = device_of(args, kwargs)
        if name in WAITING and on_device:
            raise Waits(f"{name} of a tensor on the device")
        if name in UPLOADING and device is not None:
            raise Waits(f"torch.{name} with a device copies and waits; use nern.toolkit.images.upload")
        if name == "to" and device is not None and not on_device and not kwargs.get("non_blocking"):
            raise Waits("a copy to the device that is not non_blocking")
        if name in ("__getitem__", "__setitem__", "index_put", "index_put_"):
            masks = [value for value in tensors(args[1]) if value.dtype == torch.bool and not self.on_host(value)]
            if masks:
                raise Waits(f"{name} with a mask has a size that only the device knows")


def device_of(args: Any, kwargs: Any) -> Any:
    """The device that a call names, or None; code that writes "cpu" means the host."""
    named = kwargs.get("device") or next((value for value in args[1:] if isinstance(value, torch.device)), None)
    return None if named == "cpu" and isinstance(named, str) else named


def tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item)
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))


def test_the_pretence_finds_what_waits() -> None:
    device = torch.device("cpu")
    values = torch.ones(3)
    with Pretence():
        assert float(torch.ones(3)[0]) == 1  # of the host
        assert len(torch.arange(4)[torch.arange(4) > 1]) == 2
        assert values[upload(torch.tensor([0, 1]), device)].shape == (2,)
        for waiting in (
            lambda: float(values[0]),
            lambda: bool(values[0] > 0),
            lambda: values[values > 0],
            lambda: (values > 0).nonzero(),
            lambda: torch.tensor([1.0], device=device),
            lambda: torch.arange(3).to(device),
            lambda: torch.zeros(1, device=device).item(),
        ):
            with pytest.raises(Waits):
                waiting()


SAMPLERS = [entry.name for entry in create_registry(entry_points=False).entries("sampler")]
OPTIMIZERS = [entry.name for entry in create_registry(entry_points=False).entries("optimizer")]
TASKS = {"digits": {"name": "digits"}, "uniform-noise": {"name": "uniform-noise"}, "normal-noise": {"name": "normal-noise"}}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("weights") / "random.safetensors"
    write_tensors(file, Engine.from_yaml("digits", {"architecture.shortcut": "B"}).source.build().state_dict())
    return str(file)


def steps_without_waiting(weights: str, storage: str = "float32", **phase: Any) -> None:
    joint = {
        "iterations": 9, "batch": 8, "clip": 1.0, "sampler": {"name": "all"}, "optimizer": {"name": "adamw"},
        "losses": {"reconstruction": {}, "kd": {"weight": 0.5}, "fmd": {"weight": 0.1}}, **phase,
    }  # fmt: skip
    # 1 × 1 shortcuts beside 3 × 3 kernels: kernels of two sizes
    overrides = {"architecture.weights": weights, "architecture.shortcut": "B", "pretrain": None, "precision": "float32", "phases": [joint]}
    overrides["storage"] = storage
    engine = Engine.from_yaml("digits", overrides)
    (section,) = engine.experiment.phases
    inputs = engine._open(section.inputs or engine.experiment.task).inputs(section.batch, 0, engine.device)
    assert section.losses and section.sampler and section.optimizer
    trainer = PhaseTrainer(engine._context(engine._prepare()), section, section.losses, section.sampler, section.optimizer, inputs, 0)
    with Pretence() as pretence:
        pretence.strict = False
        trainer.step(0)  # optimisers make their state, constants are uploaded
        pretence.strict = True
        for step in range(1, 6):  # Lookahead's slow step is among them
            trainer.step(step)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_sampler_makes_the_host_wait(weights: str, sampler: str) -> None:
    steps_without_waiting(weights, sampler={"name": sampler})


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_no_optimiser_makes_the_host_wait(weights: str, optimizer: str) -> None:
    if optimizer != "ranger":
        steps_without_waiting(weights, optimizer={"name": optimizer})
    else:
        steps_without_waiting(weights, optimizer={"name": optimizer, "k": 3})


@pytest.mark.parametrize("task", TASKS)
def test_no_inputs_make_the_host_wait(weights: str, task: str) -> None:
    steps_without_waiting(weights, inputs=TASKS[task])


@pytest.mark.parametrize("fmd", ["squared", "norm", "batch", "similarity"])
def test_no_distillation_makes_the_host_wait(weights: str, fmd: str) -> None:
    steps_without_waiting(weights, losses={"fmd": {"form": fmd}, "kd": {"form": "stable"}})


@pytest.mark.parametrize("form", ["rms", "norm", "mse"])
def test_no_reconstruction_makes_the_host_wait(weights: str, form: str) -> None:
    steps_without_waiting(weights, losses={"reconstruction": {"form": form}}, sampler={"name": "magnitude", "batch": 64})


@pytest.mark.parametrize("storage", ["float16", "int8", "int4"])
def test_no_storage_makes_the_host_wait(weights: str, storage: str) -> None:
    steps_without_waiting(weights, storage)


def test_images_stay_bytes_until_a_step_wants_them() -> None:
    data = Engine.from_yaml("digits", {})._open(Engine.from_yaml("digits", {}).experiment.task)
    inputs = data.inputs(8, 0, torch.device("cpu"))
    (held,) = data._on.values()
    assert held.dtype == torch.uint8
    assert inputs(0).dtype == torch.float32
