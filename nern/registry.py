"""Finds plugins and keeps name → component. What is registered comes only from hooks."""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import pluggy

from nern import builtin, hookspecs, interfaces
from nern.errors import PluginError
from nern.options import summary

#: Extension point → (hook, interface). The only list of extension points; everything else derives from it.
KINDS: dict[str, tuple[str, type]] = {
    "architecture": ("nern_architectures", interfaces.Architecture),
    "embedding": ("nern_embeddings", interfaces.Embedding),
    "predictor": ("nern_predictors", interfaces.Predictor),
    "sampler": ("nern_samplers", interfaces.Sampler),
    "smoother": ("nern_smoothers", interfaces.Smoother),
    "loss": ("nern_losses", interfaces.Loss),
    "task": ("nern_tasks", interfaces.Task),
    "optimizer": ("nern_optimizers", interfaces.Optimizer),
    "observer": ("nern_observers", interfaces.Observer),
}


@attrs.frozen
class Entry:
    """A registered component and whose it is."""

    kind: str
    name: str
    cls: type
    plugin: str  # dotted module or entry-point name
    package: str
    version: str

    @property
    def summary(self) -> str:
        return summary(self.cls)


@attrs.frozen
class Failure:
    """A plugin that could not be used, and why."""

    plugin: str
    package: str
    version: str
    reason: str

    def __str__(self) -> str:
        return f"{self.plugin} ({self.package} {self.version}): {self.reason}"


class Registry:
    """Components by extension point and name, the plugins that failed, and the hook manager."""

    def __init__(self) -> None:
        self.manager = pluggy.PluginManager("nern")
        self.manager.add_hookspecs(hookspecs)
        self.failures: list[Failure] = []
        self._entries: dict[tuple[str, str], list[Entry]] = {}

    # -- look-ups ------------------------------------------------------------------------------------------------

    def entries(self, kind: str | None = None) -> list[Entry]:
        """Every component, or those of one extension point, in the order of registration."""
        return [entry for (k, _), found in self._entries.items() if kind in (None, k) for entry in found]

    def names(self, kind: str) -> list[str]:
        return sorted({entry.name for entry in self.entries(kind)})

    def find(self, kind: str, name: str) -> Entry:
        """The component `name` (or `package:name`) of an extension point.

        Raises:
            PluginError: nobody offers it, or several do and the name does not say which.
        """
        package, _, bare = name.rpartition(":")
        found = [entry for entry in self._entries.get((kind, bare), []) if package in ("", entry.package, entry.plugin)]
        if len(found) == 1:
            return found[0]
        if found:
            owners = " and ".join(f"{entry.package} {entry.version} ({entry.plugin})" for entry in found)
            choices = " or ".join(f"{entry.package if found[0].package != found[-1].package else entry.plugin}:{bare}" for entry in found)
            raise PluginError(f"{kind} '{bare}' is offered by {owners}; write {choices}")
        raise PluginError(self._missing(kind, name))

    def name_of(self, component: Any) -> str:
        """The name under which a component's class is registered."""
        for entry in self.entries():
            if entry.cls is type(component):
                shared = len(self._entries[entry.kind, entry.name]) > 1
                return f"{entry.package}:{entry.name}" if shared else entry.name
        raise PluginError(f"{type(component).__name__} is not registered by any plugin")

    def _missing(self, kind: str, name: str) -> str:
        near = difflib.get_close_matches(name, self.names(kind), n=1, cutoff=0.5)
        message = f"no {kind} is called '{name}'" + (f", did you mean '{near[0]}'?" if near else "")
        message += f" (there {'are' if len(self.names(kind)) != 1 else 'is'}: {', '.join(self.names(kind))})"
        if self.failures:
            message += "; plugins that failed to load: " + "; ".join(map(str, self.failures))
        return message

    # -- registration --------------------------------------------------------------------------------------------

    def register(self, plugin: Any, name: str, package: str = "nern", version: str = "") -> None:
        """Register a plugin (module or object with hook implementations) and collect what it offers.

        A plugin that breaks is put into `failures` and leaves nothing behind.
        """
        if self.manager.is_blocked(name) or self.manager.has_plugin(name):
            return
        try:
            self.manager.register(plugin, name)
            self._refuse_unknown_hooks(name)
            offered = [self._offers(plugin, kind, name, package, version) for kind in KINDS]
        except Exception as error:
            if self.manager.has_plugin(name):
                self.manager.unregister(name=name)
            self.failures.append(Failure(name, package, version, _reason(error)))
            return
        for entries in offered:
            for entry in entries:
                self._entries.setdefault((entry.kind, entry.name), []).append(entry)

    def _offers(self, plugin: Any, kind: str, name: str, package: str, version: str) -> list[Entry]:
        hook, interface = KINDS[kind]
        entries = []
        for implementation in getattr(self.manager.hook, hook).get_hookimpls():
            if implementation.plugin is not plugin:
                continue
            offered = implementation.function()
            if not isinstance(offered, Mapping):
                raise TypeError(f"{hook} must return a mapping from name to class, got {type(offered).__name__}")
            for component, cls in offered.items():
                if not (isinstance(cls, type) and issubclass(cls, interface) and attrs.has(cls)):
                    raise TypeError(f"{hook} offers '{component}', which is not an attrs class derived from nern.{interface.__name__}")
                entries.append(Entry(kind, component, cls, name, package, version))
        return entries

    def _refuse_unknown_hooks(self, name: str) -> None:
        try:
            self.manager.check_pending()
        except pluggy.PluginValidationError as error:
            unknown = str(error).split("'")[1] if "'" in str(error) else str(error)
            near = difflib.get_close_matches(unknown, [hook for hook in dir(hookspecs) if hook.startswith("nern_")], n=1)
            raise PluginError(f"there is no hook {unknown!r}" + (f", did you mean '{near[0]}'?" if near else "")) from error

    def load_module(self, source: str, folder: Path | None = None) -> None:
        """Register a local plugin: the path of a Python file (relative to `folder`) or a module name."""
        try:
            module = _import_file((folder or Path()) / source) if source.endswith(".py") else importlib.import_module(source)
        except Exception as error:
            self.failures.append(Failure(source, "local", "-", _reason(error)))
            return
        self.register(module, source, package=Path(source).stem if source.endswith(".py") else source.split(".")[0], version="-")

    def load_entry_points(self, disabled: Iterable[str] = ()) -> None:
        """Register every entry point of group `nern`, except those whose name or package is in `disabled`."""
        disabled = set(disabled)
        for point in importlib.metadata.entry_points(group="nern"):
            package, version = (point.dist.name, point.dist.version) if point.dist else ("unknown", "-")
            if point.name in disabled or package in disabled:
                continue
            try:
                _check_requirement(point.dist)
                plugin = point.load()
            except Exception as error:
                self.failures.append(Failure(point.name, package, version, _reason(error)))
                continue
            if self.manager.has_plugin(point.name):
                self.failures.append(Failure(point.name, package, version, f"the plugin name '{point.name}' is already taken"))
                continue
            self.register(plugin, point.name, package, version)


