"""The common parts of all figures: style, colours, and files that are readable on light and on dark pages."""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from nern.errors import ArtifactError, ConfigError
from nern.support.messages import cannot_write
from nern.toolkit.optional import import_optional

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Arguments = ParamSpec("Arguments")
#: Distinguishable with any kind of colour vision (Okabe and Ito, "Color universal design"), and on light and dark ground.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D5A")
#: The colour of text and axes. An SVG file replaces it by the colour of the text around it.
INK = "#1f2328"
PAPER = "#ffffff"
STYLE = {
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3, "grid.color": "#8b949e",
    "svg.hashsalt": "nern", "svg.fonttype": "none", "figure.dpi": 150, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK,
    "axes.titlesize": 10, "xtick.color": INK, "ytick.color": INK, "figure.facecolor": PAPER, "axes.facecolor": "none",
    "pdf.fonttype": 42,
}  # fmt: skip
#: Style sheet for SVG files, which adapts colours to the reader's light or dark setting.
FOLLOW_READER = f"<style>svg{{color:{INK}}}@media(prefers-color-scheme:dark){{svg{{color:#e6edf3}}}}</style>"
KINDS = ("png", "svg", "pdf")


@contextmanager
def styled() -> Iterator[Any]:
    """Apply nern's style while a block runs; yields `matplotlib.figure`.

    Raises:
        ConfigError: matplotlib is not installed; the message says how to install it.
    """
    matplotlib: Any = import_optional("matplotlib", "plot", "a figure")
    with matplotlib.rc_context(STYLE):
        yield import_optional("matplotlib.figure", "plot", "a figure")


def in_style(draw: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """Decorate a function that draws a figure, so that it draws in nern's style. Text that is added later has another style."""

    @functools.wraps(draw)
    def styled_draw(*arguments: Arguments.args, **options: Arguments.kwargs) -> Figure:
        with styled():
            return draw(*arguments, **options)

    return styled_draw


def new_figure(panels: int = 1, width: float = 7.0, height: float = 3.8, gap: float = 0.06) -> tuple[Figure, Sequence[Axes]]:
    """A figure of `width` × `height` inches with panels beside each other, `gap` of a panel's width apart."""
    figure = empty_figure(width, height, gap)
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def empty_figure(width: float, height: float, gap: float = 0.06) -> Figure:
    """A figure of `width` × `height` inches without axes."""
    with styled() as figures:
        figure: Figure = figures.Figure(figsize=(width, height), layout="constrained")
    engine: Any = figure.get_layout_engine()
    engine.set(wspace=gap)
    return figure


def colours(count: int) -> list[str]:
    """Colours for `count` lines; they repeat after seven."""
    return [COLOURS[index % len(COLOURS)] for index in range(count)]


def legend_beside(axes: Axes, **more: Any) -> None:
    """A legend at the right of the axes, where it covers nothing."""
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, frameon=False, **more)


def svg_text(figure: Figure, prefix: str = "") -> str:
    """A figure as an `<svg>` element whose text and axes take the colour of the surrounding text.

    Args:
        prefix: put before every id, so that several figures can stand on one page.
    """
    stream = io.StringIO()
    _settle(figure)
    with styled():
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = text.replace(INK, "currentColor").replace('<style type="text/css">*{', '<style type="text/css">svg *{')
    if prefix:
        text = re.sub(r'\bid="', f'id="{prefix}', text)
        text = re.sub(r'(href="#|url\(#)', lambda match: f"{match[1]}{prefix}", text)
    return text


def save(figure: Figure, path: Path) -> list[Path]:
    """Write a figure; the same figure always gives the same bytes. A missing folder is made.

    Args:
        path: `x.png`, `x.svg` or `x.pdf` writes that file; a name without one of these endings writes `x.png` and `x.svg`.

    Raises:
        ArtifactError: the folder cannot be written.
        ConfigError: the ending is that of another kind of picture.
    """
    ending = path.suffix.lower().removeprefix(".")
    if ending in ("jpg", "jpeg", "gif", "webp", "eps", "ps", "tif", "tiff", "bmp"):
        raise ConfigError(f"{path}: figures are written as {', '.join(KINDS)}, not as {ending}; name a file with one of these endings")
    written = [path] if ending in KINDS else [path.with_name(f"{path.name}.{kind}") for kind in ("png", "svg")]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for file in written:
            _write(figure, file)
    except OSError as error:
        raise ArtifactError(cannot_write(error.filename or path, error, "name another place with -o")) from error
    return written


def _write(figure: Figure, file: Path) -> None:
    kind = file.suffix.lower().removeprefix(".")
    if kind == "svg":
        text = svg_text(figure)
        start = text.index(">") + 1
        head = '<?xml version="1.0" encoding="utf-8" standalone="no"?>\n'
        file.write_text(f"{head}{text[:start]}\n {FOLLOW_READER}{text[start:]}", encoding="utf-8")
        return
    _settle(figure)
    with styled():
        metadata = {"Software": None} if kind == "png" else {"CreationDate": None, "Creator": None, "Producer": None}
        figure.savefig(file, format=kind, metadata=metadata)


def _settle(figure: Figure) -> None:
    """Compute the layout of a figure once, so that all file formats get the same layout."""
    if figure.get_layout_engine() is not None:
        with styled():
            figure.draw_without_rendering()
        figure.set_layout_engine("none")
