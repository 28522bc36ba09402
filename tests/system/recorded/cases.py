"""The experiments that are recorded: short seeded runs of everything that is registered, and studies of the first of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

import nern
from tests.system.recorded.files import write_images, write_weights

SMALL = {"name": "cifar-resnet", "depth": 8, "width": 4, "channels": 1, "size": 8, "mean": [0.3], "std": [0.4]}
COLOUR = {"name": "cifar-resnet", "depth": 8, "width": 4, "size": 8}
RECONSTRUCTION: dict[str, Any] = {
    "name": "reconstruction",
    "iterations": 6,
    "losses": {"reconstruction": {"form": "mse"}},
    "sampler": {"name": "all"},
    "optimizer": {"name": "muon", "lr": 1e-2},
}
DISTILLATION: dict[str, Any] = {
    "name": "distillation",
    "iterations": 6,
    "batch": 16,
    "losses": {"reconstruction": {}, "kd": {"weight": 1.0}, "fmd": {"weight": 0.1}},
    "sampler": {"name": "magnitude", "batch": 100},
    "optimizer": {"name": "adamw", "lr": 1e-3, "warmup": 2},
}
BASE: dict[str, Any] = {
    "architecture": SMALL,
    "task": {"name": "digits"},
    "embedding": {"name": "positional", "frequencies": 4},
    "predictor": {"name": "mlp", "hidden": 8, "layers": 3},
    "phases": [RECONSTRUCTION, DISTILLATION],
    "observers": {"progress": None, "csv": {}},
    "evaluate_every": 4,
    "checkpoint_every": 4,
    "log_every": 1,
    "precision": "float32",
    "device": "cpu",
    "threads": 1,
}


def joint(loss: Mapping[str, Any] | None = None, iterations: int = 5, batch: int = 8, **changes: Any) -> list[dict[str, Any]]:
    """One phase with all three losses; `loss` gives their options by name, None leaves one out."""
    losses = {"reconstruction": {}, "kd": {"weight": 0.1}, "fmd": {"weight": 0.1}}
    for name, options in (loss or {}).items():
        losses[name] = None if options is None else {**losses[name], **options}
    return [{"iterations": iterations, "batch": batch, "losses": losses, **changes}]


def of_torchvision(name: str, model: str, layers: str) -> dict[str, Any]:
    """A few layers of a model of torchvision, on images of three classes."""
    return {
        "task": {"name": "image-folder"},
        "images": (3, 32, 3, 2),
        "architecture": {"name": name, "model": model, "classes": 3, "size": 32, "layers": [layers]},
        "phases": joint(iterations=3, batch=2),
        "optimizer": {"name": "adamw"},
        "heldout": 0.25,
    }


#: Top-level keys that replace those of `BASE`. `weights` says how the original network's file is made: None for no file.
RUNS: dict[str, dict[str, Any]] = {
    "two phases": {},
    "two phases, resumed": {"stop": 8},
    "the paper's choices": {
        "sampler": {"name": "magnitude", "batch": 200, "uniform": 0.5},
        "optimizer": {"name": "ranger"},
        "phases": joint(iterations=8),
        "predictor": {"name": "mlp", "hidden": 16},
        "evaluate_every": 2,
    },
    "three phases, noise between": {
        "phases": [
            RECONSTRUCTION,
            {**DISTILLATION, "name": "noise", "inputs": {"name": "uniform-noise", "scale": 2.0}, "clip": 0.5, "iterations": 4},
            {
                "name": "last",
                "iterations": 4,
                "batch": 8,
                "losses": {"reconstruction": {"weight": 0.0}, "kd": {}, "fmd": {"warmup": 2, "maps": ["*.sum", "layer1*"]}},
                "sampler": {"name": "uniform", "batch": 64, "replacement": True},
                "optimizer": {"name": "sgd", "lr": 0.01, "nesterov": True, "weight_decay": 1e-4},
            },
        ],
    },
    "float16": {
        "storage": "float16",
        "weights": "float16",
        "embedding": {"name": "learned", "features": 6},
        "predictor": {"name": "skip-mlp", "hidden": 8, "activation": "silu", "normalisation": "layer"},
        "smoother": {"name": "in-filter"},
        "sampler": {"name": "layers-in-turn"},
        "optimizer": {"name": "adamw", "lr": 1e-3, "schedule": "exponential", "final_lr": 1e-5, "weight_decay": 0.01},
        "phases": joint({"kd": {"form": "stable"}, "fmd": {"form": "batch"}}, iterations=9),
    },
    "bfloat16": {
        "storage": "bfloat16",
        "embedding": {"name": "fourier", "features": 8},
        "predictor": {"name": "residual-mlp", "hidden": 8, "activation": "leaky-relu", "normalisation": "batch"},
        "smoother": {"name": "none"},
        "sampler": {"name": "random-layer"},
        "optimizer": {"name": "sgd", "lr": 0.01, "schedule": "linear", "final_lr": 1e-4},
        "phases": joint({"kd": {"temperature": 2.0}, "fmd": {"form": "similarity"}}),
        "seed": 3,
    },
    "int8": {
        "storage": "int8",
        "evaluate_every": 0,
        "embedding": {"name": "learned", "features": 8},
        "predictor": {"name": "mlp", "hidden": 8, "activation": "elu"},
        "smoother": {"name": "cross-filter-2opt"},
        "sampler": {"name": "uniform", "batch": 100},
        "optimizer": {"name": "muon", "schedule": "constant", "other_lr": 0.01},
        "phases": joint({"reconstruction": {"form": "norm"}, "fmd": {"form": "norm"}}),
    },
    "int7": {
        "storage": "int7",
        "evaluate_every": 0,
        "architecture": {**SMALL, "width": 8, "shortcut": "B"},
        "small_kernels": "average",
        "predictor": {"name": "mlp", "hidden": 8, "activation": "hardswish"},
        "smoother": {"name": "in-filter-2opt"},
    },
    "int6": {
        "storage": "int6",
        "evaluate_every": 0,
        "architecture": {**SMALL, "width": 8, "shortcut": "B"},
        "small_kernels": "max",
        "embedding": {"name": "positional", "frequencies": 6, "combine": "sum", "coordinates": "per-layer"},
        "predictor": {"name": "mlp", "hidden": 8, "activation": "sine"},
    },
    "int5, zeros kept": {
        "storage": "int5",
        "evaluate_every": 0,
        "weights": "pruned",
        "keep_zeros": True,
        "embedding": {"name": "positional", "frequencies": 6, "coordinates": "global"},
        "predictor": {"name": "mlp", "hidden": 8, "activation": "gelu", "init": "ordinary"},
    },
    "int4, layers scaled": {
        "storage": "int4",
        "evaluate_every": 0,
        "architecture": {**SMALL, "width": 8, "shortcut": "B"},
        "scale_layers": True,
        "phases": joint({"reconstruction": {"form": "mse", "balance": 0.5}}),
        "optimizer": {"name": "adamw", "lr": 1e-3},
        "sampler": {"name": "all"},
    },
    "zeros kept, layers scaled": {
        "weights": "pruned",
        "keep_zeros": True,
        "scale_layers": True,
        "phases": joint({"reconstruction": {"balance": 1.0}}),
        "optimizer": {"name": "ranger"},
    },
    "an original of the run's own": {
        "weights": None,
        "pretrain": {"epochs": 1, "batch": 128, "lr": 0.02, "smoothness": 1e-3},
        "phases": joint(),
        "optimizer": {"name": "adamw"},
    },
    "uniform noise": {"task": {"name": "uniform-noise", "scale": 0.7}, "phases": joint(), "optimizer": {"name": "adamw"}},
    "coloured noise": {"task": {"name": "coloured-noise"}, "phases": joint(), "optimizer": {"name": "adamw"}},
    "normal noise": {"task": {"name": "normal-noise"}, "phases": joint(), "optimizer": {"name": "adamw"}},
    "image folder": {
        "task": {"name": "image-folder", "augment": "none"},
        "images": (3, 8, 4, 2),
        "architecture": {**COLOUR, "classes": 3},
        "heldout": 0.25,
    },
    "cifar10": {
        "task": {"name": "cifar10", "augment": "crop-flip"},
        "images": (10, 8, 4, 2),
        "architecture": COLOUR,
        "phases": joint(),
        "optimizer": {"name": "adamw"},
        "heldout": 0.25,
    },
    "cifar100": {
        "task": {"name": "cifar100", "augment": "flip"},
        "images": (100, 8, 2, 1),
        "architecture": {**COLOUR, "classes": 100},
        "phases": joint(),
        "optimizer": {"name": "adamw"},
        "heldout": 0.25,
    },
    "imagenet-resnet": {
        "task": {"name": "image-folder", "augment": "flip"},
        "images": (3, 40, 3, 2),
        "architecture": {"name": "imagenet-resnet", "classes": 3, "size": 32, "resize": 36, "layers": ["layer1.0.*.weight"]},
        "phases": joint(iterations=2, batch=2),
        "optimizer": {"name": "adamw"},
        "sampler": {"name": "uniform", "batch": 500},
        "heldout": 0.25,
    },
    "squeezenet": of_torchvision("squeezenet", "squeezenet1_1", layers="features.3.*.weight"),
    "torchvision": of_torchvision("torchvision", "shufflenet_v2_x0_5", layers="stage2.*.weight"),
    "timm": {
        "task": {"name": "digits"},
        "architecture": {"name": "timm", "model": "test_resnet", "classes": 10, "size": 8, "channels": 1},
        "phases": joint(iterations=3, batch=4),
        "optimizer": {"name": "adamw"},
        "sampler": {"name": "uniform", "batch": 500},
        "smoother": {"name": "none"},
    },
    "codes, entropy coded": {
        "storage": "entropy",
        "copied": "int8",
        "fold_batch_norms": True,
        "embedding": {"name": "codes", "numbers": 4, "frequencies": 2},
        "predictor": {"name": "codes", "hidden": 8, "layers": 2},
        "phases": joint(losses={"reconstruction": {}, "kd": {"weight": 0.1}, "rate": {"weight": 1e-3}}),
        "optimizer": {"name": "adamw", "lr": 1e-3},
        "evaluate_every": 0,
    },
    "codes of one step a layer": {
        "storage": "entropy",
        "curvature": "layers",
        "curvature_batches": 2,
        "embedding": {"name": "codes"},
        "predictor": {"name": "codes"},
        "phases": joint(losses={"kd": {"weight": 0.1}, "rate": {"weight": 1e-3}}),
        "optimizer": {"name": "adamw", "lr": 1e-3},
        "evaluate_every": 0,
    },
    "int3, codes that are weights": {
        "storage": "int3",
        "copied": "float16",
        "embedding": {"name": "codes", "transform": "none"},
        "predictor": {"name": "codes"},
        "phases": joint(),
        "optimizer": {"name": "adamw", "lr": 1e-3},
        "evaluate_every": 0,
    },
    "networks in bfloat16": {"precision": "bfloat16", "phases": joint(), "optimizer": {"name": "adamw"}},
    "arithmetic chosen by the machine": {"precision": "auto"},
}
#: Their arithmetic is the processor's own: there is nothing to compare with elsewhere.
ONLY_WHERE_RECORDED = ("networks in bfloat16", "arithmetic chosen by the machine")
#: Components of networks and data that are handed over; no run has them.
GIVEN = (("architecture", "module"), ("task", "given"), ("task", "photographs"))
#: Verbs of the command line that look at a finished run; `{run}` is the first run's folder.
STUDIES: dict[str, tuple[str, ...]] = {
    "prune": ("prune", "{run}", "-o", "{folder}/pruned", "--json"),
    "importance": ("importance", "{run}", "-o", "{folder}/importance", "--json"),
    "evaluate a file": ("evaluate", "{run}/model.nern", "--json"),
}


def experiment(name: str, folder: Path) -> Path:
    """Write a run's YAML file into `folder`, with its original weights and images; returns the file."""
    values = {**copy.deepcopy(BASE), **copy.deepcopy(RUNS[name])}
    values.pop("stop", None)
    kind, images = values.pop("weights", "float32"), values.pop("images", None)
    if kind is not None:
        values["architecture"]["weights"] = str(write_weights(folder / "weights.safetensors", values["architecture"], kind))
    if images is not None:
        values["task"]["root"] = str(write_images(folder / "images", *images))
    values["output"] = str(folder / "run")
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return path


def engine(name: str, folder: Path) -> nern.Engine:
    """The engine of a run, with built-ins only."""
    return nern.Engine.from_yaml(experiment(name, folder), registry=nern.create_registry(entry_points=False))
