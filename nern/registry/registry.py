"""Knows which component each name means. Components are registered by hooks only, never as a side effect of an import."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import pluggy

from nern import hookspecs, interfaces
from nern.errors import PluginError
from nern.options import problem_with_options, summary
from nern.registry.hook_errors import BREAKS, problem_of, problem_with_call, reason_of
from nern.registry.kinds import HOOKS, OwnName
from nern.support.contracts import place_of_code, remember
from nern.support.messages import did_you_mean
from nern.support.showing import Shown

#: The hook and the interface of each extension point.
KINDS: dict[str, tuple[str, type]] = {kind: (hook, getattr(interfaces, kind.capitalize())) for kind, hook in HOOKS.items()}


@attrs.frozen
class Entry:
    """A registered component, and the plugin and package that it comes from."""

    kind: str
    name: str
    cls: type
    plugin: str  # plugin name: a dotted module name, or the name of an entry point
    package: str
    version: str

    @property
    def summary(self) -> str:
        return summary(self.cls)


@attrs.frozen
class Failure:
    """A plugin that could not be used, and the reason."""

    plugin: str
    package: str
    version: str
    reason: str

    def __str__(self) -> str:
        return f"{self.plugin} ({self.package} {self.version}): {self.reason}"


class Registry(Shown):
    """All components by extension point and name, the plugins that failed or were left out, and the hook manager."""

    def __init__(self) -> None:
        self.manager = pluggy.PluginManager("nern")
        self.manager.add_hookspecs(hookspecs)
        self.failures: list[Failure] = []
        self.left_out: list[str] = []  # installed plugins that were switched off
        self._entries: dict[tuple[str, str], list[Entry]] = {}
        self._owners: dict[str, str] = {}  # plugin name → "package version"

    def __repr__(self) -> str:
        packages = sorted({entry.package for entry in self.entries()})
        failed = f", {len(self.failures)} plugins failed" if self.failures else ""
        return f"Registry({len(self.entries())} components of {', '.join(packages) or 'no package'}{failed})"

    # -- look-ups ------------------------------------------------------------------------------------------------

    def entries(self, kind: str | None = None) -> list[Entry]:
        """Every component, or those of one extension point, in the order of registration."""
        return [entry for (k, _), entries in self._entries.items() if kind in (None, k) for entry in entries]

    def names(self, kind: str) -> list[str]:
        return sorted({entry.name for entry in self.entries(kind)})

    def find(self, kind: str, name: str) -> Entry:
        """The component `name` (or `package:name`) of an extension point.

        Raises:
            PluginError: no plugin offers the name, or several do and the name has no package.
        """
        package, _, bare = name.rpartition(":")
        matching = [entry for entry in self._entries.get((kind, bare), []) if not package or _owns(entry, package)]
        if isinstance(name, OwnName):
            matching = [entry for entry in matching if entry.package == "nern"] or matching
        if len(matching) == 1:
            return matching[0]
        raise PluginError(self._conflict(matching) if matching else self._missing(kind, name))

    def conflicts(self) -> list[str]:
        """One line for every name that several plugins offer, with the unambiguous ways to write it."""
        return [self._conflict(entries) for entries in self._entries.values() if len(entries) > 1]

    def name_of(self, component: Any) -> str:
        """The name of a component's class for a configuration: `package:name` where the plain name could be ambiguous.

        Names of components from outside nern always have their package, so that a file keeps its meaning when another plugin is
        installed.
        """
        for entry in self.entries():
            if entry.cls is type(component):
                alone = len(self._entries[entry.kind, entry.name]) == 1
                return entry.name if entry.package == "nern" and alone else self._qualified(entry)
        raise PluginError(f"{type(component).__name__} is not registered by any plugin")

    def _qualified(self, entry: Entry) -> str:
        rivals = [other for other in self._entries[entry.kind, entry.name] if _owns(other, entry.package)]
        return f"{entry.package if len(rivals) == 1 else entry.plugin}:{entry.name}"

    def _conflict(self, rivals: Sequence[Entry]) -> str:
        owners = " and ".join(f"{entry.package} {entry.version} ({entry.plugin})" for entry in rivals)
        return f"{rivals[0].kind} '{rivals[0].name}' is offered by {owners}; write {' or '.join(map(self._qualified, rivals))}"

    def _missing(self, kind: str, name: str) -> str:
        package, _, bare = name.rpartition(":")
        known, way_out = self.names(kind), ""
        if package and not any(_owns(entry, package) for entry in self.entries()):
            message = f"{kind} '{bare}' belongs to package '{package}', which is not installed or offers nothing"
            way_out = f"; {way_to(package if package.endswith('.py') else package.replace('-', '_') + '.py')}"
        else:
            message = f"no {kind} is called '{name}'" + did_you_mean(bare, known, cutoff=0.5)
        message += f" (there {'are' if len(known) != 1 else 'is'}: {', '.join(known)})"
        if self.failures:
            message += "; plugins that failed to load: " + "; ".join(map(str, self.failures))
        if self.left_out:
            message += "; plugins that were left out: " + ", ".join(self.left_out)
        return message + way_out

    # -- registration --------------------------------------------------------------------------------------------

    def register(self, plugin: Any, name: str, package: str = "nern", version: str = "") -> None:
        """Register a plugin (module or object with hook implementations) and collect what it offers.

        A plugin that raises an error is added to `failures`, and none of its components are registered. A plugin that is already
        registered is not registered again.
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
        except BREAKS as error:
            if self.manager.has_plugin(name):
                self.manager.unregister(name=name)
            self.failures.append(Failure(name, package, version, reason_of(error)))
            return
        self._owners[name] = f"{package} {version}"
        for entry in offered:
            self._entries.setdefault((entry.kind, entry.name), []).append(entry)
            remember(entry.cls, entry.kind, f"{entry.package}:{entry.name}")

    def observer_failed(self, name: str, reason: str) -> None:
        """Record that an observer was switched off during a run, and the reason."""
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
            implementation = next(implementation for implementation in caller.get_hookimpls() if implementation.plugin is plugin)
            if implementation.wrapper or implementation.hookwrapper:
                raise PluginError(f"{caller.name} is a wrapper; nern calls plain implementations only")
            problem = problem_with_call(caller.name, implementation.function)
            if problem:
                raise PluginError(f"{problem}{place_of_code('', implementation.function)}")
            if caller.name not in hooks:
                continue
            kind, interface = hooks[caller.name]
            try:
                offered = implementation.function()
            except BREAKS as error:
                raise PluginError(f"{caller.name} raised {reason_of(error)}") from error
            if not isinstance(offered, Mapping):
                raise PluginError(f"{caller.name} must return a mapping from name to class, got {type(offered).__name__}")
            for component, cls in offered.items():
                problem = _problem(kind, interface, component, cls)
                if problem:
                    raise PluginError(f"{caller.name} offers {component!r}, {problem}{place_of_code('', cls, implementation.function)}")
                entries.append(Entry(kind, component, cls, name, package, version))
        return entries


