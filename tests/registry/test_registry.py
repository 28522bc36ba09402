"""Names and components, apart from installed packages, which tests/plugins covers."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import attrs
import pytest

import nern
from nern.errors import PluginError
from nern.options import describe
from nern.registry.discovery import BUILTINS, create_registry
from nern.registry.registry import KINDS, Registry


@attrs.frozen
class First(nern.Sampler):
    """The first kernel alone."""

    def start(self, kernels: object, layers: object, seed: int) -> object:
        return lambda step: None


def offering(hook: str, offered: object) -> SimpleNamespace:
    """A plugin with one hook."""

    def implementation() -> object:
        return offered

    implementation.__name__ = hook
    return SimpleNamespace(**{hook: nern.hookimpl(implementation)})


def test_what_is_registered_comes_from_hooks_alone() -> None:
    for module in BUILTINS:
        importlib.import_module(module)
    assert Registry().entries() == []
    owners = {entry.plugin for entry in create_registry(entry_points=False).entries()}
    assert owners == set(BUILTINS)


def test_every_component_is_documented(registry: Registry) -> None:
    for entry in registry.entries():
        assert entry.summary, entry.name
        assert (entry.package, entry.version) == ("nern", nern.__version__)
        for option in describe(entry.cls):
            assert option.help, f"{entry.kind} {entry.name}: {option.name}"
    assert {entry.kind for entry in registry.entries()} == set(KINDS)


def test_two_registries_share_nothing() -> None:
    one, other = create_registry(entry_points=False), create_registry(entry_points=False)
    one.register(offering("nern_samplers", {"first": First}), "mine", "mine", "1")
    assert "first" in one.names("sampler")
    assert "first" not in other.names("sampler")


def test_one_name_of_two_owners_is_refused_with_both(registry: Registry) -> None:
    registry.register(offering("nern_samplers", {"uniform": First}), "mine", "mine", "1.2")
    with pytest.raises(
        PluginError, match=r"sampler 'uniform' is offered by nern .* and mine 1\.2 \(mine\); write nern:uniform or mine:uniform"
    ):
        registry.find("sampler", "uniform")
    assert registry.find("sampler", "mine:uniform").cls is First
    assert registry.find("sampler", "nern:uniform").cls is not First
    assert registry.name_of(First()) == "mine:uniform"


@pytest.mark.parametrize(
    ("plugin", "reason"),
    [
        (offering("nern_samplers", [First]), "nern_samplers must return a mapping from name to class, got list"),
        (offering("nern_samplers", {"first": dict}), r"not an attrs class derived from nern\.Sampler"),
        (offering("nern_losses", {"first": First}), r"not an attrs class derived from nern\.Loss"),
        (offering("nern_sampler", {"first": First}), "nern_sampler.*did you mean 'nern_samplers'"),
    ],
    ids=["list", "class", "kind", "hook"],
)
def test_a_plugin_that_breaks_its_contract_leaves_nothing_behind(registry: Registry, plugin: object, reason: str) -> None:
    before = registry.entries()
    registry.register(plugin, "mine", "mine", "1")
    assert registry.entries() == before
    (failure,) = registry.failures
    with pytest.raises(PluginError, match=reason):
        registry.find("sampler", "first")
    assert str(failure).startswith("mine (mine 1): ")


def test_a_component_of_nobody_has_no_name(registry: Registry) -> None:
    with pytest.raises(PluginError, match="First is not registered by any plugin"):
        registry.name_of(First())
