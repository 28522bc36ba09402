"""Damaged files: artifacts, checkpoints, weights files and configurations, mutated at random and then read as a user would read them."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

EXPERIMENT = """architecture: {{name: cifar-resnet, depth: 8, width: 2, size: 8, weights: {folder}/w.pth}}
task: uniform-noise
predictor: {{name: mlp, hidden: 8}}
smoother: none
losses: {{reconstruction: {{}}}}
phases: [{{iterations: 4}}]
evaluate_every: 0
checkpoint_every: 2
log_every: 2
observers: {{}}
heldout: 0.0
device: cpu
threads: 1
output: {folder}/run
"""


def make_honest(folder: Path) -> None:
    """Make the undamaged weights, configuration and finished run from which cases are made."""
    import torch

    from nern import Engine
    from nern.builtin.architectures.cifar_resnet import CifarResNet

    torch.manual_seed(0)
    torch.save(CifarResNet(depth=8, width=2).build().state_dict(), folder / "w.pth")
    (folder / "e.yaml").write_text(EXPERIMENT.format(folder=folder), encoding="utf-8")
    Engine.from_yaml(folder / "e.yaml").fit()


def try_artifact(folder: Path, place: Path, draw: random.Random | None) -> None:
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    import nern
    from nern.artifact.layout import compact, seal
    from nern.studies.opening import evaluate_file

    path = place / "m.nern"
    shutil.copyfile(folder / "run" / "model.nern", path)
    if draw is not None and draw.random() < 0.2:
        damage(path, draw)
    elif draw is not None:
        with safe_open(str(path), "pt") as file:
            tensors, about = {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["nern"])  # noqa: SIM118
        del about["sha256"]
        for _ in range(draw.randrange(1, 4)):
            if draw.random() < 0.7:
                mutate(about, draw, lambda new: isinstance(new, (type(None), bool, int, float, str, list, dict)))
            else:
                name = draw.choice(list(tensors))
                new = draw.choice(
                    [torch.zeros(0), tensors[name].reshape(-1)[1:], tensors[name].double(), tensors[name][None], torch.ones(7).int()]
                )
                tensors[draw.choice([name, name, "x", "copied.float16"])] = new.contiguous().clone()
        if isinstance(about, dict):
            save_file(tensors, path, {"nern": compact({"sha256": seal(about, tensors), **about})})
    artifact = nern.load(path)
    artifact.state_dict()
    artifact.reconstruct()
    if draw is not None and draw.random() < 0.5:  # with the task noise there is no test set, so that the command ends with a refusal
        evaluate_file(path)


def try_checkpoint(folder: Path, place: Path, draw: random.Random | None) -> None:
    import torch

    from nern import Engine

    run = place / "run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(folder / "run", run)
    path = run / "checkpoint.pt"
    if draw is not None and draw.random() < 0.2:
        damage(path, draw)
    elif draw is not None:
        state = torch.load(path, weights_only=True)
        mutate(state, draw)
        if draw.random() < 0.05:
            state["evil"] = Evil(folder / "canary")
        torch.save(state, path)
    Engine.from_yaml(folder / "e.yaml", {"output": str(run), "phases.0.iterations": 6}).fit(resume=True)


def try_weights(folder: Path, place: Path, draw: random.Random | None) -> None:
    import torch
    from safetensors.torch import save_file

    from nern.builtin.architectures.cifar_resnet import CifarResNet

    state: Any = torch.load(folder / "w.pth", weights_only=True)
    path = place / "w.pth"
    if draw is not None:
        state = dict(state)
        for _ in range(draw.randrange(3)):
            name = draw.choice(list(state))
            state[draw.choice([name, f"module.{name}", "x", f"{name}_orig", f"{name}_mask", f"{name}_g"])] = draw.choice(
                [
                    state[name],
                    state[name].double() if isinstance(state[name], torch.Tensor) else [state[name]],
                    torch.zeros(0),
                    torch.zeros(1).expand(1 << 40),
                    torch.ones(3, dtype=torch.complex64),
                    value(draw),
                ]
            )
        for _ in range(draw.randrange(3)):
            state = draw.choice(
                [{"state_dict": state, "epoch": 3}, {f"module.{n}": v for n, v in state.items()}, {"a": state, "b": state}, {"x": [state]}]
            )
        if draw.random() < 0.05:
            state["evil"] = Evil(folder / "canary")
    if draw is not None and draw.random() < 0.2 and all(isinstance(v, torch.Tensor) and v.numel() < 1 << 20 for v in state.values()):
        save_file({str(n): v.contiguous().clone() for n, v in state.items()}, path)
    else:
        torch.save(copy.copy(state), path)
    if draw is not None and draw.random() < 0.3:
        damage(path, draw)
    architecture = CifarResNet(depth=8, width=2, weights=str(path))
    architecture.load(architecture.build())


def try_yaml(folder: Path, place: Path, draw: random.Random | None) -> None:
    import yaml

    from nern.config.loading import load_experiment
    from nern.config.structuring import to_yaml

    content = yaml.safe_load((folder / "e.yaml").read_text(encoding="utf-8"))
    path = place / "e.yaml"
    if draw is not None:
        plain = (type(None), bool, int, float, str, list, dict)
        for _ in range(draw.randrange(1, 4)):
            mutate(content, draw, lambda new: isinstance(new, plain))
    text = yaml.safe_dump(content)
    if draw is not None and draw.random() < 0.4:
        at = draw.randrange(len(text))
        bomb = "&a [" + ", ".join(["*a"] * 9) + "]"
        text = text[:at] + draw.choice(
            ["!!int x", "!!timestamp x", "!!python/name:os.system", bomb, "&a [*a]", "[" * 3000, "{" * 3000, "'\\0'", '"\\0"', "? [a]\n: b",
             "1: 2\n",
             "\t", "---\n", "%", "9" * 9999, "<<: *b", "0x", "1:30", "\u0000", "\ufeff", "extends: e.yaml\n", "set: {1: 2}\n",
             "x" * 300_000]
        ) + text[at:]  # fmt: skip
    path.write_text(text, encoding="utf-8")
    overrides: dict[str, Any] = {"output": str(place / "run")}
    if draw is not None and draw.random() < 0.2:
        overrides[draw.choice(["a", "phases.0", "phases.².x", "optimizer.lr", "losses", "task.name", ".", "..", "a." * 40])] = value(draw)
    to_yaml(*load_experiment(path, overrides))


#: What is done with the folder of undamaged files, a folder for the damaged one, and the draws of the damage; without draws the file
#: is read as it is.
ATTEMPTS = {"artifact": try_artifact, "checkpoint": try_checkpoint, "weights": try_weights, "yaml": try_yaml}


class Evil:
    """A pickle that creates a file if a reader executes it."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mknod, (str(self.canary),)


