"""Which components and choices the recorded runs train with, and which the library offers."""

from __future__ import annotations

import json
import re
import typing
from pathlib import Path

from tests.system.recorded.cases import GIVEN, RUNS, engine
from tests.system.recorded.command import command_line


def used(name: str, folder: Path) -> set[tuple[str, ...]]:
    """What a run trains with: ("sampler", "all") for a component, ("loss", "form", "mse") for a choice among words.

    The experiment's own choices are ("experiment", option, value).
    """
    running = engine(name, folder)
    whole = running.experiment
    components = [("architecture", whole.architecture), ("embedding", whole.embedding), ("predictor", whole.predictor)]
    components += [("smoother", whole.smoother), ("task", whole.task)]
    for phase in whole.phases:
        components += [("sampler", phase.sampler or whole.sampler), ("optimizer", phase.optimizer or whole.optimizer)]
        losses = whole.losses if phase.losses is None else phase.losses
        components += [("loss", term.loss) for term in losses.values() if term.weight > 0]
        components += [("task", phase.inputs)] if phase.inputs is not None else []
    choices = {(kind, running.registry.name_of(component)) for kind, component in components}
    for kind, component in [*components, ("experiment", whole)]:
        for field in component.__attrs_attrs__:
            value = getattr(component, field.name)
            if isinstance(value, (str, bool)):
                choices.add((kind, field.name, str(value)))
    return choices


def offered(folder: Path) -> set[tuple[str, ...]]:
    """What the library ships, in the form of `used`, as `nern plugins --json` and the experiment's own types tell it.

    Observers look on and launchers start runs elsewhere: neither changes a number. Metrics and bases are held against sums
    written out in tests of their own; which options an architecture takes is the business of its own tests, and so is what `nern.represent`
    makes of a network and data of one's own (`GIVEN`).
    """
    shipped = set[tuple[str, ...]]()
    for component in json.loads(command_line("plugins", "--json"))["components"]:
        kind = component["kind"]
        if kind in ("observer", "metric", "base", "launcher") or component["package"] != "nern" or (kind, component["name"]) in GIVEN:
            continue
        shipped.add((kind, component["name"]))
        for option in component["options"] if kind != "architecture" else ():
            shipped |= {(kind, option["name"], choice) for choice in re.findall(r'"([^"]+)"', option["type"])}
    for name, hint in typing.get_type_hints(type(engine(next(iter(RUNS)), folder).experiment)).items():
        choices = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else (False, True) if hint is bool else ()
        shipped |= {("experiment", name, str(choice)) for choice in choices if name != "cuda_graphs"}  # a processor records none
    return shipped
