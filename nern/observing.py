"""Observers of a run, kept from taking the run down with them."""

from __future__ import annotations

import difflib
import functools
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import pluggy

from nern import hookspecs
from nern.errors import NernError, PluginError

log = logging.getLogger("nern")


class Watchers:
    """Calls the observer hooks of a manager: `watchers.nern_step(phase=…, …)`.

    An exception in one observer is reported once, as a warning that names it, and none of its hooks is called again in
    this run. A NernError passes: an observer raises one to refuse a setting or to stop a run (`nern.Interrupted`).

    Args:
        failed: called with the plugin's name and the reason when an observer was switched off.
    """

    def __init__(self, manager: pluggy.PluginManager, failed: Callable[[str, str], None]) -> None:
        self._manager, self._failed = manager, failed
        self._off: list[Any] = []

    def __getattr__(self, hook: str) -> Callable[..., None]:
        if hook not in OBSERVER_HOOKS:
            raise AttributeError(f"there is no observer hook '{hook}'")
        return functools.partial(self._call, hook)

    def _call(self, hook: str, **arguments: Any) -> None:
        for implementation in reversed(getattr(self._manager.hook, hook).get_hookimpls()):
            if any(implementation.plugin is plugin for plugin in self._off):
                continue
            try:
                implementation.function(*(arguments[name] for name in implementation.argnames))
            except NernError:
                raise
            except Exception as error:
                self._off.append(implementation.plugin)
                reason = f"{hook} raised {type(error).__name__}: {' '.join(str(error).split())}"
                log.warning("nern: %s is switched off for the rest of the run: %s", implementation.plugin_name, reason)
                log.debug("%s in %s", hook, implementation.plugin_name, exc_info=error)
                self._failed(implementation.plugin_name, reason)

    @contextmanager
    def joined_by(self, observers: Mapping[str, Any]) -> Iterator[None]:
        """Observers (label → observer) that watch what happens in a block, which is one run.

        Raises:
            PluginError: an observer cannot be registered.
        """
        self._off.clear()
        with ExitStack() as registered:
            for label, observer in observers.items():
                try:
                    self._manager.register(observer, f"observer {label}")
                except (pluggy.PluginValidationError, ValueError) as error:
                    reason = explain(error) if isinstance(error, pluggy.PluginValidationError) else str(error)
                    raise PluginError(f"observer '{label}' cannot watch the run: {reason}") from error
                registered.callback(self._manager.unregister, observer)
            yield


def problem_of(cls: type) -> str | None:
    """What is wrong with the hooks of an observer class: a misspelled one, an argument that the hook does not have."""
    trial = pluggy.PluginManager("nern")
    trial.add_hookspecs(hookspecs)
    try:
        trial.register(cls)
        trial.check_pending()
    except pluggy.PluginValidationError as error:
        return explain(error)
    if not trial.get_hookcallers(cls):
        return f"{cls.__name__} implements no hook; mark methods such as nern_step with @nern.hookimpl"
    return None


def explain(error: pluggy.PluginValidationError) -> str:
    """One line for what pluggy refuses, with what would be right."""
    text = " ".join(str(error).split())
    unknown = re.match(r"unknown hook '([^']+)'", text)
    if unknown:
        near = difflib.get_close_matches(unknown[1], ALL_HOOKS, n=1, cutoff=0.5)
        return f"there is no hook '{unknown[1]}'" + (f", did you mean '{near[0]}'?" if near else f" (there are: {', '.join(ALL_HOOKS)})")
    foreign = re.search(r"for hook '(nern_\w+)' .*Argument\(s\) \{(.*)\} are declared", text)
    if foreign:
        offered = ", ".join(arguments_of(foreign[1])) or "no argument"
        return f"hook {foreign[1]} has no argument {foreign[2]}; it offers {offered}"
    return text


def arguments_of(hook: str) -> tuple[str, ...]:
    """The arguments that a hook offers."""
    specified = getattr(hookspecs, hook, None)
    return tuple(specified.__code__.co_varnames[: specified.__code__.co_argcount]) if specified else ()


ALL_HOOKS = [name for name in vars(hookspecs) if name.startswith("nern_")]
OBSERVER_HOOKS = [name for name in ALL_HOOKS if getattr(hookspecs, name).__annotations__["return"] == "None"]
