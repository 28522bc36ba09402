"""Makes objects look the same in a notebook as in a terminal."""

from __future__ import annotations

from html import escape


class Shown:
    """Base of classes whose `repr` is written for people; a notebook shows it, too."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return f"<pre>{escape(repr(self))}</pre>"
