"""Finds plugins and keeps name → component. What is registered comes only from hooks."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import pluggy

from nern import builtin, hookspecs, interfaces
from nern.errors import PluginError
from nern.observing import Watchers, explain, problem_of
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
    """Components by extension point and name, the plugins that failed or were left out, and the hook manager."""

    def __init__(self) -> None:
        self.manager = pluggy.PluginManager("nern")
        self.manager.add_hookspecs(hookspecs)
        self.watchers = Watchers(self.manager, self._observer_failed)
        self.failures: list[Failure] = []
        self.left_out: list[str] = []  # installed plugins that were switched off
        self._entries: dict[tuple[str, str], list[Entry]] = {}
        self._owners: dict[str, str] = {}  # plugin name → "package version"

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
        found = [entry for entry in self._entries.get((kind, bare), []) if not package or _owns(entry, package)]
        if len(found) == 1:
            return found[0]
        raise PluginError(self._conflict(found) if found else self._missing(kind, name))

    def conflicts(self) -> list[str]:
        """One line for every name that several plugins offer, with the ways to write each."""
        return [self._conflict(found) for found in self._entries.values() if len(found) > 1]

    def name_of(self, component: Any) -> str:
        """The name of a component's class, for a configuration: `package:name` where the bare name may not be enough.

        Components from outside nern carry their package always, so that a file goes on meaning the same when another
        plugin is installed.
        """
        for entry in self.entries():
            if entry.cls is type(component):
                alone = len(self._entries[entry.kind, entry.name]) == 1
                return entry.name if entry.package == "nern" and alone else self._qualified(entry)
        raise PluginError(f"{type(component).__name__} is not registered by any plugin")

    def _qualified(self, entry: Entry) -> str:
        rivals = [other for other in self._entries[entry.kind, entry.name] if _owns(other, entry.package)]
        return f"{entry.package if len(rivals) == 1 else entry.plugin}:{entry.name}"

    def _conflict(self, found: Sequence[Entry]) -> str:
        owners = " and ".join(f"{entry.package} {entry.version} ({entry.plugin})" for entry in found)
        return f"{found[0].kind} '{found[0].name}' is offered by {owners}; write {' or '.join(map(self._qualified, found))}"

    def _missing(self, kind: str, name: str) -> str:
        package, _, bare = name.rpartition(":")
        known = self.names(kind)
        near = difflib.get_close_matches(bare, known, n=1, cutoff=0.5)
        if package and not any(_owns(entry, package) for entry in self.entries()):
            message = f"{kind} '{bare}' belongs to package '{package}', which is not installed or offers nothing"
        else:
            message = f"no {kind} is called '{name}'" + (f", did you mean '{near[0]}'?" if near else "")
        message += f" (there {'are' if len(known) != 1 else 'is'}: {', '.join(known)})"
        if self.failures:
            message += "; plugins that failed to load: " + "; ".join(map(str, self.failures))
        if self.left_out:
            message += "; plugins that were left out: " + ", ".join(self.left_out)
        return message

    # -- registration --------------------------------------------------------------------------------------------

    def register(self, plugin: Any, name: str, package: str = "nern", version: str = "") -> None:
        """Register a plugin (module or object with hook implementations) and collect what it offers.

        A plugin that breaks is put into `failures` and leaves nothing behind; one that is registered already stays as
        it is.
        """
        if self.manager.is_registered(plugin):
            return
        if self.manager.has_plugin(name):
            self.failures.append(Failure(name, package, version, f"the plugin name '{name}' is taken by {self._owners[name]}"))
            return
        try:
            self.manager.register(plugin, name)
            offered = self._offers(plugin, name, package, version)
            self.manager.check_pending()
        except _BREAKS as error:
            if self.manager.has_plugin(name):
                self.manager.unregister(name=name)
            self.failures.append(Failure(name, package, version, _reason(error)))
            return
        self._owners[name] = f"{package} {version}"
        for entry in offered:
            self._entries.setdefault((entry.kind, entry.name), []).append(entry)

    def _observer_failed(self, name: str, reason: str) -> None:
        owner = self._owners.get(name, "")
        package, _, version = owner.partition(" ")
        self.failures.append(Failure(name, package or "-", version or "-", reason))

    def _offers(self, plugin: Any, name: str, package: str, version: str) -> list[Entry]:
        hooks = {hook: (kind, interface) for kind, (hook, interface) in KINDS.items()}
        callers = self.manager.get_hookcallers(plugin) or []
        if not callers:
            raise PluginError("it implements no hook; mark functions such as nern_losses with @nern.hookimpl")
        entries = []
        for caller in callers:
            implementation = next(found for found in caller.get_hookimpls() if found.plugin is plugin)
            if implementation.wrapper or implementation.hookwrapper:
                raise PluginError(f"{caller.name} is a wrapper; nern calls plain implementations only")
            if caller.name not in hooks:
                continue
            kind, interface = hooks[caller.name]
            try:
                offered = implementation.function()
            except _BREAKS as error:
                raise PluginError(f"{caller.name} raised {_reason(error)}") from error
            if not isinstance(offered, Mapping):
                raise PluginError(f"{caller.name} must return a mapping from name to class, got {type(offered).__name__}")
            for component, cls in offered.items():
                problem = _problem(kind, interface, component, cls)
                if problem:
                    raise PluginError(f"{caller.name} offers {component!r}, {problem}")
                entries.append(Entry(kind, component, cls, name, package, version))
        return entries

    # -- discovery -----------------------------------------------------------------------------------------------

    def load_module(self, source: str, folder: Path | None = None) -> None:
        """Register a local plugin: the path of a Python file, or the name of a module; both may lie in `folder`."""
        package, folder = local_name(source), folder or Path()
        try:
            plugin = _import_file(folder / source) if source.endswith(".py") else _import_module(source, folder)
        except _BREAKS as error:
            self.failures.append(Failure(source, package, "local", _reason(error)))
            return
        self.register(plugin, source, package, "local")

    def load_entry_points(self, disabled: Iterable[str] = ()) -> None:
        """Register every entry point of group `nern`, except those whose name or package is in `disabled`."""
        without = {_canonical(name) for name in disabled}
        for point in importlib.metadata.entry_points(group="nern"):
            package, version = (point.dist.name, point.dist.version) if point.dist else ("unknown", "-")
            if {_canonical(point.name), _canonical(package)} & without:
                self.left_out.append(f"{point.name} ({package} {version})")
                continue
            try:
                _check_requirement(point.dist)
                plugin = point.load()
            except _BREAKS as error:
                self.failures.append(Failure(point.name, package, version, _reason(error)))
                continue
            self.register(plugin, point.name, package, version)


def create_registry(
    plugins: Sequence[str] = (), *, folder: Path | None = None, entry_points: bool = True, disabled: Iterable[str] = ()
) -> Registry:
    """A registry with the built-ins, the installed plugins and the local ones.

    Args:
        plugins: local plugins: paths of Python files, relative to `folder`, or module names.
        entry_points: whether to look for installed plugins; `NERN_DISABLE_PLUGINS=1` in the environment overrules it.
        disabled: plugins to leave out, by name or package; `NERN_DISABLE_PLUGINS=name,name` adds to them.

    Raises:
        PluginError: `disabled` names something that is neither an installed nor a local plugin.
    """
    from nern import __version__

    registry = Registry()
    for module in builtin.MODULES:
        registry.register(importlib.import_module(module), module, "nern", __version__)
    if registry.failures:
        raise PluginError(f"a built-in plugin is broken: {registry.failures[0]}")
    disabled = list(disabled)
    _refuse_unknown(disabled, plugins)
    switched_off = os.environ.get("NERN_DISABLE_PLUGINS", "").strip()
    everything = not entry_points or switched_off.lower() in ("1", "true", "all")
    if not everything:
        registry.load_entry_points([*disabled, *(name.strip() for name in switched_off.split(",") if name.strip())])
    elif entry_points:
        registry.left_out = [f"{point.name} (NERN_DISABLE_PLUGINS={switched_off})" for point in _installed()]
    for source in plugins:
        if {source, local_name(source)} & set(disabled):
            registry.left_out.append(source)
        else:
            registry.load_module(source, folder)
    return registry


def local_name(source: str) -> str:
    """The package name of a local plugin: a file's stem, a module's first part."""
    return Path(source).stem if source.endswith(".py") else source.split(".")[0]


_BREAKS = (Exception, SystemExit)  # what a plugin may do to itself; Ctrl-C is the user's
_TERM_OPTIONS = {"name", "weight", "warmup"}


def _problem(kind: str, interface: type, name: object, cls: object) -> str | None:
    """What is wrong with an offered component, to stand behind its name; None where nothing is."""
    if not isinstance(name, str) or not name or ":" in name:
        return "but a name must be text without a colon"
    if not (isinstance(cls, type) and issubclass(cls, interface) and attrs.has(cls)):
        return f"which is not an attrs class derived from nern.{interface.__name__}"
    if inspect.isabstract(cls):
        return f"which does not implement {', '.join(sorted(cls.__abstractmethods__))}"
    reserved = sorted((_TERM_OPTIONS if kind == "loss" else {"name"}) & {field.name for field in attrs.fields(cls)})
    if reserved:
        return f"whose option '{reserved[0]}' collides with the configuration's own key of that name"
    if kind == "loss" and getattr(cls, "needs", None) not in ("weights", "logits", "features"):
        return 'whose attribute \'needs\' must be "weights", "logits" or "features"'
    wrong = problem_of(cls) if kind == "observer" else None
    return f"but {wrong}" if wrong else None


def _refuse_unknown(disabled: Sequence[str], local: Sequence[str]) -> None:
    known = [name for point in _installed() for name in (point.name, point.dist.name if point.dist else "")]
    known += [name for source in local for name in (source, local_name(source))]
    for name in disabled:
        if _canonical(name) not in map(_canonical, known):
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            there = f"installed are: {', '.join(sorted(set(filter(None, known))))}" if known else "none is installed"
            raise PluginError(f"--no-plugin {name}: there is no such plugin" + (f", did you mean '{near[0]}'?" if near else f" ({there})"))


def _installed() -> list[importlib.metadata.EntryPoint]:
    return list(importlib.metadata.entry_points(group="nern"))


def _owns(entry: Entry, package: str) -> bool:
    return entry.plugin == package or _canonical(entry.package) == _canonical(package)


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _reason(error: BaseException) -> str:
    if isinstance(error, pluggy.PluginValidationError):
        return explain(error)
    text = " ".join(str(error).split())
    return text if isinstance(error, PluginError) else f"{type(error).__name__}: {text}"


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise PluginError(f"there is no file {path}")
    place = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]  # two files of one name are two modules
    name = f"nern_local_{path.stem}_{place}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_module(name: str, folder: Path) -> ModuleType:
    """Import from the Python path, and from `folder` where that does not have it."""
    sys.path.append(str(folder.resolve()))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(folder.resolve()))


def _check_requirement(dist: importlib.metadata.Distribution | None) -> None:
    """Refuse a package whose own requirement on nern excludes the running version."""
    from packaging.requirements import Requirement

    from nern import __version__

    for text in (dist.requires or []) if dist else []:
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        if _canonical(requirement.name) == "nern" and not requirement.specifier.contains(__version__, prereleases=True):
            raise PluginError(f"it needs nern{requirement.specifier}, this is nern {__version__}")
