"""The exceptions that nern raises on purpose. Each message says what is wrong, where, and what to do."""

from __future__ import annotations


class NernError(Exception):
    """Base of every error that nern raises on purpose; the command line turns it into one line."""


class ConfigError(NernError):
    """One or more mistakes in a configuration, each with its path in the file."""


class PluginError(NernError):
    """A component is missing, offered by two plugins, or belongs to a plugin that failed to load."""


class DataError(NernError):
    """A weights file, image folder or device is missing, damaged, or does not belong to the network."""


class ArtifactError(NernError):
    """A representation file or a checkpoint is missing, damaged, or does not belong to the run."""


class TrainingError(NernError):
    """Training cannot continue: the loss is not finite, or the run directory cannot be written."""


class Interrupted(NernError):
    """A run was asked to stop (Ctrl-C, SIGTERM) and left a checkpoint that it resumes from."""


class OptionError(ValueError):
    """An option has an impossible value."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name} {problem}")
        self.name, self.problem = name, problem
