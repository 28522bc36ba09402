"""The state that a run resumes from. It is small, since everything random is a function of seed and step."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from nern.errors import ArtifactError, NernError
from nern.networks.weights_files import SHORTEST, plain
from nern.support.files import write_object
from nern.support.messages import first_line, shortened
from nern.training.optimizer_state import expect

#: Bytes that the tensors of any checkpoint may take, however short its file is.
LEAST = 1 << 24


@attrs.define
class Checkpoint:
    """The progress of a run, and the state from which it resumes."""

    phase: int  # index of the phase
    step: int  # steps done in that phase
    iteration: int  # steps done in all phases
    parameters: dict[str, Tensor]  # state dict of the representation
    optimizers: list[dict[str, Any]]
    best: dict[str, Any] | None  # {"iteration", "key", "metrics", "parameters"} of the checkpoint chosen so far
    seconds: float  # time spent so far
    originals: str  # SHA-256 of the original weights

    def save(self, path: Path) -> None:
        """Write the checkpoint to `path`; what `path` held before is replaced only when the new one is complete.

        Raises:
            OSError: it cannot be written; an older checkpoint stays.
        """
        state = {"format": "nern-checkpoint", "version": 1, **attrs.asdict(self, recurse=False)}
        write_object(path, state)

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read a checkpoint, without executing anything in it.

        Raises:
            ArtifactError: it is missing, damaged, or no checkpoint.
        """
        state = read_checkpoint(path)
        with belonging(path):
            kind, version = state.pop("format", None), state.pop("version", None)
            if not isinstance(kind, str) or kind != "nern-checkpoint":
                raise ArtifactError(f"{path} is no checkpoint of nern; move it away to start the run anew")
            if type(version) is not int or version != 1:
                raise ArtifactError(f"checkpoint {path} was written by another version of nern; update nern to resume it")
            try:
                checkpoint = cls(**state)
            except TypeError as error:
                raise ArtifactError(f"checkpoint {path} is not complete ({error}); move it away to start the run anew") from error
            checkpoint.check()
        return checkpoint

    def check(self) -> None:
        """Raise ValueError where a value has a wrong type or shape."""
        for name in ("phase", "step", "iteration"):
            expect(type(getattr(self, name)) is int and 0 <= getattr(self, name) < 1 << 62, f"'{name}' is no number of steps")
        expect(type(self.seconds) in (int, float) and 0 <= self.seconds < 1e15, "'seconds' is no time")
        expect(isinstance(self.originals, str), "'originals' is no checksum")
        expect(
            isinstance(self.optimizers, list) and all(isinstance(state, dict) for state in self.optimizers), "'optimizers' holds no states"
        )
        check_parameters(self.parameters, "parameters")
        best = self.best
        if best is None:
            return
        expect(isinstance(best, dict) and set(best) == {"iteration", "key", "metrics", "parameters"}, "'best' is no chosen checkpoint")
        expect(type(best["iteration"]) is int and 0 <= best["iteration"] <= self.iteration, "'best.iteration' is no step of the run")
        expect(isinstance(best["key"], list), "'best.key' is no list")
        expect(all(type(value) in (int, float) for value in best["key"]), "'best.key' holds no numbers")
        expect(isinstance(best["metrics"], dict), "'best.metrics' are no metrics")
        for name, value in best["metrics"].items():
            expect(isinstance(name, str) and type(value) in (int, float), "'best.metrics' are no metrics")
        check_parameters(best["parameters"], "best.parameters")
        chosen, latest = (
            {name: (value.shape, value.dtype) for name, value in one.items()} for one in (best["parameters"], self.parameters)
        )
        expect(chosen == latest, "'best.parameters' are of another predictor")


@contextmanager
def belonging(path: Path) -> Iterator[None]:
    """Turn any error while a checkpoint is loaded into a run into one line.

    Raises:
        ArtifactError: the checkpoint is damaged, or is another run's.
    """
    try:
        yield
    except NernError:
        raise
    except Exception as error:  # the state of another run can raise anything
        reason = shortened(first_line(error), 200)
        raise ArtifactError(f"checkpoint {path} is damaged or another run's ({reason}); move it away to start the run anew") from error


def check_parameters(parameters: Any, place: str) -> None:
    """Raise ValueError unless a value is a state dict of finite tensors on the CPU; `place` names it in the message."""
    expect(isinstance(parameters, dict) and len(parameters) > 0, f"'{place}' holds no parameters")
    for name, value in parameters.items():
        expect(isinstance(name, str) and isinstance(value, Tensor), f"'{place}' holds no parameters")
        expect(value.layout == torch.strided and value.device.type == "cpu", f"'{place}.{name}' is no plain tensor")
        expect(not value.is_floating_point() or bool(value.isfinite().all()), f"'{place}.{name}' is not finite")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The dictionary in a file that `torch.save` wrote, after comparing its checksums.

    Raises:
        ArtifactError: the file is missing or damaged, or declares more than it can hold.
    """
    try:
        with zipfile.ZipFile(path) as records:
            declared = sum(record.file_size for record in records.infolist())
            if declared > SHORTEST * path.stat().st_size:
                raise ValueError(f"it declares {declared:,} bytes of content")
            broken = records.testzip()
        state = torch.load(path, map_location="cpu", weights_only=True)
        _check_sizes(state, max(SHORTEST * path.stat().st_size, LEAST))
    except FileNotFoundError as error:
        raise ArtifactError(f"there is no checkpoint {path} to resume from") from error
    except Exception as error:  # a damaged pickle can raise anything
        reason = plain(error)
        raise ArtifactError(f"checkpoint {path} is damaged ({reason}); move it away to start the run anew") from error
    if broken is not None or not isinstance(state, dict):
        raise ArtifactError(f"checkpoint {path} is damaged ({broken or 'another content'}); move it away to start the run anew")
    return state


def _check_sizes(state: Any, most: int) -> None:
    """Raise ValueError where the tensors in nested containers take more than `most` bytes: a view can repeat a number without end."""
    waiting, seen, total = [state], set[int](), 0
    while waiting:
        value = waiting.pop()
        if id(value) in seen:  # containers may hold each other
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            total += value.numel() * value.element_size()
        elif isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, (list, tuple, set)):
            waiting.extend(value)
    if total > most:
        raise ValueError(f"its tensors declare {total:,} bytes")
