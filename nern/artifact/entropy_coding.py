"""Entropy coding by asymmetric numeral systems (Duda 2009): integers take about as many bits as their distribution's entropy.

The stream is that of constriction's `AnsCoder` (Bamler 2022): a state of 64 bits, words of 32, frequencies of 24 bits. Where
constriction is installed it does the work; where it is not, the same stream is written and read here, some ten times slower.
"""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections.abc import Iterable
from typing import Any

import numpy as np

from nern.representation.laplace import LARGEST, PRECISION, frequencies

WORD, STATE = 32, 64
#: Integers that a stream may hold for each of its bytes, and how many more any stream may. The sparsest predictors have under 50 in
#: a byte; what has more would take time that no file of its length is worth.
EACH_BYTE, LEAST_INTEGERS = 200, 2_000_000


def encode_integers(*parts: tuple[np.ndarray, np.ndarray], constriction: bool | None = None) -> np.ndarray:
    """Encode integers as a stream.

    Args:
        parts: integers [n] from −1023 to 1023, with the level of each [n], see `nern.representation.laplace`; a reader may
            need the integers of one part to know the levels of the next part.
        constriction: whether constriction does the work; by default where it is installed.

    Returns:
        The words of the stream, uint32.
    """
    coder = _coder(constriction)()
    for values, levels in reversed(parts):
        assert len(values) == len(levels)
        symbols = values.astype(np.int32) + LARGEST
        for level, chosen in reversed(list(_by_level(levels))):
            coder.push(symbols[chosen], level)
    words: np.ndarray = coder.words()
    return words


class IntegerReader:
    """Reads what `encode_integers` wrote, part by part.

    Raises:
        ValueError: it is no such stream.
    """

    def __init__(self, words: np.ndarray, constriction: bool | None = None) -> None:
        self._coder = _coder(constriction)(words)
        self._left = LEAST_INTEGERS + EACH_BYTE * 4 * len(words)

    def take(self, levels: np.ndarray) -> np.ndarray:
        """Read the next part: one integer for each of `levels` [n], int64 [n], also where the stream is damaged or too short.

        Raises:
            ValueError: there are more than a stream of this length can hold.
        """
        self._left -= len(levels)
        if self._left < 0:
            raise ValueError("more integers are declared than a stream of this length holds")
        values = np.empty(len(levels), np.int64)
        for level, chosen in _by_level(levels):
            values[chosen] = self._coder.pop(len(chosen), level)
        return values - LARGEST

    def close(self) -> None:
        """Check that the whole stream has been read.

        Raises:
            ValueError: something is left in the stream.
        """
        if not self._coder.empty():
            raise ValueError("the stream of integers does not end where its last integer does")


def _by_level(levels: np.ndarray) -> Iterable[tuple[int, np.ndarray]]:
    """Each level that occurs, in rising order, with the positions of its integers: the order in which integers are coded."""
    order = np.argsort(levels, kind="stable")
    kinds, starts = np.unique(levels[order], return_index=True)
    return zip(kinds.tolist(), np.split(order, starts[1:]), strict=True) if len(levels) else ()


def _coder(constriction: bool | None) -> type[Any]:
    return _Constriction if (installed() if constriction is None else constriction) else _Plain


@functools.cache
def installed() -> bool:
    """Whether constriction can be imported; it has no wheel for some machines."""
    try:
        import constriction  # noqa: F401
    except ImportError:
        return False
    return True


class _Constriction:
    def __init__(self, words: np.ndarray | None = None) -> None:
        import constriction

        coder = constriction.stream.stack.AnsCoder
        self._coder = coder() if words is None else coder(words.astype(np.uint32))

    def push(self, symbols: np.ndarray, level: int) -> None:
        self._coder.encode_reverse(symbols, self._model(level))

    def pop(self, count: int, level: int) -> np.ndarray:
        numbers: np.ndarray = self._coder.decode(self._model(level), count)
        return numbers

    def words(self) -> np.ndarray:
        compressed: np.ndarray = self._coder.get_compressed()
        return compressed

    def empty(self) -> bool:
        return bool(self._coder.is_empty())

    @staticmethod
    @functools.cache
    def _model(level: int) -> Any:
        """The library's fast model adds one to each frequency itself; given frequencies less one, it has nothing to round."""
        import constriction

        return constriction.stream.model.Categorical((frequencies(level) - 1).astype(np.float64), perfect=False)


class _Plain:
    def __init__(self, words: np.ndarray | None = None) -> None:
        self._words: list[int] = [] if words is None else words.tolist()
        self._state = 0
        if self._words and self._words[-1] == 0:
            raise ValueError("a stream never ends in a word of zeros")
        if words is not None:
            self._refill()

    def _refill(self) -> None:
        while self._state < 1 << (STATE - WORD) and self._words:
            self._state = self._state << WORD | self._words.pop()

    def push(self, symbols: np.ndarray, level: int) -> None:
        counts, firsts = _table(level)
        state, words = self._state, self._words
        for symbol in reversed(symbols.tolist()):
            count = counts[symbol]
            if state >> (STATE - PRECISION) >= count:
                words.append(state & 0xFFFFFFFF)
                state >>= WORD
            state = (state // count) << PRECISION | (state % count + firsts[symbol])
        self._state = state

    def pop(self, count: int, level: int) -> np.ndarray:
        counts, firsts = _table(level)
        state, words, mask, least = self._state, self._words, (1 << PRECISION) - 1, 1 << (STATE - WORD)
        symbols = np.empty(count, np.int64)
        for place in range(count):
            share, before = state & mask, state
            symbol = bisect_right(firsts, share) - 1
            state = (state >> PRECISION) * counts[symbol] + share - firsts[symbol]
            if state < least and words:
                state = state << WORD | words.pop()
            symbols[place] = symbol
            if state == before and not words:  # the stream has ended: from here on every integer is the same
                symbols[place:] = symbol
                break
        self._state = state
        return symbols

    def words(self) -> np.ndarray:
        tail, state = [], self._state
        while state:
            tail.append(state & 0xFFFFFFFF)
            state >>= WORD
        return np.array(self._words + tail, dtype=np.uint32)

    def empty(self) -> bool:
        return not self._words and self._state == 0


@functools.cache
def _table(level: int) -> tuple[list[int], list[int]]:
    """The frequency of each symbol, and the sum of those before it."""
    counts = frequencies(level)
    return counts.tolist(), (counts.cumsum() - counts).tolist()
