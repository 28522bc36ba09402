"""How objects show themselves in a notebook: the same few lines as in a terminal."""

from __future__ import annotations

from html import escape


class Shown:
    """A class whose `repr` is made for people; a notebook shows the same."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return f"<pre>{escape(repr(self))}</pre>"
