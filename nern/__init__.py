"""nern: neural representations for neural networks (Ashkenazi et al., ICLR 2023).

A pre-trained CNN goes in; a small predictor network that maps the coordinates of its kernels to their weights comes
out, and from it the CNN can be rebuilt, measured, studied and shipped as one small file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from nern.artifact import Artifact, Bytes, load
    from nern.coordinates import KernelGrid, LayerMapping
    from nern.data import ImageData
    from nern.embedded import AxisTables, Lookup
    from nern.engine import Engine
    from nern.errors import ArtifactError, ConfigError, DataError, Interrupted, NernError, PluginError, TrainingError
    from nern.evaluation import Score
    from nern.hookspecs import hookimpl
    from nern.interfaces import (
        Architecture,
        Data,
        Draw,
        Embedding,
        Kernels,
        Loss,
        LossContext,
        Observer,
        Optimizer,
        Predictor,
        Preprocessing,
        Sampler,
        Smoother,
        Task,
    )
    from nern.networks import NetworkPair
    from nern.options import OptionError, above, at_least, at_most, below, option
    from nern.ordering import FilterOrder, KernelOrder, LayerOrder, Unordered, greedy_path
    from nern.random import generator
    from nern.registry import Registry, create_registry
    from nern.results import Evaluation, Result
    from nern.scalars import ScalarObserver

_PLACES = {
    "nern.artifact": ("Artifact", "Bytes", "load"),
    "nern.coordinates": ("KernelGrid", "LayerMapping"),
    "nern.data": ("ImageData",),
    "nern.embedded": ("AxisTables", "Lookup"),
    "nern.engine": ("Engine",),
    "nern.results": ("Evaluation", "Result"),
    "nern.errors": ("ArtifactError", "ConfigError", "DataError", "Interrupted", "NernError", "PluginError", "TrainingError"),
    "nern.evaluation": ("Score",),
    "nern.hookspecs": ("hookimpl",),
    "nern.interfaces": (
        "Architecture",
        "Data",
        "Draw",
        "Embedding",
        "Kernels",
        "Loss",
        "LossContext",
        "Observer",
        "Optimizer",
        "Predictor",
        "Preprocessing",
        "Sampler",
        "Smoother",
        "Task",
    ),
    "nern.networks": ("NetworkPair",),
    "nern.options": ("OptionError", "above", "at_least", "at_most", "below", "option"),
    "nern.ordering": ("FilterOrder", "KernelOrder", "LayerOrder", "Unordered", "greedy_path"),
    "nern.random": ("generator",),
    "nern.registry": ("Registry", "create_registry"),
    "nern.scalars": ("ScalarObserver",),
}
_MODULES = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [*sorted(_MODULES), "__version__"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import nern` costs next to nothing."""
    if name not in _MODULES:
        raise AttributeError(f"module 'nern' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