def value(draw: random.Random) -> Any:
    """A random value that is wrong in any place."""
    import torch

    return draw.choice(
        [
            None, True, 0, -1, 1, 3, 2**31, 2**63, 10**12, 10**30, 0.0, -0.5, 1e300, float("inf"), float("nan"), "", "x", "none", "int8",
            "../..",
            "~/x", "a" * 5000, [], [[]], {}, [1, 2], {"a": 1}, {"name": "mlp"}, [None] * 9,
            torch.zeros(0), torch.zeros(2, 3), torch.tensor(1), b"x",
            (1, 2), 1 + 2j,
        ]
    )  # fmt: skip


def mutate(content: Any, draw: random.Random, allowed: Callable[[Any], bool] = lambda _: True) -> None:
    """Change one place in nested dictionaries and lists: remove it, add to it, exchange it with another, scale or replace it."""
    at = content
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not keys:
            return
        key = draw.choice(keys)
        if isinstance(at[key], (dict, list)) and at[key] and draw.random() < 0.75:
            at = at[key]
            continue
        new = value(draw)
        while not allowed(new):
            new = value(draw)
        action = draw.random()
        if action < 0.2:
            del at[key]
        elif action < 0.3 and isinstance(at, dict):
            at[draw.choice(["x", "name", "0", "weights", "a.b", ""])] = new
        elif action < 0.4:
            other = draw.choice(keys)
            at[key], at[other] = at[other], at[key]
        elif action < 0.6 and type(at[key]) in (int, float):
            at[key] = at[key] * draw.choice([-1, 0, 2, 1000, 10**6, 10**9])
        elif action < 0.9 and hasattr(at[key], "dtype"):
            at[key] = other_tensor(at[key], draw)
        else:
            at[key] = new
        return


def other_tensor(tensor: Any, draw: random.Random) -> Any:
    """A tensor like another one, but with other numbers, another shape, another type, or more numbers than are stored."""
    import torch

    return draw.choice(
        [
            -tensor, tensor * 1e9, tensor * float("nan"), tensor.double(), tensor.to(torch.int8), tensor.to(torch.complex64), tensor[None],
            tensor.reshape(-1)[1:], tensor.reshape(-1), tensor.flatten()[:1].expand(1 << 40), torch.full_like(tensor, 3).to_sparse(),
        ]
    )  # fmt: skip


def damage(path: Path, draw: random.Random) -> None:
    """Damage bytes: flip bits, cut off the end, or repeat a part."""
    whole = bytearray(path.read_bytes())
    action = draw.randrange(3)
    if action == 0:
        for _ in range(draw.randrange(1, 20)):
            whole[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
    elif action == 1:
        whole = whole[: draw.randrange(len(whole))]
    else:
        start = draw.randrange(len(whole))
        whole[start:start] = whole[start : start + draw.randrange(1, 500)]
    path.write_bytes(bytes(whole))
