"""The state a run resumes from. Randomness is a function of seed and step, so the state is small."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from nern.errors import ArtifactError
from nern.support.files import write_object
from nern.support.messages import first_line


@attrs.define
class Checkpoint:
    """How far a run has come, and what it needs to be resumed from there."""

    phase: int  # index of the phase
    step: int  # steps done in that phase
    iteration: int  # steps done in all
    parameters: dict[str, Tensor]  # of the representation
    optimizers: list[dict[str, Any]]
    best: dict[str, Any] | None  # {"iteration", "key", "metrics", "parameters"} of the checkpoint chosen so far
    seconds: float  # spent training until here
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
        if state.pop("format", None) != "nern-checkpoint":
            raise ArtifactError(f"{path} is no checkpoint of nern; move it away to start the run anew")
        if state.pop("version", None) != 1:
            raise ArtifactError(f"checkpoint {path} was written by another version of nern; update nern to resume it")
        try:
            return cls(**state)
        except TypeError as error:
            raise ArtifactError(f"checkpoint {path} is not complete ({error}); move it away to start the run anew") from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The dictionary in a file that `torch.save` wrote, after comparing its checksums.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    try:
        with zipfile.ZipFile(path) as records:
            broken = records.testzip()
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ArtifactError(f"there is no checkpoint {path} to resume from") from error
    except Exception as error:  # a damaged pickle fails in any way
        raise ArtifactError(f"checkpoint {path} is damaged ({first_line(error)}); move it away to start the run anew") from error
    if broken is not None or not isinstance(state, dict):
        raise ArtifactError(f"checkpoint {path} is damaged ({broken or 'another content'}); move it away to start the run anew")
    return state
