"""The folder of a run: resolved configuration, metrics, checkpoint, artifact, result."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from nern.config.loading import load_experiment
from nern.config.sources import RUN_HEADER
from nern.config.structuring import unstructure
from nern.config.yaml_reading import read_yaml_file
from nern.errors import ArtifactError, ConfigError, DataError, NernError, TrainingError
from nern.registry.registry import Registry
from nern.representation.quantization import NumberFormat
from nern.support.files import remove_leftovers, write_tensors, write_text
from nern.support.lock import Locked, holding
from nern.support.messages import cannot_write

#: Sections that may change when a run is resumed: its folder and length, its observers, and the device.
FREE = {"output", "observers", "device", "threads", "cuda_graphs", "precision", "plugins"}
FREE |= {"evaluate_every", "checkpoint_every", "log_every", "curve_points", "curve_images"}


def file_of(place: Path) -> Path:
    """The path of a representation file, which `place` is itself or which the run folder `place` holds.

    Raises:
        ArtifactError: the run is not finished.
        ConfigError: the folder holds no run.
    """
    if not place.is_dir():
        return place
    run = RunFolder(place)
    run.must_exist()
    if not run.artifact.is_file():
        raise ArtifactError(f"run {place} is not finished: it has no {run.artifact.name}; continue with nern train {place} --resume")
    return run.artifact


def plugins_of(place: Path) -> list[str]:
    """The local plugins that the configuration of a run folder names; none for a file or another folder.

    Raises:
        ConfigError: the configuration cannot be read.
    """
    config = RunFolder(place).config
    named = read_yaml_file(config).get("plugins") if config.is_file() else None
    plugins = [plugin for plugin in named if isinstance(plugin, str)] if isinstance(named, list) else []
    return [str(place / plugin) if plugin.endswith(".py") else plugin for plugin in plugins]


class RunFolder:
    """Paths and files of one run. It can be moved: nothing in it names its own place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.metrics = path / "metrics.jsonl"
        self.checkpoint = path / "checkpoint.pt"
        self.pretraining = path / "pretraining.pt"
        self.original = path / "original.safetensors"
        self.artifact = path / "model.nern"
        self.result = path / "result.json"
        self.lock = path / ".lock"
        self._kept: set[tuple[Any, ...]] = set()  # step and subject of the metrics lines that an earlier part of the run wrote

    def explained(self, problem: OSError) -> NernError:
        """The error to raise for a file that could not be read or written during this run."""
        folder = self.path.absolute()
        place = Path(os.fsdecode(problem.filename)).absolute() if isinstance(problem.filename, (str, bytes)) else folder
        if place.is_relative_to(folder) or folder.is_relative_to(place):
            return TrainingError(cannot_write(f"the run directory {self.path}", problem, "free space or set output"))
        return DataError(f"cannot read {place} ({problem.strerror or problem})")

    def way_on(self) -> str:
        """What the user can do after correcting the error that ended a run in this folder."""
        if self.checkpoint.exists():
            return f"mend it, then continue with --resume (checkpoint {self.checkpoint})"
        return f"mend it, then continue with --resume ({self.path})" if self.config.exists() else "mend it, then start again"

    @contextmanager
    def held(self, make: bool) -> Iterator[None]:
        """Lock the folder against other processes while a block runs; the lock disappears with this process, also when it is killed.

        Args:
            make: whether to make the folder where it is missing.

        Raises:
            ConfigError: another process holds the lock.
            OSError: the folder cannot be written.
        """
        if make:
            self.path.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            try:
                stack.enter_context(holding(self.lock))
            except Locked as error:
                raise ConfigError(f"{self.path} is in use by a run ({error}); wait for it, stop it, or set output") from error
            yield

    def threads(self) -> int | None:
        """The number of CPU threads that the run's configuration names; None where it leaves it to torch."""
        named = read_yaml_file(self.config).get("threads")
        return named if isinstance(named, int) else None

    def must_exist(self) -> None:
        """Raises ConfigError where the folder holds no run."""
        if not self.config.is_file():
            raise ConfigError(f"{self.path} holds no run (there is no {self.config})")

    def check(self, resolved: dict[str, Any], resume: bool, registry: Registry | None = None) -> None:
        """Refuse an experiment that can neither start in this folder nor be resumed in it.

        Args:
            registry: gives the defaults of options that are newer than the run.

        Raises:
            ConfigError: the folder holds a run and `resume` is not set, or the run is another experiment's.
        """
        if not resume:
            if self.config.exists():
                way_out = "continue with --resume (in Python fit(resume=True)), or name another folder with output=DIR"
                raise ConfigError(f"{self.path} already holds a run; {way_out}")
            return
        self.must_exist()
        before = read_yaml_file(self.config)
        try:
            changed = differing_keys(_fixed(before), _fixed(resolved))
            if changed and registry is not None:
                experiment, _ = load_experiment(self.config, registry=registry)
                changed = differing_keys(_fixed(unstructure(experiment, registry)), _fixed(resolved))
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise ConfigError(f"{self.config} is not the configuration that a run wrote; start a new run with output=DIR") from error
        if changed:
            raise ConfigError(
                f"{self.path} was started with another {', '.join(changed)}; resume it as it was, or start a new run with output=DIR"
            )

    def open(self, text: str) -> None:
        """Make the folder where it is missing and write config.yaml.

        Raises:
            OSError: the folder cannot be written.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.path)
        write_text(self.config, RUN_HEADER + text)

    def log(self, record: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl, unless an earlier part of the run left a line about the same step."""
        if _about(record) in self._kept:
            return
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def keep_metrics(self, iteration: int) -> None:
        """Remove the lines of steps after `iteration`, which the resumed run repeats."""
        if not self.metrics.exists():
            return
        kept: dict[tuple[Any, ...], str] = {}
        for line in self.metrics.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                record = json.loads(line)
                if record["iteration"] <= iteration:
                    kept.setdefault(_about(record), line + "\n")
            except (ValueError, KeyError, TypeError, RecursionError):  # a line that an interruption left incomplete
                continue
        self._kept = set(kept)
        write_text(self.metrics, "".join(kept.values()))

    def write_original(self, network: nn.Module) -> None:
        """Save the original network that the run trained itself."""
        write_tensors(self.original, network.state_dict())
        self.pretraining.unlink(missing_ok=True)

    def write_result(self, result: dict[str, Any]) -> None:
        write_text(self.result, json.dumps(result, indent=2) + "\n")


