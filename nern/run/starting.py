"""The start of a run: refuses what cannot be run, locks the run's folder and writes its configuration."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from nern.config.experiment import Experiment
from nern.config.structuring import to_yaml, unstructure
from nern.registry.registry import Registry
from nern.run.folder import RunFolder


def start(
    experiment: Experiment, registry: Registry, folder: RunFolder, check: Callable[[], Experiment], resume: bool, held: ExitStack
) -> Experiment:
    """Start or resume a run in a folder; returns the experiment as the folder records it.

    Args:
        check: gives the experiment to record, or raises an error where it cannot be run; called before anything is written.
        held: gets the lock of the folder, which is thus released when it closes.

    Raises:
        ConfigError: the folder holds another run, or another process works in it.
        OSError: the folder cannot be written.
    """
    resolved = unstructure(experiment, registry)
    if resume and folder.config.is_file():
        held.enter_context(folder.held(make=False))
    folder.check(resolved, resume, registry)
    experiment = check()
    if not resume:
        held.enter_context(folder.held(make=True))
        folder.check(resolved, resume)  # another run may have been started here in the meantime
    folder.open(to_yaml(experiment, registry))
    for component in (experiment.architecture, experiment.task):
        component.keep(folder.path)
    return experiment
