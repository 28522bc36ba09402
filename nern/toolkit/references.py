"""Builds networks from references `file.py:Class` and `package.module:function`, and finds the reference of a given network."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from nern.errors import ConfigError, NernError
from nern.support.contracts import raised
from nern.support.messages import did_you_mean, first_line


def build_reference(reference: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Build the network of a reference `file.py:Class` or `package.module:function`.

    A file is imported with its folder on the path, so that it can import the files beside it.

    Raises:
        ConfigError: there is no such file, module or name, it raises an error, or it does not build a module; says which.
    """
    place, _, name = reference.rpartition(":")
    if not place or not name:
        raise ConfigError(f"model '{reference}' must look like file.py:Class or package.module:function")
    module = _imported(place)
    if not hasattr(module, name):
        known = [key for key, value in vars(module).items() if not key.startswith("_") and callable(value)]
        raise ConfigError(f"{place} has no '{name}'" + did_you_mean(name, known, f" (there are: {', '.join(known) or 'none'})"))
    named = getattr(module, name)
    if not isinstance(named, nn.Module):
        try:
            named = named(**arguments)
        except (MemoryError, torch.OutOfMemoryError, NernError):
            raise
        except TypeError as error:
            raise ConfigError(f"{reference} cannot be called with these arguments ({first_line(error)}); give others") from error
        except Exception as error:
            given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
            raise ConfigError(
                f"{reference} {raised(error)}; it was called with {given or 'no arguments'} (--arguments, or architecture.arguments)"
            ) from error
    if not isinstance(named, nn.Module):
        raise ConfigError(f"{reference} gives a {type(named).__name__}, no torch.nn.Module")
    return named


def _imported(place: str) -> ModuleType:
    if not place.endswith(".py"):
        try:
            return importlib.import_module(place)
        except ImportError as error:
            raise ConfigError(f"cannot import {place} ({first_line(error)}); a file is named with its ending, {place}.py:NAME") from error
    path = Path(place).expanduser().resolve()
    if not path.is_file():
        near = did_you_mean(path.name, [file.name for file in path.parent.glob("*.py")]) if path.parent.is_dir() else ""
        raise ConfigError(f"there is no file {place}{near}")
    known = [module for module in sys.modules.values() if getattr(module, "__file__", None) == str(path) and module.__name__ == path.stem]
    if known:
        return known[0]
    folder = str(path.parent)
    sys.path.insert(0, folder)
    try:
        spec = importlib.util.spec_from_file_location(path.stem if path.stem not in sys.modules else f"{path.stem}_model", path)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[spec.name]
            raise ConfigError(f"{place} cannot be imported: {type(error).__name__}: {first_line(error)}") from error
    finally:
        sys.path.remove(folder)
    if folder not in sys.path:
        sys.path.append(folder)  # stays there for later imports of the file; at the end, so that it hides no other module
    return module


def reference_of(module: nn.Module) -> tuple[str, dict[str, Any]] | None:
    """A reference to a module's class and the arguments that build it again; None where these cannot be found out.

    The class must be importable, and the instance must hold the arguments in attributes of the same names. Building is tried, and
    the parameters are compared.
    """
    cls = type(module)
    if cls.__module__ in ("__main__", "builtins") or "<" in cls.__qualname__ or "." in cls.__qualname__:
        return None
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    importable = file is not None and _is_found(cls.__module__, Path(file))
    place = cls.__module__ if importable else file
    arguments = _arguments(module)
    if place is None or arguments is None:
        return None
    try:
        with torch.random.fork_rng(devices=[]):
            built = cls(**arguments)
    except Exception:
        return None
    same = {name: value.shape for name, value in built.state_dict().items()} == {n: v.shape for n, v in module.state_dict().items()}
    return (f"{place}:{cls.__name__}", arguments) if same else None


def _is_found(name: str, file: Path) -> bool:
    """Whether another process can import the module: it is installed, and not only found in this process's start folder."""
    folders = {Path(entry).resolve() for entry in sys.path if "site-packages" in entry or "dist-packages" in entry}
    return any(file.resolve().is_relative_to(folder) for folder in folders)


def _arguments(module: nn.Module) -> dict[str, Any] | None:
    arguments: dict[str, Any] = {}
    for name, parameter in inspect.signature(type(module).__init__).parameters.items():
        if name == "self" or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        value = getattr(module, name, parameter.default)
        if value is parameter.empty:
            return None
        if value is parameter.default:
            continue
        try:
            arguments[name] = json.loads(json.dumps(value))
        except (TypeError, ValueError):
            if parameter.default is parameter.empty:
                return None
    return arguments
