"""Parts of sentences that many messages share, so that each is worded in one place."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "", *, before: str = ", ", cutoff: float = 0.6) -> str:
    """The question `, did you mean 'x'?` where a known word resembles `word`, and the text `otherwise` where none does.

    A word that differs from a known one in capital letters alone resembles it.

    Args:
        before: the text in front of the question.
        cutoff: how alike words must be, from 0 to 1 (`difflib.get_close_matches`).
    """
    words = list(known)
    near = [other for other in words if other.casefold() == word.casefold()] or difflib.get_close_matches(word, words, n=1, cutoff=cutoff)
    return f"{before}did you mean '{near[0]}'?" if near else otherwise


def cannot_write(place: object, error: OSError, way_out: str) -> str:
    """The message for a file that cannot be written: `cannot write x (No space left on device); free space or …`."""
    return f"cannot write {place} ({error.strerror or error}); {way_out}"


def text_of(error: BaseException) -> str:
    """The message of an error in one line; empty where it has none, or where making it raises another error."""
    try:
        return " ".join(str(error).split())
    except Exception:
        return ""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
    try:
        lines = str(error).splitlines()
    except Exception:
        lines = []
    return lines[0] if lines else type(error).__name__


def some(items: Sequence[str], most: int = 3, separator: str = ", ") -> str:
    """The first few of a list, and how many more there are."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return separator.join(items[:most]) + more


def shortened(value: object, most: int = 80) -> str:
    """A value as text, shortened where it is too long for a line."""
    text = " ".join(str(value).split())
    return text if len(text) <= most else f"{text[: most - 1]}…"
