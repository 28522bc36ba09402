"""Compares representations with baselines: bytes, accuracy, and the time and memory of rebuilding the network."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs

from nern.engine import Engine
from nern.errors import ArtifactError, ConfigError
from nern.run.evaluation import Comparison, Score
from nern.studies.baselines import baselines
from nern.studies.opening import open_representation
from nern.studies.tables import csv_table, markdown_table
from nern.support.files import write_text
from nern.support.messages import cannot_write

TRAINED = (4, 3)  # bits of the integers in the trained baselines
GIVEN = "representation"

_REBUILD = """
import json, sys, time
from nern import load
from nern.support.memory import peak_memory
before, began = peak_memory(), time.perf_counter()
load(sys.argv[1], plugins=sys.argv[2:]).state_dict()
seconds, after = time.perf_counter() - began, peak_memory()
print(json.dumps([seconds, None if before is None or after is None else after - before]))
"""


@attrs.frozen
class Entry:
    """One file in the comparison."""

    family: str  # "representation", or the kind of baseline
    name: str
    bytes: int  # size of the whole file
    score: Score
    difference: float | None  # difference of the headline figure from the original network's
    seconds: float | None  # time to rebuild the state dict in a fresh process; None where nern.load cannot read the file
    memory: int | None  # bytes of memory that this process takes beyond one that has only imported nern
    file: str


@attrs.frozen
class Table:
    """The comparison of files of the same network."""

    original: Score
    original_bytes: int
    entries: list[Entry]

    @property
    def figure(self) -> str:
        """The name of the figure that is compared."""
        return self.original.headline[0]

    def rows(self) -> list[dict[str, Any]]:
        """One flat row for every file, as `pandas.DataFrame(table.rows())` takes them."""
        first = {
            "family": "original", "name": "original", "bytes": self.original_bytes, **self.original.figures,
            "difference": 0.0, "seconds": None, "memory": None, "file": None,
        }  # fmt: skip
        kept = ("difference", "seconds", "memory", "file")
        others = [
            {"family": entry.family, "name": entry.name, "bytes": entry.bytes, **entry.score.figures}
            | {name: getattr(entry, name) for name in kept}
            for entry in sorted(self.entries, key=lambda entry: -entry.bytes)
        ]
        return [first, *others]

    def verdicts(self) -> list[str]:
        """For every representation, one sentence that says whether a baseline with as few bytes is as accurate."""
        return [self._verdict(entry) for entry in self.entries if entry.family == GIVEN]

    def _verdict(self, entry: Entry) -> str:
        value = entry.score.headline[1]
        rivals = [other for other in self.entries if other.family != GIVEN and other.bytes <= entry.bytes]
        own = f"{entry.name}: {self.figure} {_number(value)} in {entry.bytes:,} bytes"
        if not rivals:
            least = min((other for other in self.entries if other.family != GIVEN), key=lambda other: other.bytes)
            return f"{own}; no baseline is as small: '{least.name}' takes {least.bytes:,} bytes for {_number(least.score.headline[1])}"
        best = max(rivals, key=lambda other: _comparable(other.score))
        other = f"'{best.name}' ({best.family}) with {_number(best.score.headline[1])} in {best.bytes:,} bytes"
        won = _comparable(entry.score) > _comparable(best.score)
        return f"{own} wins over {other}" if won else f"{own} does not win: {other} is at least as good"

    def to_dict(self) -> dict[str, Any]:
        return {"rows": self.rows(), "verdicts": self.verdicts()}

    def csv(self) -> str:
        return csv_table(self.rows())

    def markdown(self) -> str:
        heads, rows = ["what", "bytes", self.figure, "difference", "seconds to rebuild", "memory to rebuild"], []
        for row in self.rows():
            name = row["name"] if row["family"] in ("original", GIVEN, row["name"]) else f"{row['name']} ({row['family']})"
            seconds = "—" if row["seconds"] is None else f"{row['seconds']:.2f}"
            memory = "—" if row["memory"] is None else f"{row['memory'] / 1e6:.0f} MB"
            rows.append([name, f"{row['bytes']:,}", _number(row[self.figure]), _number(row["difference"], "+"), seconds, memory])
        return "\n".join([markdown_table(heads, rows), *self.verdicts()]) + "\n"


def compare(
    paths: Sequence[Path],
    folder: Path,
    overrides: Sequence[str] = (),
    *,
    train_baselines: bool = False,
    plugins: Sequence[str] = (),
    disabled: Sequence[str] = (),
    report: Callable[[str], None] = lambda line: None,
) -> Table:
    """Measure files and runs of one network, and its baselines, on the test set; every baseline is written to a file and read back.

    Args:
        folder: gets the baselines' files, `compare.json`, `.csv` and `.md`.
        overrides: overrides as `nern evaluate` takes them.
        train_baselines: also train integers of four and three bits against the original network, as long as the first run was
            trained in its last phase; needs a run directory.
        plugins: local plugins besides those that a run's configuration names.
        disabled: plugins to leave out.
        report: called with one line for every file.

    Raises:
        ConfigError: the original weights are missing, the files are of different networks, or trained baselines have no run
            directory to follow.
        ArtifactError: a file cannot be read, or the folder cannot be written.
    """
    everything = [open_representation(path, overrides, plugins=plugins, disabled=disabled) for path in paths]
    first = everything[0]
    for path, opened in zip(paths, everything, strict=True):
        if opened.artifact.sha256 != first.artifact.sha256:
            raise ConfigError(f"{path} and {paths[0]} are of different networks; compare files of one")
    trainer = next((opened.engine for opened in everything if opened.engine is not None), None)
    if train_baselines and trainer is None:
        raise ConfigError("--train-baselines: needs a run directory, which says how the representation was trained; a file does not")
    chosen = list(baselines(first))
    comparison, entries = first.comparison(), list[Entry]()
    assert comparison.original is not None

    def add(entry: Entry) -> None:
        entries.append(entry)
        report(f"{entry.name}: {comparison.original.headline[0]} {_number(entry.score.headline[1])}, {entry.bytes:,} bytes")  # type: ignore[union-attr]

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, opened in zip(paths, everything, strict=True):
            file = path if opened.engine is None else opened.engine.run.artifact
            add(_entry(comparison, GIVEN, _name(path, paths), file, opened.artifact.reconstruct().float(), plugins))
        for baseline in chosen:
            file = (
                folder
                / f"{baseline.name.replace(' ', '-').replace('σ', 'sigma')}.{'nern' if baseline.is_representation else 'safetensors'}"
            )
            baseline.write(file)
            network = baseline.read(file).float()
            add(_entry(comparison, baseline.family, baseline.name, file, network, plugins, baseline.is_representation))
        for bits in TRAINED if train_baselines else ():
            assert trainer is not None
            file = trained_integers(trainer, bits, folder / f"int{bits}-trained")
            run = open_representation(file.parent, plugins=plugins, disabled=disabled)
            network = run.artifact.reconstruct().float()
            add(_entry(comparison, "integers, trained", f"int{bits} trained", file, network, plugins))
        table = Table(comparison.original, first.artifact.bytes().original, entries)
        for suffix, text in (("json", json.dumps(table.to_dict(), indent=2) + "\n"), ("csv", table.csv()), ("md", table.markdown())):
            write_text(folder / f"compare.{suffix}", text)
    except OSError as error:
        raise ArtifactError(cannot_write(folder, error, "name another folder with -o")) from error
    return table


def trained_integers(engine: Engine, bits: int, folder: Path) -> Path:
    """Train integer weights with a step for each channel against the original network, as a run's last phase was trained.

    Returns:
        The file of the trained representation.
    """
    from nern.artifact.components import component

    experiment, registry = engine.experiment, engine.registry
    last = experiment.phases[-1]
    losses = {name: term for name, term in experiment.losses_of(last).items() if term.loss.needs != "bits"}
    changed = attrs.evolve(
        experiment,
        storage=f"int{bits}",  # type: ignore[arg-type]
        bytes=None,
        embedding=component("embedding", {"name": "nern:codes", "transform": "none"}, registry),
        predictor=component("predictor", {"name": "nern:codes"}, registry),
        base=component("base", {"name": "nern:none"}, registry),
        smoother=component("smoother", {"name": "nern:none"}, registry),
        fold_batch_norms=True,
        train=["*"],
        copied="float16",
        phases=[attrs.evolve(last, losses=losses)],
        output=str(folder),
        observers={},
    )
    trained = Engine(changed, registry)
    if not trained.run.artifact.exists():
        trained.fit(resume=trained.run.checkpoint.exists())
    return trained.run.artifact


def _entry(comparison: Comparison, family: str, name: str, file: Path, network: Any, plugins: Sequence[str], timed: bool = True) -> Entry:
    score, original = comparison.score(network), comparison.original
    assert original is not None
    value, before = score.headline[1], original.headline[1]
    difference = None if value is None or before is None else value - before
    seconds, memory = _rebuilding(file, plugins) if timed else (None, None)
    return Entry(family, name, file.stat().st_size, score, difference, seconds, memory, str(file))


def _rebuilding(file: Path, plugins: Sequence[str]) -> tuple[float | None, int | None]:
    """Seconds to rebuild the state dict in a fresh process, and the bytes of memory that it takes; None where they cannot be measured."""
    done = subprocess.run([sys.executable, "-c", _REBUILD, str(file), *plugins], capture_output=True, text=True)
    if done.returncode:
        return None, None
    seconds, memory = json.loads(done.stdout.splitlines()[-1])
    return float(seconds), None if memory is None else int(memory)


def _name(path: Path, paths: Sequence[Path]) -> str:
    return path.name if sum(other.name == path.name for other in paths) == 1 else str(path)


def _comparable(score: Score) -> float:
    """The figure to compare, of which more is better: the headline figure, or minus the distance from the original without labels."""
    value = score.headline[1]
    if value is not None:
        return value
    return -(score.kl if score.kl is not None else 0.0)


def _number(value: float | None, sign: str = "") -> str:
    return "—" if value is None else f"{value:{sign}.2f}"
