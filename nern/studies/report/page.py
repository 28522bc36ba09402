"""Makes the page: `nern report RUN -o report.html`, or `nern.report(...)` and `result.report()` in Python."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import attrs

from nern.errors import ArtifactError, ConfigError
from nern.studies import run_figures
from nern.studies.curves import Curves, labelled
from nern.studies.drawing import COLOURS, svg_text
from nern.studies.report.facts import RunFacts, read_facts
from nern.studies.wording import called, written
from nern.support.files import write_text
from nern.support.messages import cannot_write
from nern.support.version import __version__
from nern.toolkit.optional import import_optional

#: Parts of a file in the order of the bar chart, with their colours and descriptions.
PARTS = {
    "predictor": (COLOURS[0], "the predictor's weights"),
    "embedding": (COLOURS[5], "trained vectors for the coordinates"),
    "base": (COLOURS[4], "what is added to predictions"),
    "ordering": (COLOURS[1], "which kernel belongs to which coordinate"),
    "zeros": (COLOURS[3], "which weights stay zero"),
    "copied": (COLOURS[2], "parameters that are not represented, such as biases and batch norms"),
    "header": (COLOURS[6], "names, shapes and the configuration"),
}


@attrs.frozen
class Report:
    """The page about one or several runs; a notebook shows it where it is the last value of a cell."""

    html: str
    """The page's text."""

    def save(self, path: str | Path) -> Path:
        """Write the page, which needs no other file. A missing folder is made.

        Raises:
            ArtifactError: the file cannot be written.
        """
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, self.html)
        except OSError as error:
            raise ArtifactError(cannot_write(path, error, "free space or name another file")) from error
        return path

    def __repr__(self) -> str:
        return f"<Report, {len(self.html.encode()):,} bytes of HTML; save(path) writes it>"

    def _repr_html_(self) -> str:
        return f'<iframe srcdoc="{html.escape(self.html)}" style="width:100%;height:720px;border:1px solid #8b949e"></iframe>'


def report(*runs: str | Path, weights: str | Path | None = None, plugins: Sequence[str] = (), disabled: Sequence[str] = ()) -> Report:
    """Make a page about one finished run, or one that compares several. Neither images nor the original network's code are needed.

    Args:
        runs: run folders or representation files; `LABEL=PLACE` gives one a name of its own.
        weights: the file of the original weights, where it has moved since the runs.
        plugins: local plugins to use besides those that the runs name.
        disabled: plugins to leave out.

    Raises:
        ArtifactError: a run is not finished, or a file is missing or damaged.
        ConfigError: a folder holds no run, or no run was named.
        PluginError: jinja2 or matplotlib is not installed; the message says how to install them.
    """
    if not runs:
        raise ConfigError("a report needs a run folder or a representation file")
    places = labelled([str(run) for run in runs])
    original = str(weights) if weights else None
    facts = [read_facts(place, label, original, plugins, disabled) for label, place in places.items()]
    return Report(render(facts))


def render(runs: Sequence[RunFacts]) -> str:
    """The page as HTML."""
    jinja: Any = import_optional("jinja2", "report", "a report")
    markup: Any = import_optional("markupsafe", "report", "a report")
    environment = jinja.Environment(autoescape=True, undefined=jinja.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(resources.files(__package__).joinpath("page.html.jinja").read_text(encoding="utf-8"))
    pictures = Pictures(markup.Markup)
    largest = max(max(run.bytes["original"], run.bytes["total"]) for run in runs)
    text: str = template.render(
        runs=runs,
        title=", ".join(run.label for run in runs),
        version=__version__,
        parts={name: about for name, about in PARTS.items() if any(run.bytes.get(name) for run in runs)},  # older runs lack some
        largest=largest,
        curves=pictures.curves({run.label: run.curves for run in runs if run.curves is not None}),
        own_curves={run.label: pictures.curves({run.label: run.curves}) if run.curves and len(runs) > 1 else None for run in runs},
        errors={run.label: pictures.errors(run) for run in runs},
        kernels={run.label: pictures.kernels(run) for run in runs},
        classes={run.label: _classes(run) for run in runs},
        any_difference=any(run.difference for run in runs),
        any_agreement=any("agreement" in run.reconstructed for run in runs),
        any_paper=any(run.paper for run in runs),
        called=called,
        written=written,
        all_classifiers=all(run.headline == "top1" for run in runs),
    )
    return text


def _classes(run: RunFacts) -> list[dict[str, Any]]:
    """Rows of the table of classes, least agreement first; at most the 40 classes with least agreement."""
    rows = [{**attrs.asdict(counts), "agree": 100 * counts.agree / counts.images} for counts in run.classes]
    return sorted(rows, key=lambda row: (row["agree"], row["label"]))[:40]


class Pictures:
    """Figures as SVG elements with ids of their own."""

    def __init__(self, markup: Any) -> None:
        self._markup, self._count = markup, 0

    def curves(self, runs: Mapping[str, Curves]) -> list[tuple[str, Any]]:
        """Captions and pictures of the losses and of the held-out figures; runs without any are left out."""
        drawn = []
        lossy = {label: curves for label, curves in runs.items() if curves.losses}
        if lossy:
            what = "Loss terms" if len(lossy) == 1 else "Total loss"
            drawn.append((f"{what} by step, logarithmic. Every phase has a loss of its own.", self._svg(run_figures.losses(lossy))))
        others = [measure for curves in runs.values() for measure in curves.heldout]
        for measure in dict.fromkeys(["kl", "top1", *others]):
            measured = {label: curves for label, curves in runs.items() if curves.heldout.get(measure)}
            if measured:
                drawn.append(
                    (f"On held-out examples of the training data: {called(measure)}.", self._svg(run_figures.heldout(measured, measure)))
                )
                break
        return drawn

    def errors(self, run: RunFacts) -> Any:
        """Errors by layer and filter."""
        return self._svg(run_figures.errors(run.errors)) if run.errors else None

    def kernels(self, run: RunFacts) -> Any:
        """The best and the worst kernels."""
        return self._svg(run_figures.chosen_kernels(run.best, run.worst)) if run.best else None

    def _svg(self, figure: Any) -> Any:
        self._count += 1
        return self._markup(svg_text(figure, prefix=f"p{self._count}-"))
