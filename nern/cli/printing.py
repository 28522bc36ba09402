"""Prints results in a terminal: lists and tables, which are never broken inside a word, and the summary at the end of a run."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from io import TextIOBase
from typing import Any, TextIO

#: Each part of a file: its description, and what makes it smaller.
PARTS = {
    "predictor": ("the predictor's weights", "storage=int8 keeps about a quarter of them, a smaller predictor.hidden fewer"),
    "embedding": ("trained vectors for the coordinates", "embedding.name=positional stores none"),
    "ordering": (
        "which kernel belongs to which coordinate",
        "smoother.name=in-filter stores less of it and smoother.name=none nothing, for some accuracy",
    ),
    "base": ("what is added to predictions", "fewer base.bits, or base=none for none of it"),
    "zeros": ("which weights stay zero", "keep_zeros=false stores none of it"),
    "copied": (
        "parameters that are not represented",
        "copied=float16 or copied=int8 keeps them in fewer bytes, layers=all represents more of them",
    ),
    "header": ("names, shapes and the configuration", "it is the same for a larger network"),
}


def width_of_terminal() -> int | None:
    """Columns of the terminal on stdout; None where stdout is a file or a pipe, whose lines are never wrapped."""
    return shutil.get_terminal_size((80, 24)).columns if sys.stdout.isatty() else None


def two_columns(rows: Iterable[tuple[str, str]], indent: str = "", width: int | None = None) -> str:
    """Names and their descriptions in two columns; long descriptions are wrapped between words, inside their column.

    Args:
        width: columns of the terminal; None leaves every row on one line.
    """
    listed = list(rows)
    first = max((len(name) for name, _ in listed), default=0)
    if width is not None:
        first = min(first, max(10, width // 2))
    lines: list[str] = []
    for name, text in listed:
        start = f"{indent}{name:<{first}}  "
        if width is None:
            lines.append(f"{start}{text}".rstrip())
            continue
        hang = indent + " " * (first + 2)
        if len(start) > len(hang):  # a long name gets a line of its own
            lines.append(start.rstrip())
            start = hang
        options: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
        lines += textwrap.wrap(text, max(width, len(hang) + 20), initial_indent=start, subsequent_indent=hang, **options) or [
            start.rstrip()
        ]
    return "\n".join(lines)


def one_line_each(rows: Iterable[tuple[str, str]], width: int | None = None) -> str:
    """Names and their descriptions, each on one line; a line that is too long is cut after a whole word and ends in an ellipsis."""
    listed = list(rows)
    first = max((len(name) for name, _ in listed), default=0)
    room = None if width is None else max(20, width - first - 2)
    return "\n".join(
        f"{name:<{first}}  {text if room is None else textwrap.shorten(text, room, placeholder=' …', break_on_hyphens=False)}".rstrip()
        for name, text in listed
    )


def wrapped(lines: Iterable[str], width: int | None) -> list[str]:
    """Lines that are wrapped between words and continued behind fifteen spaces; with a `width` of None they stay as they are."""
    if width is None:
        return list(lines)
    options: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False, "subsequent_indent": " " * 15}
    return [part for line in lines for part in textwrap.wrap(line, width, **options) or [""]]


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table, with columns of numbers aligned at the right. In a file or a pipe every row stays on one line, however wide."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    shown = Table(box=SIMPLE_HEAD, pad_edge=False)
    listed = [list(row) for row in rows]
    for index, head in enumerate(heads):
        numbers = all(row[index][:1].isdigit() or row[index][:1] in "−-—" for row in listed)
        shown.add_column(head, justify="right" if numbers else "left", overflow="fold")
    for row in listed:
        shown.add_row(*row)
    Console(width=width_of_terminal() or 1000, highlight=False, markup=False, soft_wrap=width_of_terminal() is None).print(shown)


def end_of_run(result: Any, headlines: Mapping[str, str], stored_as: str) -> list[str]:
    """The summary of a run that has ended: accuracies, their difference, and the bytes of the file and its parts.

    Args:
        result: the run's `nern.Result`.
        headlines: the first figure of the `original` and of the `reconstructed` network, as text.
        stored_as: the number format of the file, such as `float32`.
    """
    from nern.run.agreement import ClassCounts, accuracy_difference

    sizes = result.bytes
    lines = [
        f"original       {headlines['original']}   {sizes.original:>12,} bytes",
        f"reconstructed  {headlines['reconstructed']}   {sizes.total:>12,} bytes, {sizes.original / sizes.total:.2f} times smaller",
    ]
    if sizes.total > sizes.original:
        lines[1] = f"reconstructed  {headlines['reconstructed']}   {sizes.total:>12,} bytes, which is more than the original"
    difference = accuracy_difference(ClassCounts(**row) for row in result.classes or [])
    if difference is not None:
        points, low, high = (signed(value) for value in (difference.points, difference.low, difference.high))
        lines.append(f"difference     {points} points (95 % interval {low} to {high})")
    shares = sorted(((getattr(sizes, part), part) for part in PARTS if getattr(sizes, part)), reverse=True)
    lines.append("the file is    " + ", ".join(f"{100 * size / sizes.total:.0f} % {part}" for size, part in shares))
    part = shares[0][1]
    meaning, advice = PARTS[part]
    if part == "predictor" and stored_as not in ("float32", "float16"):
        advice = "a smaller predictor.hidden makes them fewer"
    lines.append(f"to shrink it   {part} ({meaning}): {advice}")
    lines.append(f"{result.iterations:,} steps in {result.seconds:.0f} s; {result.artifact}")
    return lines


def signed(value: float) -> str:
    """`+0.35` or `−1.20`, with a true minus sign."""
    return f"{value:+.2f}".replace("-", "−")


class _OneObject(TextIOBase):
    """Holds back the last line that begins a JSON object, and passes every other line to stderr: plugins may print, too."""

    def __init__(self) -> None:
        self.held, self._begun = "", ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            if line.startswith("{"):
                line, self.held = self.held, line
            if line:
                print(line, file=sys.stderr)
        return len(text)

    def end(self) -> None:
        """Take what was printed last as a line."""
        if self._begun:
            self.write("\n")


@contextmanager
def alone(stdout: TextIO) -> Iterator[None]:
    """Let a block print one JSON object on stdout, and everything else on stderr."""
    stream = _OneObject()
    try:
        with redirect_stdout(stream):  # type: ignore[type-var]
            yield
    finally:
        stream.end()
        if stream.held:
            stdout.write(f"{stream.held}\n")
