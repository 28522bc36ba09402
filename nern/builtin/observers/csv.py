"""A table of the run's numbers, for a spreadsheet or a data frame."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from nern import Observer, hookimpl, option
from nern.toolkit.files import write_text

FIRST = ["iteration", "phase", "split", "learning_rate"]


@attrs.define
class _Table:
    path: Path = Path()
    columns: list[str] = attrs.field(factory=lambda: list(FIRST))


@attrs.frozen
class CSV(Observer):
    """One row for every report and every evaluation; `split` is `train` for losses. New columns are added when a new figure appears."""

    file: str = option("metrics.csv", help="name of the table, inside the run directory")
    _table: _Table = attrs.field(init=False, factory=_Table, eq=False, repr=False)

    @hookimpl
    def nern_run_started(self, run_dir: Path, config: dict[str, Any], iteration: int) -> None:
        self._table.path, self._table.columns = run_dir / self.file, list(FIRST)
        repeated = {phase["name"] for phase in config["phases"]}  # other rows belong to the training of the original network
        rows = [row for row in self._rows() if row["phase"] not in repeated or int(row["iteration"]) <= iteration]
        self._write([row for row in rows if row["split"] != "test"])

    @hookimpl
    def nern_step(self, phase: str, iteration: int, losses: dict[str, float], learning_rate: float) -> None:
        self._add({"iteration": iteration, "phase": phase, "split": "train", "learning_rate": learning_rate, **losses})

    @hookimpl
    def nern_evaluated(self, phase: str, iteration: int, split: str, metrics: dict[str, float]) -> None:
        self._add({"iteration": iteration, "phase": phase, "split": split, **metrics})

    def _rows(self) -> list[dict[str, str]]:
        """The complete rows that the file holds already; an interruption can have left the last one incomplete."""
        if not self._table.path.exists():
            return []
        text = self._table.path.read_text(encoding="utf-8")
        reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))
        self._table.columns = list(reader.fieldnames or FIRST)
        return list(reader)

    def _add(self, row: dict[str, Any]) -> None:
        table = self._table
        new = [name for name in row if name not in table.columns]
        if new:
            rows = self._rows()
            table.columns += new
            self._write(rows)
        with table.path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, table.columns, lineterminator="\n").writerow(row)

    def _write(self, rows: list[dict[str, str]]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._table.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self._table.path, text.getvalue())


@hookimpl
def nern_observers() -> Mapping[str, type[Observer]]:
    return {"csv": CSV}
