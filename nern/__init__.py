"""nern: neural representations for neural networks (Ashkenazi et al., ICLR 2023).

nern turns a pre-trained CNN into a small predictor network, which maps the coordinates of the CNN's kernels to their weights. From
the predictor the CNN can be rebuilt, measured, studied and shipped as one small file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nern.support.version import __version__ as __version__

if TYPE_CHECKING:
    from nern.artifact.artifact import Artifact as Artifact
    from nern.artifact.artifact import Bytes as Bytes
    from nern.artifact.reading import load as load
    from nern.engine import Engine as Engine
    from nern.errors import ArtifactError as ArtifactError
    from nern.errors import ConfigError as ConfigError
    from nern.errors import DataError as DataError
    from nern.errors import Interrupted as Interrupted
    from nern.errors import NernError as NernError
    from nern.errors import OptionError as OptionError
    from nern.errors import PluginError as PluginError
    from nern.errors import TrainingError as TrainingError
    from nern.hookspecs import hookimpl as hookimpl
    from nern.interfaces import Architecture as Architecture
    from nern.interfaces import Base as Base
    from nern.interfaces import Data as Data
    from nern.interfaces import Draw as Draw
    from nern.interfaces import Embedding as Embedding
    from nern.interfaces import Kernels as Kernels
    from nern.interfaces import Loss as Loss
    from nern.interfaces import LossContext as LossContext
    from nern.interfaces import Observer as Observer
    from nern.interfaces import Optimizer as Optimizer
    from nern.interfaces import Predictor as Predictor
    from nern.interfaces import Preprocessing as Preprocessing
    from nern.interfaces import Sampler as Sampler
    from nern.interfaces import Smoother as Smoother
    from nern.interfaces import Task as Task
    from nern.kernels.coordinates import KernelGrid as KernelGrid
    from nern.kernels.coordinates import LayerMapping as LayerMapping
    from nern.kernels.greedy_path import greedy_path as greedy_path
    from nern.kernels.orders import FilterOrder as FilterOrder
    from nern.kernels.orders import KernelOrder as KernelOrder
    from nern.kernels.orders import LayerOrder as LayerOrder
    from nern.kernels.orders import Unordered as Unordered
    from nern.launching import Job as Job
    from nern.launching import JobEnd as JobEnd
    from nern.launching import LaunchedJobs as LaunchedJobs
    from nern.launching import Launcher as Launcher
    from nern.networks.pair import NetworkPair as NetworkPair
    from nern.options import above as above
    from nern.options import at_least as at_least
    from nern.options import at_most as at_most
    from nern.options import below as below
    from nern.options import option as option
    from nern.outputs.kinds import OutputKind as OutputKind
    from nern.outputs.metric import Metric as Metric
    from nern.own.export import Export as Export
    from nern.own.export import export as export
    from nern.own.represent import represent as represent
    from nern.own.sharing import push_to_hub as push_to_hub
    from nern.own.target import TargetBytes as TargetBytes
    from nern.own.target import TargetDrop as TargetDrop
    from nern.registry.discovery import create_registry as create_registry
    from nern.registry.registry import Registry as Registry
    from nern.representation.entropy import StoredBits as StoredBits
    from nern.representation.lookup import AxisTables as AxisTables
    from nern.representation.lookup import Lookup as Lookup
    from nern.run.evaluation import Score as Score
    from nern.run.results import Evaluation as Evaluation
    from nern.run.results import Result as Result
    from nern.studies.report.page import Report as Report
    from nern.studies.report.page import report as report
    from nern.support.seeding import generator as generator
    from nern.toolkit.images import ImageData as ImageData
    from nern.toolkit.trackers import ScalarObserver as ScalarObserver

_PLACES = {
    "nern.artifact.artifact": (
        "Artifact",
        "Bytes",
    ),
    "nern.artifact.reading": ("load",),
    "nern.engine": ("Engine",),
    "nern.errors": (
        "ArtifactError",
        "ConfigError",
        "DataError",
        "Interrupted",
        "NernError",
        "OptionError",
        "PluginError",
        "TrainingError",
    ),
    "nern.hookspecs": ("hookimpl",),
    "nern.interfaces": (
        "Architecture",
        "Base",
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
    "nern.kernels.coordinates": (
        "KernelGrid",
        "LayerMapping",
    ),
    "nern.kernels.greedy_path": ("greedy_path",),
    "nern.kernels.orders": (
        "FilterOrder",
        "KernelOrder",
        "LayerOrder",
        "Unordered",
    ),
    "nern.launching": (
        "Job",
        "JobEnd",
        "LaunchedJobs",
        "Launcher",
    ),
    "nern.networks.pair": ("NetworkPair",),
    "nern.options": (
        "above",
        "at_least",
        "at_most",
        "below",
        "option",
    ),
    "nern.outputs.kinds": ("OutputKind",),
    "nern.outputs.metric": ("Metric",),
    "nern.own.export": (
        "Export",
        "export",
    ),
    "nern.own.represent": ("represent",),
    "nern.own.sharing": ("push_to_hub",),
    "nern.own.target": (
        "TargetBytes",
        "TargetDrop",
    ),
    "nern.registry.discovery": ("create_registry",),
    "nern.registry.registry": ("Registry",),
    "nern.representation.entropy": ("StoredBits",),
    "nern.representation.lookup": (
        "AxisTables",
        "Lookup",
    ),
    "nern.run.evaluation": ("Score",),
    "nern.run.results": (
        "Evaluation",
        "Result",
    ),
    "nern.studies.report.page": (
        "Report",
        "report",
    ),
    "nern.support.seeding": ("generator",),
    "nern.toolkit.images": ("ImageData",),
    "nern.toolkit.trackers": ("ScalarObserver",),
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
