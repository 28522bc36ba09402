"""Finds plugins: those that ship, those that are installed, and local files."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType

from nern.errors import PluginError
from nern.registry.hook_errors import BREAKS, reason_of
from nern.registry.registry import Failure, Registry, canonical
from nern.support.messages import did_you_mean
from nern.support.settings import kept
from nern.support.version import __version__

log = logging.getLogger("nern")

#: Module names of the built-in plugins, which are registered like any other plugin.
BUILTINS = (
    "nern.builtin.architectures.cifar_resnet",
    "nern.builtin.architectures.imagenet_resnet",
    "nern.builtin.architectures.squeezenet",
    "nern.builtin.architectures.torchvision",
    "nern.builtin.architectures.timm",
    "nern.builtin.architectures.module",
    "nern.builtin.embeddings.positional",
    "nern.builtin.embeddings.fourier",
    "nern.builtin.embeddings.learned",
    "nern.builtin.embeddings.codes",
    "nern.builtin.predictors.mlp",
    "nern.builtin.predictors.codes",
    "nern.builtin.bases.none",
    "nern.builtin.bases.quantised",
    "nern.builtin.samplers.all",
    "nern.builtin.samplers.layers",
    "nern.builtin.samplers.uniform",
    "nern.builtin.samplers.magnitude",
    "nern.builtin.smoothers.none",
    "nern.builtin.smoothers.greedy",
    "nern.builtin.smoothers.local_search",
    "nern.builtin.losses.reconstruction",
    "nern.builtin.losses.kd",
    "nern.builtin.losses.fmd",
    "nern.builtin.losses.rate",
    "nern.builtin.tasks.folders",
    "nern.builtin.tasks.cifar",
    "nern.builtin.tasks.digits",
    "nern.builtin.tasks.noise",
    "nern.builtin.tasks.given",
    "nern.builtin.tasks.photographs",
    "nern.builtin.metrics.classes",
    "nern.builtin.metrics.numbers",
    "nern.builtin.optimizers.ranger",
    "nern.builtin.optimizers.muon",
    "nern.builtin.optimizers.torch",
    "nern.builtin.observers.progress",
    "nern.builtin.observers.csv",
    "nern.builtin.observers.tensorboard",
    "nern.builtin.observers.wandb",
    "nern.builtin.observers.clearml",
    "nern.builtin.launchers.local",
    "nern.builtin.launchers.submitit",
    "nern.builtin.launchers.ray",
)


def create_registry(
    plugins: Sequence[str] = (),
    *,
    folder: Path | None = None,
    entry_points: bool = True,
    disabled: Iterable[str] = (),
    kinds: Sequence[str] | None = None,
) -> Registry:
    """A registry with the built-ins, the installed plugins and the local ones.

    Args:
        plugins: local plugins: paths of Python files, relative to `folder`, or module names.
        entry_points: whether to load installed plugins; `NERN_DISABLE_PLUGINS=1` in the environment switches that off.
        disabled: plugins to leave out, by name or package; `NERN_DISABLE_PLUGINS=name,name` adds to them.
        kinds: extension points whose built-ins are loaded, such as "architecture"; None for all. Loading fewer is faster.

    Raises:
        PluginError: `disabled` names something that is neither an installed nor a local plugin.
    """
    registry = Registry()
    for module in BUILTINS:
        if kinds is not None and module.split(".")[2].removesuffix("s") not in kinds:
            continue
        registry.register(importlib.import_module(module), module, "nern", __version__)
    if registry.failures:
        raise PluginError(f"a built-in plugin is broken: {registry.failures[0]}")
    disabled = list(disabled)
    _refuse_unknown(disabled, plugins)
    switched_off = os.environ.get("NERN_DISABLE_PLUGINS", "").strip()
    everything = not entry_points or switched_off.lower() in ("1", "true", "all")
    if not everything:
        load_entry_points(registry, [*disabled, *(name.strip() for name in switched_off.split(",") if name.strip())])
    elif entry_points:
        registry.left_out = [f"{point.name} (NERN_DISABLE_PLUGINS={switched_off})" for point in _installed()]
    named: set[str] = set()
    for source in plugins:
        place = str(((folder or Path()) / source).resolve()) if source.endswith(".py") else source
        if place in named:
            continue
        named.add(place)
        if {source, local_name(source)} & set(disabled):
            registry.left_out.append(source)
        else:
            load_module(registry, source, folder)
    return registry


def load_module(registry: Registry, source: str, folder: Path | None = None) -> None:
    """Register a local plugin: the path of a Python file, or the name of a module; both may lie in `folder`."""
    package, folder = local_name(source), folder or Path()
    with _apart(source):
        try:
            plugin = _import_file(folder / source) if source.endswith(".py") else _import_module(source, folder)
        except BREAKS as error:
            registry.failures.append(Failure(source, package, "local", reason_of(error)))
            return
        registry.register(plugin, source, package, "local")


def load_entry_points(registry: Registry, disabled: Iterable[str] = ()) -> None:
    """Register every entry point of group `nern`, except those whose name or package is in `disabled`."""
    without = {canonical(name) for name in disabled}
    for point in _installed():
        package, version = (point.dist.name, point.dist.version) if point.dist else ("unknown", "-")
        if {canonical(point.name), canonical(package)} & without:
            registry.left_out.append(f"{point.name} ({package} {version})")
            continue
        with _apart(point.name):
            try:
                _check_requirement(point.dist)
                plugin = point.load()
            except BREAKS as error:
                registry.failures.append(Failure(point.name, package, version, reason_of(error)))
                continue
            registry.register(plugin, point.name, package, version)


def local_name(source: str) -> str:
    """The package name of a local plugin: the stem of a file's name, or the first part of a module's name."""
    return Path(source).stem if source.endswith(".py") else source.split(".")[0]


@contextmanager
def _apart(plugin: str) -> Iterator[None]:
    """Load a plugin in a block: what it prints goes to stderr, and what it changes of the settings that all code shares is put back."""
    with redirect_stdout(sys.stderr), kept() as changed:
        yield
    if changed:
        log.warning("nern: plugin %s changes %s when it is loaded; that is put back", plugin, " and ".join(changed))


def _refuse_unknown(disabled: Sequence[str], local: Sequence[str]) -> None:
    known = [name for point in _installed() for name in (point.name, point.dist.name if point.dist else "")]
    known += [name for source in local for name in (source, local_name(source))]
    for name in disabled:
        if canonical(name) not in map(canonical, known):
            there = f"installed are: {', '.join(sorted(set(filter(None, known))))}" if known else "none is installed"
            raise PluginError(f"--no-plugin {name}: there is no such plugin" + did_you_mean(name, known, f" ({there})", cutoff=0.5))


def _installed() -> list[importlib.metadata.EntryPoint]:
    return list(importlib.metadata.entry_points(group="nern"))


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise PluginError(f"there is no file {path}")
    # Files with the same name in different folders are different modules
    place = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    name = f"nern_local_{path.stem}_{place}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_module(name: str, folder: Path) -> ModuleType:
    """Import a module from the Python path, or else from `folder`."""
    sys.path.append(str(folder.resolve()))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(folder.resolve()))


def _check_requirement(dist: importlib.metadata.Distribution | None) -> None:
    """Refuse a package whose own requirement on nern excludes the running version."""
    from packaging.requirements import Requirement

    for text in (dist.requires or []) if dist else []:
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        if canonical(requirement.name) == "nern" and not requirement.specifier.contains(__version__, prereleases=True):
            raise PluginError(f"it needs nern{requirement.specifier}, this is nern {__version__}")
