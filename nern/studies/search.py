"""Chooses the settings that a sweep tries: a grid, random ones, or those that Optuna proposes."""

from __future__ import annotations

import itertools
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from nern.errors import ConfigError, TrainingError
from nern.support.files import write_text
from nern.toolkit.optional import import_optional

SAMPLERS = ("grid", "random", "optuna")


@attrs.frozen
class Range:
    """Numbers between two bounds, both included; whole numbers where both bounds are."""

    low: int | float
    high: int | float
    log: bool = False  # whether the logarithm is uniform

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def at(self, position: float) -> int | float:
        """The number at a position in [0, 1), rounded to the six digits that names of folders have."""
        if self.whole:
            low, high = (math.log(self.low), math.log(self.high + 1)) if self.log else (self.low, self.high + 1)
            value = low + position * (high - low)
            return min(int(math.exp(value) if self.log else value), int(self.high))
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        value = low + position * (high - low)
        return rounded(math.exp(value) if self.log else value)

    def __str__(self) -> str:
        text = f"{self.low}..{self.high}"
        return f"log({text})" if self.log else text


Axis = Sequence[Any] | Range


def rounded(value: float) -> float:
    """A number, rounded to the six digits that names of folders have."""
    return float(f"{value:.6g}")


class Search(ABC):
    """Yields settings one after the other, and receives the figure of each."""

    lookahead: int | None = 0  # how many settings may be taken before the earlier ones are measured; None for all

    @abstractmethod
    def settings(self) -> Iterator[dict[str, Any]]:
        """The settings, each a value for every axis."""

    def tell(self, setting: Mapping[str, Any], score: float | None) -> None:
        """Learn how good a setting was; higher is better, None means that it failed."""
        return


class GridSearch(Search):
    """All combinations."""

    lookahead = None

    def __init__(self, axes: Mapping[str, Axis]) -> None:
        for path, axis in axes.items():
            if isinstance(axis, Range):
                raise ConfigError(f"{path}={axis}: a grid needs single values; list them, or add --sampler random or --sampler optuna")
        self._axes: dict[str, Sequence[Any]] = {path: axis for path, axis in axes.items() if not isinstance(axis, Range)}

    def settings(self) -> Iterator[dict[str, Any]]:
        for values in itertools.product(*self._axes.values()):
            yield dict(zip(self._axes, values, strict=True))


class RandomSearch(Search):
    """Settings that are drawn independently; the same budget and axes always give the same settings."""

    lookahead = None

    def __init__(self, axes: Mapping[str, Axis], budget: int) -> None:
        self._axes, self._budget = axes, budget

    def settings(self) -> Iterator[dict[str, Any]]:
        drawn: set[str] = set()
        for attempt in range(100 * self._budget):  # a small space may have fewer settings than the budget
            if len(drawn) == self._budget:
                return
            positions = np.random.default_rng([0, attempt]).random(len(self._axes))
            setting = {path: _at(axis, float(position)) for (path, axis), position in zip(self._axes.items(), positions, strict=True)}
            if repr(setting) not in drawn:
                drawn.add(repr(setting))
                yield setting


