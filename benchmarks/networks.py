"""Tries nern on networks of torchvision and timm: configures, trains three steps, saves, loads, reconstructs and evaluates each.

Every network is tried in its own process with a time limit, with random weights and noise as inputs: the question is whether nern
can handle the network, not how accurate it is. There are three outcomes: the network `passed`; it was `refused` before the first
step, with a reason; or it `failed`, which is a bug in nern. A network that exceeded the time limit has no outcome; `--keep` tries
it again.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.report import RESULTS, publish, table
from nern import hookimpl
from nern.support.memory import peak_memory

TORCHVISION = (
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet", "inception_v3", "maxvit_t",
    "mnasnet0_5", "mnasnet1_0", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small", "regnet_x_400mf", "regnet_y_400mf", "resnet18",
    "resnet34", "resnet50", "resnext50_32x4d", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "squeezenet1_0", "squeezenet1_1", "vgg11",
    "vgg11_bn", "wide_resnet50_2",
)  # fmt: skip
TIMM = (
    "convnext_atto", "cspresnet50", "dla34", "edgenext_xx_small", "efficientnet_lite0", "efficientvit_b0", "fastvit_t8", "gernet_s",
    "ghostnet_100", "hardcorenas_a", "hrnet_w18_small", "inception_next_atto", "lcnet_050", "mixnet_s", "mobilenetv3_small_050",
    "mobileone_s0", "mobilevit_xxs", "nf_resnet26", "regnetx_002", "repvgg_a0", "res2net50_14w_8s", "resnetblur50", "seresnet50",
    "tf_efficientnet_lite0", "vit_tiny_patch16_224",
)  # fmt: skip
#: Networks that cannot take small images have their own size.
SIZES = {"maxvit_t": 224, "inception_v3": 128, "vit_tiny_patch16_224": 224, "efficientvit_b0": 128, "fastvit_t8": 256, "mobilevit_xxs": 256}
SMALL = 64
SECONDS = 900
HELDOUT = 64  # inputs of noise that networks are measured on
NOT_RUN = "*not run*"  # exceeded the time limit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    every = [f"torchvision/{name}" for name in TORCHVISION] + [f"timm/{name}" for name in TIMM]
    parser.add_argument("--networks", nargs="*", default=every, help="such as timm/fastvit_t8; all of the table by default")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="limit for one network")
    parser.add_argument(
        "--keep", action="store_true", help="measure what benchmarks/results/networks.json does not hold yet, and keep the rest"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(whole_way(options.child)))
        return
    unknown = [network for network in options.networks if network not in every]
    if unknown:
        parser.error(f"{', '.join(unknown)}: not in the table; write LIBRARY/NAME, such as {every[0]} or {every[-1]}")
    file = RESULTS / "networks.json"
    known = {row["network"]: row for row in json.loads(file.read_text())["rows"]} if options.keep and file.exists() else {}
    for network in options.networks:
        if known.get(network, {"outcome": NOT_RUN})["outcome"] == NOT_RUN:  # its old row stays where this is interrupted
            known[network] = child(network, options.seconds)
            print(known[network], file=sys.stderr, flush=True)
            write(list(known.values()))


def write(rows: list[dict[str, Any]]) -> None:
    """Write the table of all outcomes so far."""
    head = ["network", "pixels", "kernels", "outcome", "seconds", "peak memory, MB", "what was said"]
    cells = [[row.get(key, "") for key in ("network", "pixels", "kernels", "outcome", "seconds", "peak", "said")] for row in rows]
    counts = {outcome: sum(row["outcome"] == outcome for row in rows) for outcome in ("passed", "refused", "failed")}
    text = (
        f"Of {len(rows)} networks {counts['passed']} passed, {counts['refused']} were refused before the first step, and "
        f"{counts['failed']} failed; {len(rows) - sum(counts.values())} were not run to their end. Random weights, "
        "inputs of noise, three steps of reconstruction and distillation with two images a "
        "step on every convolution; then the file is saved, loaded, reconstructed, compared and measured. Seconds are those of the whole "
        "way, on a machine that other work shares.\n\n" + table(head, cells, ["outcome", "what was said"])
    )
    publish("networks", {"rows": rows}, text)


def child(network: str, seconds: float) -> dict[str, Any]:
    """Run `whole_way` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.networks", "--child", network]
    began = time.monotonic()
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, check=False, env={**os.environ, "PYTHONWARNINGS": "ignore"}
        )
    except subprocess.TimeoutExpired:
        return {"network": network, "outcome": NOT_RUN, "said": f"not done after {seconds:.0f} s", "seconds": round(seconds)}
    spent = round(time.monotonic() - began)
    if done.returncode == 0:
        row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return {**row, "seconds": spent}
    lines = done.stderr.strip().splitlines() or ["nothing"]
    how = f"ended by {signal.Signals(-done.returncode).name}: " if done.returncode < 0 else ""
    return {"network": network, "outcome": "failed", "said": how + lines[-1][:160], "seconds": spent}


