"""nern: neural representations for neural networks (Ashkenazi et al., ICLR 2023).

A pre-trained CNN goes in; a small predictor network that maps the coordinates of its kernels to their weights comes
out, and from it the CNN can be rebuilt, measured, studied and shipped as one small file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from nern.artifact import Artifact, load
    from nern.coordinates import KernelGrid, LayerMapping
    from nern.engine import Engine, Evaluation, Result
    from nern.errors import ArtifactError, ConfigError, DataError, Interrupted, NernError, PluginError, TrainingError
    from nern.hookspecs import hookimpl
    from nern.interfaces import (
        Architecture,
        Data,
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
    from nern.options import option

_PLACES = {
    "nern.artifact": ("Artifact", "load"),
    "nern.coordinates": ("KernelGrid", "LayerMapping"),
    "nern.engine": ("Engine", "Evaluation", "Result"),
    "nern.errors": ("ArtifactError", "ConfigError", "DataError", "Interrupted", "NernError", "PluginError", "TrainingError"),
    "nern.hookspecs": ("hookimpl",),
    "nern.interfaces": (
        "Architecture", "Data", "Embedding", "Kernels", "Loss", "LossContext", "Observer", "Optimizer", "Predictor",
        "Preprocessing", "Sampler", "Smoother", "Task",
    ),
    "nern.options": ("option",),
}  # fmt: skip
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
