"""Exports a reconstructed network to the formats of other programs; each file is read back and compared before it is kept."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from nern.artifact.artifact import Artifact
from nern.errors import ArtifactError, ConfigError
from nern.networks.state_dicts import read_state_dict, write_state_dict
from nern.outputs.nested import call, map_tensors, tensors_of
from nern.support.files import write_atomically
from nern.support.messages import cannot_write, first_line
from nern.toolkit.optional import import_optional

TOLERANCE = 1e-3  # largest difference allowed between the outputs of file and network, relative to the largest output


@attrs.frozen
class Export:
    """A file that was exported, read back and compared."""

    path: str
    """The file that was written."""
    format: str
    """The file's format."""
    bytes: int
    """The file's size in bytes."""
    difference: float
    """Largest difference between the outputs of the file and of the reconstructed network, relative to the largest output."""


def export(source: Artifact, path: str | Path, network: nn.Module | None = None, inputs: Any = None) -> Export:
    """Write a reconstructed network as `.onnx`, `.pt2` (torch.export), `.safetensors`, `.pt` or `.pth`, and compare.

    ONNX and torch.export take the network with a batch of any size; the other formats hold the state dict.

    Args:
        network: a module to load the weights into, where the file cannot build the network.
        inputs: inputs [b, ...] with which the network is traced; by default zeros of its input size.

    Raises:
        ConfigError: the file's ending is none of these, or the network cannot be traced.
        ArtifactError: the file cannot be written, or its outputs differ from the network's.
        PluginError: onnx is not installed.
    """
    path = Path(path)
    if path.suffix in (".safetensors", ".pt", ".pth"):
        return _export_state(source, path)
    writers: dict[str, Callable[[nn.Module, Any, Path], Callable[[Any], Sequence[Tensor]]]] = {".onnx": _onnx, ".pt2": _pt2}
    if path.suffix not in writers:
        raise ConfigError(f"{path}: the file must end in .onnx, .pt2, .safetensors, .pt or .pth")
    if path.suffix == ".onnx":
        for module in ("onnx", "onnxscript", "onnxruntime"):
            import_optional(module, "export", "nern export")
    rebuilt = source.reconstruct() if network is None else _filled(source, network)
    rebuilt = rebuilt.float().cpu().eval()
    example = source.architecture.example_inputs(2) if inputs is None else inputs
    trial = map_tensors(_other, example)
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / path.name
        try:
            run = writers[path.suffix](rebuilt, example, written)
        except Exception as error:  # torch's exporters raise many kinds of errors
            raise ConfigError(f"{path}: torch cannot export this network ({type(error).__name__}: {first_line(error)})") from error
        with torch.no_grad():
            difference = _difference(tensors_of(call(rebuilt, trial)), run(trial))
        if not difference <= TOLERANCE:
            raise ArtifactError(f"{path}: the exported network differs from the reconstructed one by {difference:.2g}; it was not written")
        content = written.read_bytes()
    try:
        write_atomically(path, lambda file: file.write(content))
    except OSError as error:
        raise ArtifactError(cannot_write(path, error, "free space or name another file")) from error
    return Export(str(path), path.suffix[1:], len(content), difference)


def _other(values: Tensor) -> Tensor:
    """Values and a batch size other than in tracing, to see that neither has become a constant; integers are repeated ones."""
    if values.is_floating_point():
        return torch.randn(3, *values.shape[1:], generator=torch.Generator().manual_seed(0))
    return values[:1].repeat_interleave(3, dim=0)


def _arguments(example: Any) -> dict[str, Any]:
    """The shapes of inputs for torch's exporters: arguments in order or by name, each with a batch of any size."""
    batch = torch.export.Dim("batch")
    if isinstance(example, Mapping):
        return {"args": (), "kwargs": dict(example), "dynamic_shapes": {name: {0: batch} for name in example}}
    arguments = example if isinstance(example, tuple) else (example,)
    return {"args": arguments, "dynamic_shapes": tuple({0: batch} for _ in arguments)}


def _filled(source: Artifact, network: nn.Module) -> nn.Module:
    from nern.networks.state_dicts import fill

    return fill(network, source.state_dict(), "the representation")


def _export_state(source: Artifact, path: Path) -> Export:
    state = source.state_dict()
    write_state_dict(state, path)
    again = read_state_dict(path)
    if again.keys() != state.keys() or not all(torch.equal(again[name], value) for name, value in state.items()):
        raise ArtifactError(f"{path} does not hold what was written; write it again")
    return Export(str(path), path.suffix[1:], path.stat().st_size, 0.0)


def _pt2(network: nn.Module, example: Any, path: Path) -> Callable[[Any], Sequence[Tensor]]:
    program = torch.export.export(network, **_arguments(example))
    torch.export.save(program, path)
    again = torch.export.load(path).module()
    return lambda inputs: tensors_of(call(again, inputs))


def _onnx(network: nn.Module, example: Any, path: Path) -> Callable[[Any], Sequence[Tensor]]:
    import onnxruntime

    if isinstance(example, Mapping):
        names = list(example)
    else:
        names = [f"inputs{position}" for position in range(len(example))] if isinstance(example, tuple) else ["inputs"]
    torch.onnx.export(
        network, f=str(path), dynamo=True, external_data=False, verbose=False, input_names=names, **_arguments(example),
    )  # fmt: skip
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    named = [value.name for value in session.get_inputs()]

    def run(inputs: Any) -> Sequence[Tensor]:
        by_name = dict(zip(names, tensors_of(inputs), strict=True))  # an argument that the network does not use is left out
        return [torch.from_numpy(value) for value in session.run(None, {name: by_name[name].numpy() for name in named})]

    return run


def _difference(expected: Sequence[Tensor], given: Sequence[Tensor]) -> float:
    """Largest difference, relative to the largest expected output; infinite where shapes differ."""
    if [value.shape for value in expected] != [value.shape for value in given]:
        return float("inf")
    largest = max(float(value.abs().max()) for value in expected)
    return max(float((a - b).abs().max()) for a, b in zip(expected, given, strict=True)) / max(largest, 1e-12)