def whole_way(network: str) -> dict[str, Any]:
    """Do everything with a network that a user does."""
    import logging

    import torch

    import nern

    said: list[str] = []
    keep = logging.Handler()
    keep.emit = lambda record: said.append(record.getMessage().removeprefix("nern: "))  # type: ignore[method-assign]
    logging.getLogger("nern").addHandler(keep)
    library, name = network.split("/")
    size = SIZES.get(name, SMALL)
    row: dict[str, Any] = {"network": network, "pixels": size, "outcome": "refused"}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        file = place / "experiment.yaml"
        file.write_text(yaml.safe_dump(experiment(library, name, size, place)), encoding="utf-8")
        started = Started()
        try:
            engine = nern.Engine.from_yaml(file)
            torch.manual_seed(0)
            torch.save(calm(engine.experiment.architecture.built(), size).state_dict(), place / "weights.pth")
            engine.registry.manager.register(started)
            engine.fit()
        except nern.NernError as error:
            if started.steps or isinstance(error, nern.TrainingError):  # a TrainingError comes from a step
                raise
            return {**row, "said": str(error)[:300]}
        loaded = nern.load(engine.save(place / "copy.nern") and place / "copy.nern")
        original, rebuilt = engine.original().state_dict(), loaded.reconstruct().state_dict()
        represented = {layer.parameter for layer in engine.representation.grid.layers}
        assert list(original) == list(rebuilt), "the reconstructed network has other entries"
        for entry, value in original.items():
            assert value.shape == rebuilt[entry].shape and value.dtype == rebuilt[entry].dtype, f"{entry} has another form"
            assert entry in represented or torch.equal(value, rebuilt[entry]), f"{entry} was copied and is another"
        heldout = nern.Engine.from_run(place / "run").evaluate("heldout").headline
        assert heldout is not None and heldout[2] >= 0
    peak = (peak_memory() or 0) >> 20
    return {
        **row,
        "outcome": "passed",
        "kernels": engine.representation.grid.rows,
        "peak": peak,
        "said": "; ".join(dict.fromkeys(said))[:300],
    }


class Started:
    """Counts steps: a refusal after the first step comes too late."""

    def __init__(self) -> None:
        self.steps = 0

    @hookimpl
    def nern_step(self) -> None:
        self.steps += 1


def calm(network: Any, size: int) -> Any:
    """Set batch-norm statistics to those of the activations: with random weights, activations would otherwise grow from layer to layer."""
    import torch

    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.randn(4, 3, size, size))
    return network.eval()


def experiment(library: str, name: str, size: int, place: Path) -> dict[str, Any]:
    """An experiment of three steps on every convolution of a network."""
    return {
        "architecture": {"name": library, "model": name, "size": size, "weights": str(place / "weights.pth")},
        "task": {"name": "uniform-noise", "heldout_images": HELDOUT},
        "predictor": {"name": "mlp", "hidden": 8},
        "smoother": {"name": "none"},
        "sampler": {"name": "uniform", "batch": 4096},
        "losses": {"reconstruction": {}, "kd": {}},
        "phases": [{"iterations": 3, "batch": 2}],
        "optimizer": {"name": "adamw", "lr": 1e-6},
        "evaluate_every": 0,
        "log_every": 1,
        "observers": {},
        "device": "cpu",
        "output": str(place / "run"),
    }


if __name__ == "__main__":
    main()
