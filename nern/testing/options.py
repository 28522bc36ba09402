"""Checks the options of a component."""

from __future__ import annotations

import types
from typing import Any

import yaml

from nern import hookspecs
from nern.config.structuring import structure_component, unstructure
from nern.config.yaml_reading import read_yaml
from nern.errors import NernError
from nern.options import describe, summary
from nern.registry.registry import KINDS, Registry
from nern.support.contracts import renamed_for_now
from nern.testing.assertions import expect


def check_options(kind: str, component: Any) -> None:
    """Check that all options are documented, and that they are the same after being written to YAML and read back."""
    cls, interface = type(component), KINDS[kind][1]
    expect(isinstance(component, interface), f"{cls.__name__} is not derived from nern.{interface.__name__}")
    registry = Registry()
    plugin = types.ModuleType("checked")
    setattr(plugin, KINDS[kind][0], hookspecs.hookimpl(lambda: {"checked": cls}))
    with renamed_for_now(cls):
        registry.register(plugin, "checked", "checked", "-")
    expect(not registry.failures, registry.failures[0].reason if registry.failures else "")
    expect(bool(summary(cls)), f"{cls.__name__} needs a docstring: its first line is shown by nern plugins")
    for known in describe(cls):
        expect(bool(known.help), f"option '{known.name}' of {cls.__name__} has no help; write it as nern.option(…, help=…)")
    values = read_yaml(yaml.safe_dump(unstructure(component, registry)), "options")
    try:
        restored = structure_component(kind, values, registry, "options")
    except NernError as error:
        raise AssertionError(f"the options of {cls.__name__} do not survive YAML: {error}") from error
    expect(restored == component, f"{cls.__name__} is {restored} after a round through YAML, was {component}")
