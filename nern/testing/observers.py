"""Checks an observer."""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path

from nern.interfaces import Observer
from nern.registry.registry import Registry
from nern.run.observers import ObserverCalls
from nern.testing import fixtures
from nern.testing.assertions import expect
from nern.testing.options import check_options


def check_observer(observer: Observer) -> None:
    """Check that the observer watches a successful and a failed run without raising, and does not write to stdout."""
    check_options("observer", observer)
    registry = Registry()
    watchers = ObserverCalls(registry)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), tempfile.TemporaryDirectory() as folder:
        for number, error in enumerate((None, RuntimeError("a run that failed"))):
            run_dir = Path(folder) / str(number)
            run_dir.mkdir()
            with watchers.joined_by({"checked": observer}):
                for hook, arguments in fixtures.run(run_dir, error):
                    getattr(watchers, hook)(**arguments)
    expect(not registry.failures, registry.failures[0].reason if registry.failures else "")
    expect(not printed.getvalue(), f"it prints on stdout, which belongs to --json: {printed.getvalue()!r}")