def create_registry(
    plugins: Sequence[str] = (), *, folder: Path | None = None, entry_points: bool = True, disabled: Iterable[str] = ()
) -> Registry:
    """A registry with the built-ins, the installed plugins and the local ones.

    Args:
        plugins: local plugins: paths of Python files, relative to `folder`, or module names.
        entry_points: whether to look for installed plugins; `NERN_DISABLE_PLUGINS=1` in the environment overrules it.
        disabled: names of installed plugins or packages to leave out; `NERN_DISABLE_PLUGINS=name,name` adds to them.
    """
    from nern import __version__

    registry = Registry()
    for module in builtin.MODULES:
        registry.register(importlib.import_module(module), module, "nern", __version__)
    if registry.failures:
        raise PluginError(f"a built-in plugin is broken: {registry.failures[0]}")
    switched_off = os.environ.get("NERN_DISABLE_PLUGINS", "")
    if entry_points and switched_off not in ("1", "true", "all"):
        registry.load_entry_points([*disabled, *filter(None, switched_off.split(","))])
    for source in plugins:
        registry.load_module(source, folder)
    return registry


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if not isinstance(error, PluginError) else str(error)


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise PluginError(f"there is no file {path}")
    name = f"nern_local_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _check_requirement(dist: importlib.metadata.Distribution | None) -> None:
    """Refuse a package whose own requirement on nern excludes the running version."""
    from packaging.requirements import Requirement

    from nern import __version__

    for text in (dist.requires or []) if dist else []:
        requirement = Requirement(text)
        if requirement.name == "nern" and not requirement.specifier.contains(__version__, prereleases=True):
            raise PluginError(f"it needs nern {requirement.specifier}, this is nern {__version__}")
