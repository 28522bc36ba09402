"""Entropy-coded parameters as streams of bytes, one for each section of the file.

A stream holds, for every parameter in turn, first the middle and the spread of each of its vectors of factors, then the
factors, then the integers themselves. Each part says how the next is distributed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from nern.artifact.entropy_coding import IntegerReader, encode_integers
from nern.errors import TrainingError
from nern.representation.entropy import CodedParameter, coded_parameters
from nern.representation.laplace import LARGEST, level_of

CODED = "(coded)"
HEAD = 15  # level (see `nern.representation.laplace`) at which middles and spreads are coded: a mean size of 20


def encode_coded(module: nn.Module) -> dict[str, Tensor]:
    """The coded parameters of a representation, uint8 by `section.(coded)`.

    Raises:
        TrainingError: a step or an integer is too large to be stored.
    """
    return {f"{section}.{CODED}": _bytes(_encoded(parameters)) for section, parameters in _sections(module).items()}


def decode_coded(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Undo `encode_coded`, into the coded parameters of a representation of the same shape.

    Raises:
        KeyError: a section is missing.
        ValueError: what is stored does not belong to this representation.
    """
    for section, parameters in _sections(module).items():
        _decode(_words(tensors[f"{section}.{CODED}"]), parameters)


def _sections(module: nn.Module) -> dict[str, list[CodedParameter]]:
    by_section: dict[str, list[CodedParameter]] = {}
    for parameter in coded_parameters(module):
        section = parameter.name.split(".")[0]
        by_section.setdefault("copied" if section == "copies" else section, []).append(parameter)
    return by_section


def _encoded(parameters: Iterable[CodedParameter]) -> np.ndarray:
    heads: list[int] = []
    factors: list[tuple[np.ndarray, np.ndarray]] = []
    integers: list[tuple[np.ndarray, np.ndarray]] = []
    before: dict[tuple[int, int], int] = {}
    for parameter in parameters:
        values, steps, levels = parameter.code.to_integers(parameter.latent)
        for kind, vectors in enumerate((steps, levels)):
            for axis, vector in enumerate(vectors):
                middle = int(vector.median())
                spread = level_of(vector - middle)
                heads += [middle - before.get((kind, axis), 0), spread]
                before[kind, axis] = middle
                factors.append(((vector - middle).numpy(), np.full(len(vector), spread)))
                if max(abs(heads[-2]), int((vector - middle).abs().max())) > LARGEST:
                    raise TrainingError(f"'{parameter.name}' has steps that differ too much to be stored; lower the learning rate")
        integers.append((values.numpy(), parameter.code.entry_levels(levels).reshape(-1).numpy()))
    head = np.array(heads, np.int64)
    return encode_integers((head, np.full(len(head), HEAD)), *(_joined(part) for part in (factors, integers)))


def _decode(words: np.ndarray, parameters: list[CodedParameter]) -> None:
    reader = IntegerReader(words)
    shapes = [[len(vector) for vector in (*parameter.code.steps, *parameter.code.levels)] for parameter in parameters]
    heads = reader.take(np.full(2 * sum(map(len, shapes)), HEAD)).reshape(-1, 2)
    sizes = [size for shape in shapes for size in shape]
    residuals = np.split(reader.take(np.repeat(heads[:, 1], sizes)), np.cumsum(sizes)[:-1])
    before: dict[tuple[int, int], int] = {}
    place, every = 0, []
    for parameter in parameters:
        pair: list[list[Tensor]] = []
        for kind in range(2):
            vectors = []
            for axis in range(len(parameter.code.steps)):
                before[kind, axis] = before.get((kind, axis), 0) + int(heads[place, 0])
                vectors.append(torch.from_numpy(residuals[place] + before[kind, axis]))
                place += 1
            pair.append(vectors)
        every.append(pair)
    levels = [parameter.code.entry_levels(pair[1]).reshape(-1).numpy() for parameter, pair in zip(parameters, every, strict=True)]
    values = np.split(reader.take(np.concatenate(levels)), np.cumsum([len(level) for level in levels])[:-1])
    reader.close()
    for parameter, (steps, factors), integers in zip(parameters, every, values, strict=True):
        latent = parameter.code.from_integers(torch.from_numpy(integers), steps, factors)
        if not bool(parameter.code(latent).isfinite().all()):
            raise ValueError(f"'{parameter.name}' has values that are not finite")
        with torch.no_grad():
            parameter.latent.copy_(latent)


def _joined(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([values for values, _ in parts]), np.concatenate([levels for _, levels in parts])


def _bytes(words: np.ndarray) -> Tensor:
    return torch.from_numpy(words.astype("<u4").view(np.uint8).copy())


def _words(stored: Tensor) -> np.ndarray:
    if stored.dtype != torch.uint8 or stored.dim() != 1 or stored.numel() % 4:
        raise ValueError("a stream of integers is made of bytes, four for each word")
    words: np.ndarray = stored.numpy().copy().view("<u4").astype(np.uint32)
    return words