class OptunaSearch(Search):
    """Settings that Optuna proposes (its TPE sampler), which learns from those that are measured.

    Optuna's study exists only in this process. Proposals are recorded in `search.json`, so that a search can be resumed.
    """

    def __init__(self, axes: Mapping[str, Axis], budget: int, folder: Path) -> None:
        self._optuna = import_optional("optuna", "optuna", "--sampler optuna")
        self._optuna.logging.set_verbosity(self._optuna.logging.WARNING)
        self._axes, self._budget, self._file = axes, budget, folder / "search.json"
        self._described = {path: str(axis) if isinstance(axis, Range) else list(axis) for path, axis in axes.items()}
        self._proposed: list[dict[str, Any]] = self._read()
        self._trials: dict[str, Any] = {}
        distributions = self._optuna.distributions
        self._distributions = {
            path: (
                distributions.CategoricalDistribution(list(range(len(axis))))
                if not isinstance(axis, Range)
                else distributions.IntDistribution(axis.low, axis.high, log=axis.log)
                if axis.whole
                else distributions.FloatDistribution(axis.low, axis.high, log=axis.log)
            )
            for path, axis in axes.items()
        }
        sampler = self._optuna.samplers.TPESampler(seed=len(self._proposed), constant_liar=True)
        self._study = self._optuna.create_study(direction="maximize", sampler=sampler)

    def settings(self) -> Iterator[dict[str, Any]]:
        yield from self._proposed[: self._budget]
        known = {repr(setting) for setting in self._proposed}
        repeated = 0
        while len(self._proposed) < self._budget and repeated < 100:  # a small space may be exhausted early
            trial = self._study.ask(self._distributions)
            setting = {path: self._value(path, value) for path, value in trial.params.items()}
            if repr(setting) in known:
                repeated += 1
                self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
                continue
            known.add(repr(setting))
            self._trials[repr(setting)] = trial
            self._proposed.append(setting)
            self._write()
            yield setting

    def tell(self, setting: Mapping[str, Any], score: float | None) -> None:
        states, trial = self._optuna.trial.TrialState, self._trials.pop(repr(dict(setting)), None)
        if trial is not None:
            self._study.tell(trial, score, state=states.COMPLETE if score is not None else states.FAIL)
        elif score is not None:  # proposed by an earlier process
            parameters = {path: self._parameter(path, value) for path, value in setting.items()}
            created = self._optuna.trial.create_trial(params=parameters, distributions=self._distributions, value=score)
            self._study.add_trial(created)

    def _value(self, path: str, parameter: Any) -> Any:
        axis = self._axes[path]
        if isinstance(axis, Range):
            return parameter if axis.whole else rounded(parameter)
        return axis[parameter]

    def _parameter(self, path: str, value: Any) -> Any:
        axis = self._axes[path]
        if isinstance(axis, Range):
            return min(max(value, axis.low), axis.high)
        return list(axis).index(value)

    def _read(self) -> list[dict[str, Any]]:
        if not self._file.exists():
            return []
        try:
            stored = json.loads(self._file.read_text(encoding="utf-8"))
            axes, proposed = stored["axes"], list(stored["proposed"])
        except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
            raise TrainingError(f"{self._file} is damaged; name another folder with -o") from error
        if axes != json.loads(json.dumps(self._described)):
            raise ConfigError(f"{self._file.parent} holds a search over other values ({axes}); name another folder with -o")
        return proposed

    def _write(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_text(self._file, json.dumps({"axes": self._described, "proposed": self._proposed}, indent=2) + "\n")


def create_search(sampler: str, axes: Mapping[str, Axis], budget: int | None, folder: Path) -> Search:
    """Make the search with a name.

    Raises:
        ConfigError: the budget is missing or does not apply to the search, or the search cannot use an axis.
        PluginError: Optuna is not installed.
    """
    if sampler == "grid":
        if budget is not None:
            raise ConfigError("--budget: a grid tries every combination; add --sampler random or --sampler optuna")
        return GridSearch(axes)
    if sampler not in SAMPLERS:
        raise ConfigError(f"--sampler {sampler}: there is no such sampler (there are: {', '.join(SAMPLERS)})")
    if budget is None or budget < 1:
        raise ConfigError(f"--sampler {sampler} needs --budget N, the number of settings that are tried")
    if not axes:
        raise ConfigError(
            f"--sampler {sampler} needs values to choose from, such as optimizer.lr=log(1e-4..1e-2) or predictor.hidden=16,32"
        )
    return RandomSearch(axes, budget) if sampler == "random" else OptunaSearch(axes, budget, folder)


def _at(axis: Axis, position: float) -> Any:
    return axis.at(position) if isinstance(axis, Range) else axis[int(position * len(axis))]
