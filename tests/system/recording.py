"""Short seeded runs of everything that is registered, and what came out of them, as numbers that can be compared.

A change that moves code without changing what it does must leave every one of these numbers as it was. The module uses
public names only (`nern.Engine`, `nern.load`, `nern.create_registry` and the command line), so that it goes on working
when the modules behind them move. `python -m tests.system.recording` writes `recorded_runs.json` again; that is right
only where behaviour was changed on purpose, and the commit says so.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # before torch is imported
    os.environ.update(OMP_NUM_THREADS="1", NERN_DISABLE_PLUGINS="1", NERN_CACHE=tempfile.mkdtemp())

import numpy as np
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

import nern

REPOSITORY = Path(__file__).resolve().parents[2]
FILE = Path(__file__).with_name("recorded_runs.json")

# -- the runs ----------------------------------------------------------------------------------------------------------

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
    "squeezenet": {
        "task": {"name": "image-folder"},
        "images": (3, 32, 3, 2),
        "architecture": {"name": "squeezenet", "model": "squeezenet1_1", "classes": 3, "size": 32, "layers": ["features.3.*.weight"]},
        "phases": joint(iterations=3, batch=2),
        "optimizer": {"name": "adamw"},
        "heldout": 0.25,
    },
    "torchvision": {
        "task": {"name": "image-folder"},
        "images": (3, 32, 3, 2),
        "architecture": {"name": "torchvision", "model": "shufflenet_v2_x0_5", "classes": 3, "size": 32, "layers": ["stage2.*.weight"]},
        "phases": joint(iterations=3, batch=2),
        "optimizer": {"name": "adamw"},
        "heldout": 0.25,
    },
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
#: Elsewhere numbers may differ by these parts of themselves, and percentages of images by these points. Emulated
#: processors (`ATEN_CPU_CAPABILITY=default`, `ONEDNN_MAX_CPU_ISA=SSE41`, and both with AVX2) moved no number by more than
#: 1.2e-5, no percentage at all. A parameter that training rounds to an integer may fall to the other side of a boundary,
#: and one step of four bits is much: such runs moved by up to 3.3e-2, and one image of 140.
TOLERANCE, TOLERANCE_OF_INTEGERS = {"relative": 1e-3, "points": 1.5}, {"relative": 0.15, "points": 5.0}
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


def write_weights(path: Path, architecture: Mapping[str, Any], kind: str) -> Path:
    """Weights of the architecture's shapes, of numpy's frozen generator: the same bits on every machine.

    Args:
        kind: `float32`, `float16` for a file of half precision, or `pruned` for one with half of its weights at zero.
    """
    options = dict(architecture)
    cls = nern.create_registry(entry_points=False).find("architecture", options.pop("name")).cls
    state, source = {}, np.random.RandomState(0)
    for name, value in cls(**options).build().state_dict().items():
        if not value.is_floating_point():
            state[name] = torch.zeros_like(value)
            continue
        drawn = source.random_sample(tuple(value.shape))  # uniform in [0, 1)
        if value.dim() > 1:
            wide = math.sqrt(6 / math.prod(value.shape[1:])) * (0.3 if value.dim() == 2 else 1.0)  # logits of moderate size
            numbers = np.where(np.abs(drawn - 0.5) < 0.25, 0, drawn - 0.5) if kind == "pruned" else drawn - 0.5
            numbers = 2 * wide * numbers
        elif name.endswith(("running_var", ".weight")):
            numbers = 0.5 + drawn
        else:
            numbers = 0.4 * (drawn - 0.5)
        state[name] = torch.from_numpy(np.asarray(numbers)).to(torch.float16 if kind == "float16" else torch.float32)
    save_file(state, str(path))
    return path


def write_images(root: Path, classes: int, side: int, train: int, test: int) -> Path:
    """Coloured squares with noise as PNG files, which keep every bit: `root/{train,test}/<class>/<number>.png`."""
    from PIL import Image

    source = np.random.RandomState(1)
    colours = source.randint(0, 128, (classes, 1, 1, 3))
    for split, count in (("train", train), ("test", test)):
        for label in range(classes):
            folder = root / split / f"{label:03d}"
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = colours[label] + source.randint(0, 128, (side, side, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    return root


# -- what is recorded of a run -----------------------------------------------------------------------------------------


class Stopper:
    """An observer that asks the run to stop, as Ctrl-C does, when a step is reported."""

    def __init__(self, step: int) -> None:
        self.step = step

    @nern.hookimpl
    def nern_step(self, iteration: int) -> None:
        if iteration == self.step:
            signal.raise_signal(signal.SIGINT)


def record(name: str, folder: Path) -> dict[str, Any]:
    """Make a run in an empty folder; returns its losses, metrics and hashes."""
    running, stop = engine(name, folder), RUNS[name].get("stop")
    if stop is not None:
        running.registry.register(Stopper(stop), "stopper")
        try:
            running.fit()
        except nern.Interrupted:
            running = nern.Engine.from_run(folder / "run")
        else:
            raise AssertionError("the run was not stopped")
    result = running.fit(resume=stop is not None).to_dict()
    run = folder / "run"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    for line in lines:
        line.pop("seconds", None)
    for key in ("seconds", "run_dir", "artifact", "environment"):
        result.pop(key)
    loaded = nern.load(run / "model.nern", running.registry)
    state = loaded.reconstruct().state_dict()
    hashes = {
        "artifact": digest(load_file(str(run / "model.nern"))),
        "state": digest(state),
        "checkpoint": digest(torch.load(run / "checkpoint.pt", weights_only=True), without=("seconds",)),
        "parameters": digest(dict(running.representation.named_parameters())),
        "weights": digest(running.original().state_dict()),
    }
    if "test" in running.data.splits:
        result["evaluation"] = nern.Engine.from_run(run).evaluate().to_dict()
    same = digest(running.reconstruct().state_dict()) == hashes["state"]
    for size in ("header", "total"):  # names and options may come; what they belong to is compared by its bits
        result["bytes"].pop(size)
    found = {"metrics": lines, "result": result, "file holds what was fitted": same, "sha256": hashes}
    return json.loads(json.dumps(found))


def record_studies(folder: Path) -> dict[str, Any]:
    """Make the first run, and look at it with the verbs of `STUDIES`; returns what they print and the files they write."""
    running, found = engine(next(iter(RUNS)), folder), {}
    running.fit()
    for name, arguments in STUDIES.items():
        words = [word.format(run=folder / "run", folder=folder) for word in arguments]
        printed = json.loads(command_line(*words))
        printed.pop("folder", None)
        place = folder / {"prune": "pruned"}.get(name, name)
        written = sorted(path for path in place.glob("*") if path.suffix in (".nern", ".safetensors"))
        for point in printed.get("points", []):
            for size in ("header", "total"):
                point["bytes"].pop(size)
        found[name] = {"printed": printed, "sha256": {path.name: digest(load_file(str(path))) for path in written}}
    return json.loads(json.dumps(found))


def command_line(*arguments: str) -> str:
    """What `python -m nern …` prints, with built-ins only.

    Raises:
        AssertionError: it failed; holds its messages.
    """
    place = {**os.environ, "PYTHONPATH": str(REPOSITORY), "NERN_DISABLE_PLUGINS": "1"}
    done = subprocess.run([sys.executable, "-m", "nern", *arguments], env=place, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def digest(value: Any, without: tuple[str, ...] = ()) -> str:
    """SHA-256 of nested dictionaries, lists, numbers and tensors: keys, types, shapes and bits, whatever the file format."""
    found = hashlib.sha256()
    for piece in _pieces(value, without):
        found.update(piece)
    return found.hexdigest()


def _pieces(value: Any, without: tuple[str, ...]) -> Iterator[bytes]:
    if isinstance(value, Tensor):
        whole = value.detach().cpu().contiguous()
        yield f"tensor {whole.dtype} {tuple(whole.shape)};".encode()
        yield whole.reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, Mapping):
        yield f"mapping {len(value)};".encode()
        for key, inner in value.items():
            if key not in without:
                yield f"{key!r}:".encode()
                yield from _pieces(inner, without)
    elif isinstance(value, (list, tuple)):
        yield f"list {len(value)};".encode()
        for inner in value:
            yield from _pieces(inner, without)
    else:
        yield f"{value!r};".encode()


# -- where it was recorded ---------------------------------------------------------------------------------------------


def environment() -> dict[str, Any]:
    """What the bits of a run depend on besides the code of nern."""
    packages = ("torch", "torchvision", "timm", "torch-optimizer", "numpy", "scipy", "scikit-learn", "safetensors", "pillow")
    return {
        **{name: importlib.metadata.version(name) for name in packages},
        "machine": platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "bfloat16": torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported(),
        "arithmetic": _arithmetic(),
    }


def _arithmetic() -> str:
    """A hash of products and convolutions with their gradients, without nern: processors of one name may still differ."""
    source = np.random.RandomState(2)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        for rows, inner, columns in ((500, 24, 8), (500, 8, 9), (17, 64, 64)):
            a, b = (torch.from_numpy(source.random_sample(shape)).to(dtype).requires_grad_() for shape in ((rows, inner), (inner, columns)))
            product = torch.nn.functional.gelu(a @ b)
            found += [product, *torch.autograd.grad(product.float().square().mean().sqrt(), (a, b))]
        for channels, side in ((1, 8), (4, 8), (16, 2)):
            x = torch.from_numpy(source.random_sample((16, channels, side, side))).to(dtype, memory_format=torch.channels_last)
            w = torch.from_numpy(source.random_sample((8, channels, 3, 3))).to(dtype).requires_grad_()
            maps = torch.nn.functional.conv2d(x, w, padding=1)
            found += [maps, *torch.autograd.grad(maps.float().log_softmax(1).mean(), w)]
    return digest(found)


# -- comparing ---------------------------------------------------------------------------------------------------------


def differences(recorded: Any, now: Any, relative: float = 0.0, points: float = 0.0, path: str = "") -> list[str]:
    """One line for everything that differs: its path, what was recorded, what is there now.

    Args:
        relative: by how much numbers may differ, as a part of the larger one; hashes are compared only where it is 0.
        points: by how much a percentage of images may differ, where `relative` is not 0.
    """
    if isinstance(recorded, dict) and isinstance(now, dict):
        found = []
        for key in dict.fromkeys([*recorded, *now]):
            where = f"{path}.{key}" if path else str(key)
            if key not in recorded:  # results may grow
                continue
            if key not in now:
                found.append(f"{where} is missing")
            elif key != "sha256" or relative == 0:
                found += differences(recorded[key], now[key], relative, points, where)
        return found
    if isinstance(recorded, list) and isinstance(now, list) and len(recorded) == len(now):
        pairs = enumerate(zip(recorded, now, strict=True))
        return [line for index, (a, b) in pairs for line in differences(a, b, relative, points, f"{path}[{index}]")]
    same = type(recorded) is type(now) and recorded == now
    if not same and relative > 0 and type(recorded) is type(now) and type(now) in (int, float):
        same = abs(recorded - now) <= _allowed(path, recorded, now, relative, points)
    return [] if same else [f"{path} was {recorded!r}, is {now!r}"]


def _allowed(path: str, recorded: float, now: float, relative: float, points: float) -> float:
    key = path.rpartition(".")[2]
    if isinstance(now, int):
        return 0
    return points if key.endswith(("top1", "top5", "agreement")) else relative * max(abs(recorded), abs(now))


def tolerance(name: str) -> dict[str, float]:
    """How far a run may be from its record on a machine that computes other bits."""
    return TOLERANCE_OF_INTEGERS if str(RUNS[name].get("storage")).startswith("int") else TOLERANCE


# -- what the runs cover -----------------------------------------------------------------------------------------------


def used(name: str, folder: Path) -> set[tuple[str, ...]]:
    """What a run trains with: ("sampler", "all") for a component, ("loss", "form", "mse") for a choice among words.

    The experiment's own choices are ("experiment", option, value).
    """
    running = engine(name, folder)
    whole = running.experiment
    components = [("architecture", whole.architecture), ("embedding", whole.embedding), ("predictor", whole.predictor)]
    components += [("smoother", whole.smoother), ("task", whole.task)]
    for phase in whole.phases:
        components += [("sampler", phase.sampler or whole.sampler), ("optimizer", phase.optimizer or whole.optimizer)]
        losses = whole.losses if phase.losses is None else phase.losses
        components += [("loss", term.loss) for term in losses.values() if term.weight > 0]
        components += [("task", phase.inputs)] if phase.inputs is not None else []
    found = {(kind, running.registry.name_of(component)) for kind, component in components}
    for kind, component in [*components, ("experiment", whole)]:
        for field in component.__attrs_attrs__:
            value = getattr(component, field.name)
            if isinstance(value, (str, bool)):
                found.add((kind, field.name, str(value)))
    return found


def offered(folder: Path) -> set[tuple[str, ...]]:
    """What the library ships, in the form of `used`, as `nern plugins --json` and the experiment's own types tell it.

    Observers look on and launchers start runs elsewhere: neither changes a number. Metrics are held against sums written out in
    tests of their own; which options an architecture takes is the business of its own tests, and so is what `nern.represent`
    makes of a network and data of one's own (`GIVEN`).
    """
    found = set[tuple[str, ...]]()
    for component in json.loads(command_line("plugins", "--json"))["components"]:
        kind = component["kind"]
        if kind in ("observer", "metric", "launcher") or component["package"] != "nern" or (kind, component["name"]) in GIVEN:
            continue
        found.add((kind, component["name"]))
        for option in component["options"] if kind != "architecture" else ():
            found |= {(kind, option["name"], choice) for choice in re.findall(r'"([^"]+)"', option["type"])}
    for name, hint in typing.get_type_hints(type(engine(next(iter(RUNS)), folder).experiment)).items():
        choices = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else (False, True) if hint is bool else ()
        found |= {("experiment", name, str(choice)) for choice in choices if name != "cuda_graphs"}  # a processor records none
    return found


def main() -> None:
    """Record every run and the studies, and write them with the environment that they were recorded in."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--output", type=Path, default=FILE, help="the JSON file to write (default: %(default)s)")
    output = parser.parse_args().output
    torch.set_num_threads(1)
    recorded: dict[str, Any] = {"environment": environment(), "runs": {}, "studies": {}}
    with tempfile.TemporaryDirectory() as name:
        for number, run in enumerate(RUNS):
            folder = Path(name) / str(number)
            folder.mkdir()
            recorded["runs"][run] = record(run, folder)
            print(run, file=sys.stderr)
        folder = Path(name) / "studies"
        folder.mkdir()
        recorded["studies"] = record_studies(folder)
    output.write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
