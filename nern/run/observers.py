"""Calls the observers of a run in such a way that an observer's error does not end the run."""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import pluggy

from nern.errors import NernError, PluginError
from nern.registry.hook_errors import OBSERVER_HOOKS, explain
from nern.registry.registry import Registry
from nern.support.contracts import owner_of, raised
from nern.support.settings import kept

log = logging.getLogger("nern")


class ObserverCalls:
    """Calls the observer hooks of a registry's plugins: `calls.nern_step(phase=…, …)`.

    An exception in an observer is reported once, as a warning that names the observer, and none of its hooks is called again in
    this run. A NernError is passed on: an observer raises one to refuse a setting or to stop a run (`nern.Interrupted`). Where a
    run ends with an error, that error is reported, even if an observer raises another one afterwards. Observers get copies of
    dictionaries, so that changes in them have no effect; what they change of settings that all code shares is put back.

    Args:
        registry: its plugins and observers are called; it also records why an observer was switched off.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry, self._manager = registry, registry.manager
        self._off: list[Any] = []
        self._meddling: list[Any] = []  # observers that change what all code shares, each of which is named once

    def __getattr__(self, hook: str) -> Callable[..., None]:
        if hook not in OBSERVER_HOOKS:
            raise AttributeError(f"there is no observer hook '{hook}'")
        return functools.partial(self._call, hook)

    def _call(self, hook: str, **arguments: Any) -> None:
        for implementation in reversed(getattr(self._manager.hook, hook).get_hookimpls()):
            if any(implementation.plugin is plugin for plugin in self._off):
                continue
            try:
                with kept() as changed:
                    implementation.function(*(_copied(arguments[name]) for name in implementation.argnames))
                if changed and not any(implementation.plugin is plugin for plugin in self._meddling):
                    self._meddling.append(implementation.plugin)
                    log.warning("nern: %s changes %s in %s; that is put back", self._called(implementation), " and ".join(changed), hook)
            except (Exception, SystemExit) as error:
                if isinstance(error, NernError) and arguments.get("error") is None:
                    raise
                self._off.append(implementation.plugin)
                reason = f"{hook} {raised(error)}"
                log.warning("nern: %s is switched off for the rest of the run: %s", self._called(implementation), reason)
                log.debug("%s in %s", hook, implementation.plugin_name, exc_info=error)
                self._registry.observer_failed(implementation.plugin_name, reason)

    def _called(self, implementation: Any) -> str:
        """What messages call an observer."""
        owner = owner_of(implementation.plugin)
        return f"{implementation.plugin_name} ({owner})" if owner else implementation.plugin_name

    @contextmanager
    def joined_by(self, observers: Mapping[str, Any]) -> Iterator[None]:
        """Let further observers (label → observer) watch a block, which is one run.

        Raises:
            PluginError: an observer cannot be registered.
        """
        self._off.clear()
        with ExitStack() as registered:
            for label, observer in observers.items():
                try:
                    self._manager.register(observer, f"observer {label}")
                except Exception as error:  # an observer may raise anything where it is compared with others
                    reason = explain(error) if isinstance(error, pluggy.PluginValidationError) else raised(error)
                    raise PluginError(f"observer '{label}' cannot watch the run: {reason}") from error
                registered.callback(self._manager.unregister, observer)
            yield


def _copied(value: Any) -> Any:
    """A deep copy of a dictionary; other arguments are returned as they are: they cannot be changed, or are the error itself."""
    return copy.deepcopy(value) if isinstance(value, dict) else value
