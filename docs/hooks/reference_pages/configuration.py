"""The pages of configuration keys and of the shipped experiments."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import attrs

from nern.config import experiment
from nern.config.defaults import DEFAULTS
from nern.options import OptionInfo, describe
from nern.registry.registry import KINDS
from reference_pages.descriptions import check_described
from reference_pages.markdown import escape, option_table, table


def sections() -> dict[str, type]:
    """The attrs classes that a configuration is made of, by name."""
    return {
        name: cls
        for name, cls in reversed(vars(experiment).items())
        if isinstance(cls, type) and attrs.has(cls) and cls.__module__ == experiment.__name__
    }


def section_options(cls: type) -> list[OptionInfo]:
    """The options of a section. The options of a loss term's component stand in the same mapping, so its field `loss` is left out."""
    options = [option for option in describe(cls) if cls is not experiment.LossTerm or option.name != "loss"]
    defaults = DEFAULTS if cls is experiment.Experiment else {}
    return [attrs.evolve(option, default=defaults.get(option.name, option.default)) for option in options]


def configuration_reference() -> str:
    """The page of all configuration keys."""
    text = """# Configuration

An experiment is a YAML file, or the name of a [preset](presets.md). Every value can be overridden on the command line
by its dotted path, `predictor.hidden=140` or `phases.0.iterations=100` (or `phases.NAME.iterations=100`), and in Python
by a mapping from such paths to values. `nern config FILE` checks an experiment and prints all of its
values. `1e-4` is read as a number.

A *component* (`architecture`, `embedding`, `predictor`, …) is a mapping with its `name` and its own options. The
options are listed on the page of its [extension point](../extend/index.md). A component whose options all have their
defaults may be written as its name alone. `losses` and `observers` map a component's name to its options; `null`
switches off a loss or an observer of the defaults.

"""
    links = {interface.__name__: f"../extend/{kind}.md" for kind, (_, interface) in KINDS.items()}
    links |= {name: f"#{name.lower()}" for name in sections()}
    for name, cls in sections().items():
        options = section_options(cls)
        check_described(options, f"configuration section {name}")
        text += f"## {name}\n\n{escape(inspect.getdoc(cls) or '')}\n\n{option_table(options, links)}\n"
    return text


def presets(shipped: Mapping[str, str]) -> str:
    """The page of the shipped experiments: single ones with their YAML, families as tables."""
    text = (
        "# Presets\n\n`nern presets` lists the shipped experiments, and `nern presets NAME -o mine.yaml` writes one of them, "
        "ready to edit.\n\n"
    )
    families: dict[str, list[str]] = {}
    for name in shipped:
        families.setdefault(name.partition("/")[0] if "/" in name else "", []).append(name)
    alone = families.pop("", [])
    text += table(("name", "what it is"), [(f"[`{name}`](#{name})", escape(headline(shipped[name]))) for name in alone])
    for name in alone:
        body = "\n    ".join(["```yaml", *shipped[name].rstrip().splitlines(), "```"])
        text += f"\n## `{name}` {{ #{name} }}\n\n{escape(headline(shipped[name]))}\n\n"
        text += f'??? note "{name}.yaml"\n\n    {body}\n'
    for family, names in families.items():
        title = headline(shipped[names[0]]).partition(":")[0]
        text += f"\n## {escape(title)} {{ #{family} }}\n\nEach row is another experiment with some values set.\n\n"
        text += table(("name", "experiment and values"), [(f"`{name}`", _settings(headline(shipped[name]))) for name in names])
    return text


def _settings(text: str) -> str:
    """Format the summary `Table 1: base a=1 b=2`, with the base and each value as code."""
    return " ".join(f"`{word}`" for word in text.rpartition(": ")[2].replace("|", "&#124;").split())


def headline(text: str) -> str:
    """The comment in a preset's first line."""
    return text.splitlines()[0].removeprefix("# ")