def way_to(file: str) -> str:
    """What a user can do where a plugin is missing; a file of this name may be the plugin."""
    named = f"a plugin in a file of your own is named with --plugin {file}, in Python plugins=['{file}']"
    return f"install the package that offers it; {named}"


_TERM_OPTIONS = {"name", "weight", "warmup"}
_NAME = re.compile(r"[^\W\d_][\w-]*")  # what can stand in a dotted path and in package:name
_NO_TEXT = {"null", "true", "false", "yes", "no", "on", "off"}  # which YAML reads as something else


def _problem(kind: str, interface: type, name: object, cls: object) -> str | None:
    """What is wrong with an offered component, as the end of a sentence that begins with its name; None where it is right."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name.lower() in _NO_TEXT:
        return "but a name must begin with a letter, have letters, digits, '-' and '_' alone, and be no word such as true or null"
    if not (isinstance(cls, type) and issubclass(cls, interface) and attrs.has(cls)):
        return f"which is not an attrs class derived from nern.{interface.__name__}"
    if inspect.isabstract(cls):
        return f"which does not implement {', '.join(sorted(cls.__abstractmethods__))}"
    wrong = problem_with_options(cls)
    if wrong:
        return wrong
    reserved = sorted((_TERM_OPTIONS if kind == "loss" else {"name"}) & {field.name for field in attrs.fields(cls)})
    if reserved:
        return f"whose option '{reserved[0]}' collides with the configuration's own key of that name"
    if kind == "loss" and getattr(cls, "needs", None) not in ("weights", "outputs", "logits", "features", "bits"):
        return 'whose attribute \'needs\' must be "weights", "outputs" (or "logits", which means the same), "features" or "bits"'
    wrong = problem_of(cls) if kind == "observer" else None
    return f"but {wrong}" if wrong else None


def _owns(entry: Entry, package: str) -> bool:
    return entry.plugin == package or canonical(entry.package) == canonical(package)


def canonical(name: str) -> str:
    """A package's name in the normal form of installers: lower case, with hyphens only."""
    return re.sub(r"[-_.]+", "-", name).lower()
