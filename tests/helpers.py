"""A small experiment, and ways to run it in this process and in others."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nern.builtin.architectures.cifar_resnet import CifarResNet
from nern.cli.main import run as run_command_line

REPOSITORY = Path(__file__).resolve().parents[1]

ARCHITECTURE = {"depth": 8, "width": 4, "channels": 1, "size": 8, "mean": [0.3], "std": [0.4]}
RECONSTRUCTION = {
    "name": "reconstruction",
    "iterations": 12,
    "losses": {"reconstruction": {"form": "mse"}},
    "sampler": {"name": "uniform", "batch": 100},
    "optimizer": {"name": "muon", "lr": 1e-2},
}
DISTILLATION = {
    "name": "distillation",
    "iterations": 12,
    "batch": 16,
    "losses": {"reconstruction": {}, "kd": {}, "fmd": {"weight": 0.1}},
    "sampler": {"name": "magnitude", "batch": 100},
    "optimizer": {"name": "adamw", "lr": 1e-3},
}
EXPERIMENT: dict[str, Any] = {
    "architecture": {"name": "cifar-resnet", **ARCHITECTURE},
    "task": {"name": "digits"},
    "embedding": {"name": "positional", "frequencies": 4},
    "predictor": {"name": "mlp", "hidden": 8},
    "smoother": {"name": "cross-filter"},
    "phases": [RECONSTRUCTION, DISTILLATION],
    "evaluate_every": 5,
    "checkpoint_every": 4,
    "log_every": 1,
    "device": "cpu",
}


def network(seed: int = 0, **options: Any) -> nn.Module:
    """A small CIFAR ResNet for 8 × 8 digits with random weights and batch-norm statistics that are not trivial."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = CifarResNet(**{**ARCHITECTURE, **options}).build()
        randomise_batch_norms(built)
    return built.eval()


def randomise_batch_norms(network: nn.Module, std: float = 1.0) -> None:
    """Give batch norms scales, shifts and statistics that are not trivial, from torch's global generator."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=std)
            nn.init.normal_(module.running_mean, std=std)
            nn.init.uniform_(module.running_var, 0.5, 1.5)


def weights_file(path: Path, seed: int = 0, dtype: torch.dtype | None = None, **options: Any) -> Path:
    """The state dict of `network` as safetensors, in another floating-point type if wanted."""
    state = {
        name: value.to(dtype) if dtype is not None and value.is_floating_point() else value
        for name, value in network(seed, **options).state_dict().items()
    }
    save_file(state, str(path))
    return path


def experiment(folder: Path, **changes: Any) -> dict[str, Any]:
    """The small experiment on weights and with output in `folder`; changes replace top-level keys."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "original.safetensors").exists():
        weights_file(folder / "original.safetensors")
    values = copy.deepcopy(EXPERIMENT)
    values["architecture"]["weights"] = str(folder / "original.safetensors")
    return {**values, "output": str(folder / "run"), **changes}


def write_experiment(folder: Path, **changes: Any) -> Path:
    """`experiment` as a file."""
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(experiment(folder, **changes), sort_keys=False), encoding="utf-8")
    return path


def command_line(*arguments: object) -> int:
    """Run the command line in this process; returns the exit code."""
    return run_command_line([str(argument) for argument in arguments])


def environment(**more: str) -> dict[str, str]:
    """What a process needs to find the library, without plugins that happen to be installed."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "NERN_DISABLE_PLUGINS": "1", "PYTHONUNBUFFERED": "1", **more}


def process(*arguments: object, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """`python -m nern …`, to its end."""
    command = [sys.executable, "-m", "nern", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment(**more), capture_output=True, text=True, timeout=300)


def started(*arguments: object, cwd: Path, **more: Any) -> subprocess.Popen[str]:
    """`python -m nern …`, still running; both streams are pipes."""
    command = [sys.executable, "-m", "nern", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=cwd, env=environment(), **{**pipes, **more})


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Whether two state dicts have the same names, types, shapes and bits."""
    return a.keys() == b.keys() and all(
        a[name].dtype == b[name].dtype and a[name].shape == b[name].shape and torch.equal(a[name], b[name]) for name in a
    )


def trained(run: Path) -> dict[str, Tensor]:
    """The tensors in a finished run's artifact: predictor, ordering and copied parameters."""
    return load_file(str(run / "model.nern"))
