"""Makes an experiment from a network in memory and data: chooses everything that a recipe leaves open."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from nern.config.defaults import DEFAULTS
from nern.config.experiment import Experiment
from nern.config.overrides import parse_override
from nern.config.recipes import overridden, recipe
from nern.config.structuring import structure, structure_component
from nern.errors import ConfigError, DataError
from nern.interfaces import Preprocessing
from nern.kernels.coordinates import KernelGrid
from nern.networks.building import uncompiled
from nern.networks.copies import duplicate
from nern.networks.feature_maps import choose_feature_maps
from nern.networks.layers import map_layers
from nern.options import located
from nern.outputs.metric import Metric
from nern.outputs.metrics import FunctionMetric
from nern.outputs.nested import call, map_tensors, tensors_of
from nern.registry.discovery import create_registry
from nern.registry.registry import Registry
from nern.run.fitted_recipe import fitted
from nern.support.messages import first_line
from nern.toolkit.class_folders import class_folders, files_beside, has_class_folders
from nern.toolkit.given import Examples, TensorExamples, examples_of
from nern.toolkit.image_decoding import image_suffixes
from nern.toolkit.image_folders import TEST_FOLDERS
from nern.toolkit.references import reference_of

log = logging.getLogger("nern")

KEPT_BYTES = 1 << 26  # most bytes of examples in memory that are copied into the run's folder


@attrs.frozen
class OwnNetwork:
    """A network, its data, and all options of how it is represented."""

    model: nn.Module
    data: Any = None  # a loader, data set, tensor, (inputs, labels) or folder; None for noise
    test: Any = None  # examples to measure on at the end, in the same forms
    recipe: str = "fast"
    layers: str | Sequence[str] = "all"
    metric: Callable[[Any, Any], Any] | Metric | None = None
    size: Sequence[int] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    resize: int | None = None
    build: str | None = None
    arguments: Mapping[str, Any] | None = None
    steps: float = 1.0
    # The architecture component that built the model; None where the model only exists in memory
    described: Mapping[str, Any] | None = None

    def experiment(
        self, overrides: Mapping[str, Any] | Sequence[str] = (), registry: Registry | None = None, output: str | Path | None = None
    ) -> tuple[Experiment, Registry]:
        """The complete experiment, and the registry of its components.

        Raises:
            ConfigError: the network, the recipe or an override is impossible.
            DataError: the data are of no known kind, or the network cannot take them.
        """
        check_model(self.model)
        if not (self.metric is None or callable(self.metric) or isinstance(self.metric, Metric)):
            raise ConfigError(f"metric is a {type(self.metric).__name__}; give a function of outputs and labels, or a nern.Metric")
        if not 0 < self.steps < math.inf:
            raise ConfigError(f"steps must be above 0 and finite, got {self.steps}: it is a multiple of the recipe's steps")
        if not isinstance(overrides, Mapping):
            overrides = dict(parse_override(text) for text in overrides)
        registry = registry or create_registry()
        # What follows runs a copy, because forward passes may change buffers and other state
        with located("architecture"):
            experiment, given = attrs.evolve(self, model=uncompiled(duplicate(self.model)))._of_copy(overrides, registry, output)
        if hasattr(experiment.architecture, "hand_over"):
            experiment.architecture.hand_over(self.model)
        if given is not None and hasattr(experiment.task, "hand_over"):
            experiment.task.hand_over(*given, FunctionMetric(self.metric) if callable(self.metric) else self.metric)
        return experiment, registry

    def _of_copy(
        self, overrides: Mapping[str, Any], registry: Registry, output: str | Path | None
    ) -> tuple[Experiment, tuple[Examples, Examples | None] | None]:
        """The experiment, and the examples to train on and to test on, if there are any."""
        place = Path(output) if output is not None else Path("runs") / _free_name(type(self.model).__name__.lower())
        examples, test = self._examples(self.data), self._examples(self.test)
        architecture = self.described or self._architecture(examples, registry)
        values: dict[str, Any] = {
            **recipe(self.recipe), "architecture": architecture, "task": self._task(examples, test, place), "output": str(place),
        }  # fmt: skip
        for phase in values["phases"]:
            phase["iterations"] = max(1, round(phase["iterations"] * self.steps))
            if architecture.get("inputs") is not None:
                phase.pop("mix", None)  # integers, and inputs of several arguments, have no mixtures
        if values.get("storage") == "entropy" and self.steps < 1:
            batches: int = values.get("curvature_batches", attrs.fields(Experiment).curvature_batches.default)  # type: ignore[assignment]
            values["curvature_batches"] = max(2, round(batches * self.steps))
        if overrides.get("storage", values.get("storage")) == "entropy" and self.data is None:
            values.setdefault("curvature", "layers")
        values = fitted(values, *self._layers_and_maps(architecture, registry), self.model.state_dict(), overrides, registry)
        values = overridden(values, overrides, DEFAULTS)
        experiment = structure(values, registry, f"represent {type(self.model).__name__}")
        return experiment, None if examples is None else (examples, test)

    # -- the network ---------------------------------------------------------------------------------------------

    def _architecture(self, examples: Examples | None, registry: Registry) -> dict[str, Any]:
        known = (self.build, dict(self.arguments or {})) if self.build else reference_of(self.model)
        layers = self.layers if isinstance(self.layers, str) else list(self.layers)
        values: dict[str, Any] = {
            "name": "module", "build": known[0] if known else None, "arguments": known[1] if known else {}, "layers": layers,
            "size": self._size(examples), "inputs": self._inputs(examples), "network": type(self.model).__name__,
        }  # fmt: skip
        values |= {key: list(value) for key, value in (("mean", self.mean), ("std", self.std)) if value is not None}
        if isinstance(self.data, (str, Path)):
            values["resize"] = self.resize or usual_resize(values["size"][-1])
        structure_component("architecture", values, registry, "architecture")
        return values

    def _size(self, examples: Examples | None) -> list[int]:
        if self.described is not None and self.size is None:
            registry = create_registry(kinds=("architecture",))
            return list(structure_component("architecture", self.described, registry, "architecture").preprocessing().size)
        if examples is not None:
            return list(tensors_of(examples[torch.zeros(1, dtype=torch.int64)][0])[0].shape[1:]) or [1]
        if self.size is not None:
            return list(self.size)
        first = next((module for module in self.model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))), None)
        published = getattr(self.model, "pretrained_cfg", None) or {}
        if published.get("input_size"):
            return list(published["input_size"])
        if isinstance(first, nn.Linear):
            return [first.in_features]
        for side in (224, 32):
            size = [first.in_channels if first is not None else 3, side, side]
            if self._runs(size):
                return size
        raise ConfigError("what inputs the network takes cannot be guessed; give size=(channels, height, width), or data")

    def _inputs(self, examples: Examples | None) -> dict[str, list[int | str]] | None:
        """Shape and type of each argument, where there are several, or one of other numbers than an image has; else None."""
        inputs = None if examples is None else examples[torch.zeros(1, dtype=torch.int64)][0]
        if inputs is None or (isinstance(inputs, Tensor) and (inputs.is_floating_point() or inputs.dtype == torch.uint8)):
            return None
        named = inputs if isinstance(inputs, Mapping) else dict(enumerate(inputs if isinstance(inputs, tuple) else (inputs,)))
        dtypes = {name: torch.float32 if value.is_floating_point() else value.dtype for name, value in named.items()}
        return {str(name): [*value.shape[1:], str(dtypes[name]).removeprefix("torch.")] for name, value in named.items()}

    def _runs(self, size: Sequence[int]) -> bool:
        try:
            self._outputs(torch.zeros(1, *size))
        except Exception:
            return False
        return True

    @torch.no_grad()
    def _outputs(self, inputs: Any) -> Any:
        """The outputs in eval mode for inputs [b, ...]."""
        parameter = next(self.model.parameters(), tensors_of(inputs)[0])

        def placed(values: Tensor) -> Tensor:
            return values.to(parameter.device, parameter.dtype if values.is_floating_point() else values.dtype)

        return call(self.model.eval(), map_tensors(placed, inputs))

    def _layers_and_maps(self, architecture: Mapping[str, Any], registry: Registry) -> tuple[KernelGrid, Sequence[str]]:
        """The represented layers, and the names of the feature maps."""
        if self.described is not None:
            component = structure_component("architecture", self.described, registry, "architecture")
            return KernelGrid(tuple(component.layers(self.model))), component.features(self.model)
        inputs = structure_component("architecture", architecture, registry, "architecture").example_inputs()
        grid = self._grid(inputs)
        return grid, choose_feature_maps(self.model, grid.layers, inputs)

    def _grid(self, inputs: Any) -> KernelGrid:
        layers = map_layers(self.model, inputs, self.layers)  # type: ignore[arg-type]
        if not layers:
            what = "convolution" if self.layers == "convolutions" else "convolution or linear layer"
            raise ConfigError(f"{type(self.model).__name__} has no {what} that its forward pass calls: there is nothing to represent")
        return KernelGrid(tuple(layers))

    # -- the data ------------------------------------------------------------------------------------------------

    def _examples(self, data: Any) -> Examples | None:
        return None if data is None or isinstance(data, (str, Path)) else examples_of(data, argument_names(self.model))

    def _task(self, examples: Examples | None, test: Examples | None, place: Path) -> dict[str, Any]:
        if examples is None:
            return {"name": "uniform-noise"} if self.data is None else self._folder(Path(self.data))
        inputs, targets = examples[torch.arange(min(2, len(examples)))]
        bytes_ = isinstance(inputs, Tensor) and inputs.dtype == torch.uint8
        if test is not None:
            tested = test[torch.arange(1)][0]
            if bytes_ != (isinstance(tested, Tensor) and tested.dtype == torch.uint8):
                one, other = ("data", "test") if bytes_ else ("test", "data")
                raise DataError(f"the inputs of {one} are bytes (uint8) and those of {other} are not: give both in the same type")
        if bytes_ and (self.mean is None or self.std is None):
            raise DataError("the inputs are bytes (uint8): give mean and std of their channels in [0, 1], or normalised inputs")
        if bytes_:
            mean, std = tuple(self.mean or ()), tuple(self.std or ())
            inputs = Preprocessing(mean, std, tuple(inputs.shape[1:])).normalise(inputs)  # type: ignore[arg-type]
        try:
            outputs = self._outputs(inputs)
        except Exception as error:
            numbers = [value for value in tensors_of(inputs) if not value.is_floating_point()]
            way = "float32 inputs" if numbers else "inputs of the shape that it was trained on"
            raise DataError(f"the network cannot take the data: inputs {_shapes(inputs)} ({first_line(error)}); give it {way}") from error
        whole = isinstance(examples, TensorExamples) and isinstance(test, (TensorExamples, type(None)))
        size = sum(part.bytes for part in (examples, test) if isinstance(part, TensorExamples))
        root = str((place / "data.safetensors").absolute()) if whole and size <= KEPT_BYTES else None
        return {"name": "given", "root": root, "gives": outputs_kind(outputs, targets), "tested": 0.0 if test is not None else 0.1}

    def _folder(self, folder: Path) -> dict[str, Any]:
        """The task of a folder with training and test images, or of one with photographs in any layout.

        Raises:
            DataError: there is no such folder.
        """
        if not folder.is_dir():
            raise DataError(f"image folder {folder} {'is a file' if folder.is_file() else 'does not exist'}")
        inside = class_folders(folder)
        tests = [name for name in TEST_FOLDERS if name in inside]
        if "train" in inside and tests:
            labels = has_class_folders(folder / "train") and any(has_class_folders(folder / name) for name in tests)
            return {"name": "image-folder", "root": str(folder.absolute()), "augment": "none", **({} if labels else {"labels": False})}
        if inside in (["train"], *([name] for name in TEST_FOLDERS)) and not files_beside(folder):
            return self._folder(folder / inside[0])
        classes = self._classes(folder, inside)
        return {"name": "photographs", "root": str(folder.absolute()), "classes": "folders" if classes else "none"}

    def _classes(self, folder: Path, inside: Sequence[str]) -> bool:
        """Whether the folders are the network's classes: there are as many as the network has outputs, and no images beside them."""
        if len(inside) < 2 or any(file.suffix.lower() in image_suffixes() for file in files_beside(folder)):
            return False
        size = self._size(None)
        try:
            outputs = self._outputs(torch.zeros(1, *size))
        except Exception as error:
            shape = " × ".join(map(str, size))
            raise ConfigError(f"the network cannot take inputs of {shape} ({first_line(error)}); give another size") from error
        if not isinstance(outputs, Tensor) or outputs.dim() != 2:
            return False
        if outputs.shape[1] != len(inside):
            log.warning(
                "nern: %s holds %d folders and the network has %d outputs, so the folders are not its classes and accuracy is not "
                "measured; with train/ and test/ in it, task.classes names the class of each output", folder, len(inside), outputs.shape[1],
            )  # fmt: skip
            return False
        return True


