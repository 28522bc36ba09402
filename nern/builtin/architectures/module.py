"""The user's own network: any torch module, passed in memory or built by a class or function."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs
import torch
from torch import Tensor, nn

from nern import Architecture, ConfigError, OptionError, Preprocessing, at_least, hookimpl, option
from nern.toolkit.architectures import DiscoveredArchitecture, duplicate, keep_exact, out_of_place
from nern.toolkit.files import write_tensors
from nern.toolkit.references import build_reference


@attrs.frozen
class OwnModule(DiscoveredArchitecture):
    """Any torch.nn.Module, which `build` names or which `nern.represent` passes in memory."""

    _build: str | None = option(
        None, help="class or function that builds the network: file.py:Class or package.module:function; null for a network in memory"
    )
    arguments: dict[str, Any] = option(factory=dict, help="arguments of that class or function")
    _layers: list[str] | Literal["convolutions", "all"] = option(
        "all", help="represented layers: all convolutions and linear layers, convolutions, or patterns of parameter names"
    )
    size: list[int] = option(factory=lambda: [3, 224, 224], help="shape of an input without the batch: channels, height, width")
    inputs: dict[str, list[int | str]] | None = option(
        None,
        help="shape and type of each argument of a network that takes several, or one that is no image: name or position, such as 0, to "
        "lengths without the batch and a type, such as [16, int64]; null for one input of the shape size",
    )
    mean: list[float] | None = option(None, help="mean of each channel of images in [0, 1]; null for 0.485, 0.456, 0.406, or 0.5")
    std: list[float] | None = option(None, help="standard deviation of each channel; null for 0.229, 0.224, 0.225, or 0.5")
    resize: int | None = option(None, help="shorter side of photographs before the crop, in pixels; null for none", check=at_least(1))
    interpolation: str = option("bilinear", help="how photographs are resized")
    network: str | None = option(None, help="name of the network's class, for messages")
    #: Options that a file does not hold: reading a file must never import the user's code.
    private: ClassVar[tuple[str, ...]] = (*Architecture.private, "build", "arguments")
    _module: nn.Module | None = attrs.field(default=None, init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        for name, described in (self.inputs or {}).items():
            lengths, types = [part for part in described if isinstance(part, int)], [part for part in described if isinstance(part, str)]
            if len(types) > 1 or any(not hasattr(torch, kind) for kind in types) or any(length < 1 for length in lengths):
                raise OptionError("inputs", f"'{name}' must be lengths above 0 and a type of torch, such as [16, int64], got {described}")
        names = list(self.inputs or {})
        if any(name.isdigit() for name in names) and names != [str(position) for position in range(len(names))]:
            raise OptionError("inputs", f"must be positions from 0 on or names, got {', '.join(names)}")

    def example_inputs(self, batch: int = 2) -> Any:
        if self.inputs is None:
            return super().example_inputs(batch)
        made = {
            name: torch.zeros(
                batch,
                *(part for part in described if isinstance(part, int)),
                dtype=next((getattr(torch, part) for part in described if isinstance(part, str)), torch.float32),
            )
            for name, described in self.inputs.items()
        }
        return tuple(made.values()) if "0" in made else made

    def hand_over(self, module: nn.Module) -> None:
        """Take `module`, which is in memory, as the network from now on."""
        object.__setattr__(self, "_module", module)

    @property
    def has_weights(self) -> bool:
        return self._module is not None or super().has_weights

    def build(self) -> nn.Module:
        if self._module is not None:
            return out_of_place(duplicate(self._module).cpu().float().requires_grad_(False))
        if self._build is None:
            raise ConfigError(
                f"nothing here says what builds this network ({self.network or 'a torch module'}): it was handed over in memory, or comes "
                "from a file, which names no code; continue in Python with nern.represent(model, …, resume=True), or say what builds it "
                "with architecture.build=file.py:Class, for nern export with --model"
            )
        return out_of_place(build_reference(self._build, self.arguments).float())

    def load(self, network: nn.Module) -> dict[str, torch.dtype]:
        if self._module is None:
            return super().load(network)
        state = self._state()
        keep_exact(network, state)
        return {name: value.dtype for name, value in state.items()}

    def keep(self, folder: Path) -> None:
        """Write the weights of a network in memory into the run's folder, so that the run can be resumed."""
        if self._module is not None:
            write_tensors(folder / "original.safetensors", self._state())

    def _state(self) -> dict[str, Tensor]:
        """The state dict of the network in memory, on the CPU, with the names that it has without `torch.compile`."""
        assert self._module is not None
        return {name.replace("_orig_mod.", ""): value.detach().cpu() for name, value in self._module.state_dict().items()}

    def preprocessing(self) -> Preprocessing:
        channels = self.size[0]
        mean = self.mean or ([0.485, 0.456, 0.406] if channels == 3 else [0.5] * channels)
        std = self.std or ([0.229, 0.224, 0.225] if channels == 3 else [0.5] * channels)
        return Preprocessing(tuple(mean), tuple(std), tuple(self.size), self.resize, self.interpolation)  # type: ignore[arg-type]


@hookimpl
def nern_architectures() -> Mapping[str, type[Architecture]]:
    return {"module": OwnModule}
