"""Explains in one line what is wrong with the hooks of a plugin, and what would be right."""

from __future__ import annotations

import inspect
import re

import pluggy

from nern import hookspecs
from nern.errors import PluginError
from nern.support.contracts import place_of
from nern.support.messages import did_you_mean, text_of

ALL_HOOKS = [name for name in vars(hookspecs) if name.startswith("nern_")]
OBSERVER_HOOKS = [name for name in ALL_HOOKS if getattr(hookspecs, name).__annotations__["return"] == "None"]

#: What a plugin may raise without ending nern; Ctrl-C is the user's.
BREAKS = (Exception, SystemExit)


def reason_of(error: BaseException) -> str:
    """The reason why a plugin could not be used, in one line."""
    if isinstance(error, pluggy.PluginValidationError):
        return explain(error)
    text = text_of(error)
    return text if isinstance(error, PluginError) else f"{type(error).__name__}: {text}{place_of(error)}"


def problem_of(cls: type) -> str | None:
    """Says what is wrong with the hooks of an observer class: a misspelled hook, or an argument that the hook does not have."""
    trial = pluggy.PluginManager("nern")
    trial.add_hookspecs(hookspecs)
    try:
        trial.register(cls)
        trial.check_pending()
    except pluggy.PluginValidationError as error:
        return explain(error)
    callers = trial.get_hookcallers(cls)
    if not callers:
        return f"{cls.__name__} implements no hook; mark methods such as nern_step with @nern.hookimpl"
    problems = [problem_with_call(caller.name, implementation.function) for caller in callers for implementation in caller.get_hookimpls()]
    return next(filter(None, problems), None)


def problem_with_call(hook: str, function: object) -> str | None:
    """Says what is wrong with a hook whose body does not run when it is called; None for an ordinary function."""
    for test, what in ((inspect.isgeneratorfunction, "a generator (it has a yield)"), (inspect.iscoroutinefunction, "async")):
        if test(function):
            return f"{hook} is {what}, so that calling it does nothing; make it an ordinary function"
    return None


def explain(error: pluggy.PluginValidationError) -> str:
    """Explain an error of pluggy in one line, with what would be right."""
    text = " ".join(str(error).split())
    unknown = re.match(r"unknown hook '([^']+)'", text)
    if unknown:
        return f"there is no hook '{unknown[1]}'" + did_you_mean(unknown[1], ALL_HOOKS, f" (there are: {', '.join(ALL_HOOKS)})", cutoff=0.5)
    foreign = re.search(r"for hook '(nern_\w+)' .*Argument\(s\) \{(.*)\} are declared", text)
    if foreign:
        offered = ", ".join(arguments_of(foreign[1])) or "no argument"
        return f"hook {foreign[1]} has no argument {foreign[2]}; it offers {offered}"
    return text


def arguments_of(hook: str) -> tuple[str, ...]:
    """The arguments of a hook."""
    specified = getattr(hookspecs, hook, None)
    return tuple(specified.__code__.co_varnames[: specified.__code__.co_argcount]) if specified else ()