def check_model(model: Any) -> None:
    """Raise ConfigError unless `model` is a network with weights."""
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model is a {type(model).__name__}; give a torch.nn.Module")
    if isinstance(model, torch.jit.ScriptModule):
        raise ConfigError("model is TorchScript, in which no weight can be replaced; give the torch.nn.Module that it was made from")
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if is_lazy(value):
            raise ConfigError(
                f"model has no values for '{name}' yet, which its first forward pass makes; run it once, then load its weights"
            )
        if value.device.type == "meta":
            raise ConfigError(f"model has no values for '{name}', which stands on the meta device; load its weights first")


def argument_names(model: nn.Module) -> list[str]:
    """Names of the arguments of a network's forward pass."""
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    return [parameter.name for parameter in parameters if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)]


def _shapes(inputs: Any) -> str:
    """Shapes of inputs, for messages: one, or those of several arguments."""
    if isinstance(inputs, Mapping):
        return ", ".join(f"{name} {list(value.shape)}" for name, value in inputs.items())
    return ", ".join(str(list(value.shape)) for value in tensors_of(inputs))


def usual_resize(side: int) -> int:
    """The usual length of the shorter side before a centre crop of `side` pixels, such as 256 for 224."""
    return math.floor(side / 0.875)


def outputs_kind(outputs: Any, targets: Tensor | None) -> str:
    """The kind of the network's outputs, as the task `given` calls it, judged by the outputs and their targets."""
    if not isinstance(outputs, Tensor):
        return "any"
    whole = targets is not None and not targets.is_floating_point()
    if targets is not None and targets.is_floating_point():
        return "numbers" if targets[0].numel() == outputs[0].numel() else "any"
    if outputs.dim() == 2 and (targets is None or targets.dim() == 1):
        return "numbers" if outputs.shape[1] == 1 else "classes"
    return "pixels" if whole and outputs.dim() >= 3 and targets is not None and targets.dim() == outputs.dim() - 1 else "any"


def _free_name(name: str) -> str:
    """`name`, or `name-2` and so on where `runs/` has such a folder already."""
    number, free = 1, name
    while (Path("runs") / free).exists():
        number += 1
        free = f"{name}-{number}"
    return free
