"""Checks that the file of a run, written before anything is trained, holds what is written into it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from nern.artifact.artifact import Artifact
from nern.artifact.reading import load
from nern.errors import ConfigError
from nern.interfaces import Architecture
from nern.networks.state_dicts import same_bits
from nern.registry.blame import blamed
from nern.representation.entropy import is_coded
from nern.support.contracts import ContractError, broken
from nern.support.messages import first_line

FEW = 4  # kernels that are predicted from the file


@torch.no_grad()
def check_file(artifact: Artifact, folder: Path) -> None:
    """Write the file of a representation that is not trained yet, read it back, and compare everything in it.

    An entry that cannot be read back now could not be read back after hours of training either. Only a few kernels are predicted,
    since predicting all of a large network takes minutes; the network's entries are compared with zeros in their place.

    Args:
        folder: the folder of the temporary file.

    Raises:
        ConfigError: an entry is different after reading; the message names it.
        OSError: the folder cannot be written.
    """
    path = folder / ".untrained.nern.tmp"
    try:
        artifact.write(path)
        read = load(path, artifact.registry)
        if set(artifact.architecture.private) - set(Architecture.private):  # the file does not hold what builds such a network
            read.built_by(artifact.architecture)
        read.representation.predict(read.representation.first_rows(FEW))
        weights = read.representation.weights(torch.zeros(read.representation.grid.weights))
        _compare(artifact, read, [read.entries_with(weights), read.network_with(weights).state_dict()])
    except (OSError, ContractError):
        raise
    except Exception as error:  # a plugin's component, or a type that no file can hold, can raise anything
        reason = blamed(error) or first_line(error).replace(str(path), "the file")
        raise ConfigError(f"the run's file could not be read back: {reason}") from error
    finally:
        path.unlink(missing_ok=True)


def _compare(artifact: Artifact, read: Artifact, states: Sequence[Mapping[str, Tensor]]) -> None:
    """Raise ValueError with the name of the first entry that is different after reading.

    Args:
        states: state dicts of the network that was read.
    """
    copied = artifact.copied_entries()
    for entry in artifact.entries:
        for tensors in states:
            value = tensors.get(entry.name)
            if value is None or value.dtype != entry.dtype or tuple(value.shape) != entry.shape:
                raise ValueError(f"'{entry.name}' comes back with another name, shape or type")
            if entry.name in copied and not same_bits(value, copied[entry.name]):
                raise ValueError(f"'{entry.name}' comes back with other values")
    before, after = artifact.representation, read.representation
    if before.base is not None and not list(before.base.parameters()):
        rows = torch.arange(min(4, before.grid.rows))
        if not torch.allclose(after.added(rows), before.added(rows.to(before.device)).cpu(), rtol=1e-3, atol=1e-6):
            problem = "what forward(rows) needs must come back with load_state_dict(), and the base that is read back adds other numbers"
            raise broken(artifact.base, "base", problem, before.base)
    if is_coded(before):  # entropy coding rounds in its own way, which decoding checks
        return
    numbers = {name for name, _ in before.named_parameters(remove_duplicate=False)}  # shared parameters under each of their names
    own, other = before.state_dict(), after.state_dict()
    for name, value in own.items():
        if name.startswith("copies."):  # trained copies were compared among the copied entries above
            continue
        expected = before.storage.rounded(value) if name in numbers else value
        if name not in other or not torch.equal(other[name].to(expected.dtype), expected.cpu()):
            raise ValueError(f"'{name}' of the predictor or its embedding comes back as another one")