def _about(record: dict[str, Any]) -> tuple[Any, ...]:
    """What a line of metrics.jsonl is about: its step, its phase and the names of its figures."""
    return (str(record.get("iteration")), str(record.get("phase")), *(key for key in record if key not in ("iteration", "phase")))


def _fixed(values: dict[str, Any]) -> dict[str, Any]:
    """The part of a configuration that must not change when a run is resumed. Paths may change: weights are identified by their SHA-256."""
    fixed = {key: value for key, value in values.items() if key not in FREE}
    fixed["architecture"] = {**values["architecture"], "weights": values["architecture"].get("weights") is not None}
    for key in ("entry", "rename"):
        fixed["architecture"].pop(key, None)
    fixed["task"] = {key: value for key, value in values["task"].items() if key != "root"}
    if NumberFormat(values.get("storage", "float32")).bits is None:
        fixed.pop("storage", None)  # formats of floats only round at the end, while integers are part of training
    fixed["phases"] = [{key: value for key, value in phase.items() if key != "iterations"} for phase in values["phases"]]
    return fixed


def differing_keys(a: Any, b: Any, path: str = "") -> list[str]:
    """The dotted paths at which two nested configurations differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        keys = list(dict.fromkeys([*a, *b]))
        return [path_of for key in keys for path_of in differing_keys(a.get(key), b.get(key), f"{path}.{key}" if path else str(key))]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [path_of for index, pair in enumerate(zip(a, b, strict=True)) for path_of in differing_keys(*pair, f"{path}.{index}")]
    return [] if a == b else [path]
